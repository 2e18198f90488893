from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from onnxnoise.statistics.correlation import spearman


@pytest.mark.parametrize("n", [3, 4, 10, 41, 139])
@pytest.mark.parametrize("levels", [2, 5, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_rho_and_p_are_scipys(n: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(1000 * n + 10 * levels + seed)
    x = np.arange(n) if seed % 2 else rng.integers(0, levels, n)
    y = rng.integers(0, levels, n) / 7
    if len(set(x.tolist())) == 1 or len(set(y.tolist())) == 1:
        assert spearman(x.tolist(), y.tolist()) is None
        return
    found, expected = spearman(x.tolist(), y.tolist()), stats.spearmanr(x, y)
    assert found is not None
    assert found.pairs == n
    assert math.isclose(found.rho, expected.statistic, rel_tol=1e-12, abs_tol=1e-15)
    assert math.isclose(found.p_value, expected.pvalue, rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize(("y", "rho"), [([1.0, 2.0, 5.0, 9.0], 1.0), ([4.0, 3.0, 2.0, -1.0], -1.0)])
def test_a_perfect_order_has_no_interval(y: list[float], rho: float) -> None:
    found = spearman([1.0, 2.0, 3.0, 4.0], y)
    assert found is not None
    assert (found.rho, found.p_value, found.interval) == (rho, 0.0, None)


@pytest.mark.parametrize(
    ("x", "y"), [([1.0, 2.0], [1.0, 2.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), ([1.0, 2.0, 3.0], [0.5] * 3)]
)
def test_none_where_there_is_no_order(x: list[float], y: list[float]) -> None:
    assert spearman(x, y) is None


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(ValueError, match="3 and 2 values"):
        spearman([1.0, 2.0, 3.0], [1.0, 2.0])


@pytest.mark.parametrize(("n", "correlation"), [(15, 0.0), (41, 0.0), (41, 0.5), (113, -0.7)])
def test_the_interval_covers(n: int, correlation: float) -> None:
    """Of bivariate normal samples, whose true rho is 6/pi asin(r/2): 95 % of 1,000 intervals, within 4 standard errors."""
    rng = np.random.default_rng(n)
    true = 6 / math.pi * math.asin(correlation / 2)
    covered = 0
    for _ in range(1000):
        x = rng.standard_normal(n)
        y = correlation * x + math.sqrt(1 - correlation**2) * rng.standard_normal(n)
        found = spearman(x.tolist(), y.tolist())
        assert found is not None
        assert found.interval is not None
        low, high = found.interval
        assert -1 < low < found.rho < high < 1
        covered += low <= true <= high
    assert 0.95 - 4 * 0.007 < covered / 1000 < 0.95 + 4 * 0.007


def test_few_pairs_have_no_interval() -> None:
    found = spearman(list(range(9)), [1.0, 3.0, 2.0, 5.0, 4.0, 7.0, 6.0, 9.0, 8.0])
    assert found is not None
    assert found.interval is None
