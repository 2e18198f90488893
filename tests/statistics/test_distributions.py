"""Quantiles and tails against SciPy's."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats

from onnxnoise.statistics.distributions import beta_quantile, binomial_tail, quantile, upper_tail

DF = [1.0, 1.0001, 2.0, 2.7, 5.0, 9.0, 31.4, 100.0, 999.5, 1e4, 12_345.6, 1e5, 1e6]


@pytest.mark.parametrize("df", DF)
def test_student_quantile_agrees_with_scipy(df: float) -> None:
    for p in (1e-6, 0.025, 0.2, 0.49, 0.51, 0.75, 0.9, 0.95, 0.975, 0.995, 0.9999, 1 - 1e-8):
        assert quantile(p, df) == pytest.approx(scipy.stats.t.ppf(p, df), rel=1e-8)
    assert quantile(0.5, df) == 0.0


@pytest.mark.parametrize("df", DF)
def test_student_tail_agrees_with_scipy(df: float) -> None:
    for t in (0.0, 1e-6, 0.3, 1.0, 2.0, 5.0, 12.0, -0.5, -3.0):
        assert upper_tail(t, df) == pytest.approx(scipy.stats.t.sf(t, df), rel=1e-8)


def test_student_quantile_decreases_with_the_degrees_of_freedom() -> None:
    values = [quantile(0.975, df) for df in np.geomspace(1.0, 1e6, 400)]
    assert all(a > b for a, b in itertools.pairwise(values))


@pytest.mark.parametrize(("probability", "df"), [(0.0, 5.0), (1.0, 5.0), (0.5, 0.5), (math.nan, 5.0), (0.9, math.nan)])
def test_student_quantile_refuses_what_it_can_not_do(probability: float, df: float) -> None:
    with pytest.raises(ValueError, match="no Student quantile"):
        quantile(probability, df)


def test_beta_quantile_agrees_with_scipy() -> None:
    for a, b, p in itertools.product((1, 2, 10, 300), (1, 5, 40), (0.025, 0.5, 0.975)):
        assert beta_quantile(p, a, b) == pytest.approx(scipy.special.betaincinv(a, b, p), rel=1e-9)


@pytest.mark.parametrize("p", [0.0, 1e-6, 0.1, 0.5, 0.922, 1 - 1e-6, 1.0])
@pytest.mark.parametrize("trials", [1, 10, 1000])
def test_binomial_tail_agrees_with_scipy(trials: int, p: float) -> None:
    for hits in {0, 1, trials // 2, round(p * trials), trials - 1, trials}:
        exact = min(scipy.stats.binom.cdf(hits, trials, p), scipy.stats.binom.sf(hits - 1, trials, p))
        assert binomial_tail(hits, trials, p) == pytest.approx(exact, rel=1e-8, abs=1e-300)
