"""Spearman's rank correlation, with an interval and a p-value, so that reports need no SciPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from onnxnoise.records import Interval
from onnxnoise.statistics.distributions import upper_tail

_FEWEST = 10
"""The fewest pairs for which the interval's normal approximation is used."""


@dataclass(frozen=True)
class RankCorrelation:
    """The correlation `rho`, in [-1, 1], of `pairs` pairs, its 95 % `interval`, and the two-sided `p_value` of "none"."""

    rho: float
    pairs: int
    interval: Interval | None
    p_value: float


def spearman(x: Sequence[float], y: Sequence[float]) -> RankCorrelation | None:
    """Pearson's correlation of the ranks, ties at their mean rank. None with fewer than 3 pairs or if all of `x` or `y` tie.

    The p-value is of Student's t with n - 2 degrees of freedom, t = rho sqrt((n - 2) / (1 - rho^2)). The interval is
    tanh(atanh(rho) -+ 1.96 sqrt((1 + rho^2/2) / (n - 3))) (Bonett and Wright, Psychometrika 65, 2000); None with fewer than
    10 pairs or a rho of -1 or 1, where it has no width. Raises ValueError where `x` and `y` differ in length.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} and {len(y)} values make no pairs")
    n = len(x)
    if n < 3:
        return None
    # doubled ranks less n + 1, their doubled mean: integers, so that a perfect rho is exactly 1
    a, b = ([rank - (n + 1) for rank in _ranks(values)] for values in (x, y))
    squares = sum(rank * rank for rank in a) * sum(rank * rank for rank in b)
    if squares == 0:
        return None
    rho = sum(i * j for i, j in zip(a, b, strict=True)) / math.sqrt(squares)
    if abs(rho) >= 1.0:
        return RankCorrelation(math.copysign(1.0, rho), n, None, 0.0)
    t = abs(rho) * math.sqrt((n - 2) / (1.0 - rho * rho))
    return RankCorrelation(rho, n, _interval(rho, n) if n >= _FEWEST else None, 2.0 * upper_tail(t, n - 2))


def _ranks(values: Sequence[float]) -> list[int]:
    """Twice the rank of each value, counted from 1; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for position in order[start:end]:
            ranks[position] = start + end + 1
        start = end
    return ranks


def _interval(rho: float, n: int) -> Interval:
    reach = NormalDist().inv_cdf(0.975) * math.sqrt((1.0 + rho * rho / 2.0) / (n - 3))
    return math.tanh(math.atanh(rho) - reach), math.tanh(math.atanh(rho) + reach)
