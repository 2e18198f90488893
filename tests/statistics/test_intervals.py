"""The law of an estimate: its bounds and probabilities undo each other, and its sides are what the formulas say."""

from __future__ import annotations

import math

import pytest
import scipy.stats

from onnxnoise.statistics.intervals import ABOVE, BELOW, Component, Law, reaches, reaches_95, two_way


def law(skewness: float = 0.0, decisions: float = 1e9) -> Law:
    deviation = 0.02
    third = skewness * deviation**3
    return Law(deviation**2, (-third, third), 7.5, decisions)


@pytest.mark.parametrize("skewness", [-2.0, -0.11, 0.05, 0.11, 2.0])
@pytest.mark.parametrize("tail", [0.2, 0.025, 1e-4])
def test_tail_undoes_reach(skewness: float, tail: float) -> None:
    for end in (BELOW, ABOVE):
        reach = law(skewness).reach(end, tail, 0.5)
        assert law(skewness).tail(end, reach) == pytest.approx(tail, rel=1e-6)


def test_only_the_longer_tail_s_side_grows_and_only_with_clear_skewness() -> None:
    plain = scipy.stats.t.ppf(0.975, 7.5) * 0.02
    assert reaches_95(law(0.09)) == pytest.approx((plain, plain))
    below, above = reaches_95(law(-0.5))
    assert above == pytest.approx(plain)
    assert below == pytest.approx(plain + 2 * 0.5 * (1 + 2 * (plain / 0.02) ** 2) / 6 * 0.02)


def test_nothing_seen_leaves_the_rule_of_three() -> None:
    silent = Law(0.0, (0.0, 0.0), 4.0, 80.0, draws=5)
    assert reaches_95(silent) == pytest.approx((3 / 400, 3 / 400), rel=2e-3)
    assert silent.by_chance(-math.log(0.01) / 400) == pytest.approx(0.01)
    assert silent.tail(BELOW, 0.1) == 0.0
    assert reaches([silent, law()], 0.025, 0.05) == reaches_95(law()), "the farthest counts"


def test_freedom_of_a_sum_is_satterthwaite_s() -> None:
    draw, image, rest = Component.of(4e-4, 9), Component.of(1e-4, 99), Component.of(5e-5, 891)
    fixed, sampled = two_way(draw, image, rest, (0.0, 0.0), (10, 100), 90.0)
    assert (fixed.variance, fixed.freedom, fixed.draws) == (4e-4, 9.0, 10)
    assert sampled.variance == pytest.approx(4.5e-4)
    assert sampled.freedom == pytest.approx(4.5e-4**2 / (4e-4**2 / 9 + 1e-4**2 / 99 + 5e-5**2 / 891))
    both = draw + Component.of(4e-4, 9)
    assert (both.variance, both.freedom) == pytest.approx((8e-4, 18.0))
