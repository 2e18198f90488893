"""Quantiles of Student's t and the beta distribution, and tails of the binomial, so that nothing needs SciPy at run time."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_TINY = 1e-300


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of I_x(a, b), by Lentz's method (DLMF 8.17.22); fast for x < (a + 1)/(a + b + 2)."""
    c, d = 1.0, 1.0 / max(1.0 - (a + b) * x / (a + 1.0), _TINY)
    value = d
    for m in range(1, 10_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0)),
        ):
            d = 1.0 + numerator * d
            c = 1.0 + numerator / c
            d = 1.0 / (d if abs(d) > _TINY else _TINY)
            c = c if abs(c) > _TINY else _TINY
            value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return value


def _beta_tails(a: float, b: float, x: float, y: float) -> tuple[float, float]:
    """I_x(a, b) and its complement; `y` is 1 - x, given apart because it may be too small to subtract."""
    if x <= 0.0 or y <= 0.0:
        return (0.0, 1.0) if x <= 0.0 else (1.0, 0.0)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(y)
    if x < (a + 1.0) / (a + b + 2.0):
        lower = math.exp(log_front) * _fraction(a, b, x) / a
        return lower, 1.0 - lower
    upper = math.exp(log_front) * _fraction(b, a, y) / b
    return 1.0 - upper, upper


def upper_tail(t: float, df: float) -> float:
    """P(T > t) of Student's t with `df` > 0 degrees of freedom, fractions too: I_x(df/2, 1/2)/2, x = df/(df + t^2)."""
    square = t * t
    tail = 0.5 * _beta_tails(df / 2.0, 0.5, df / (df + square), square / (df + square))[0]
    return tail if t >= 0.0 else 1.0 - tail


@lru_cache(maxsize=4096)
def quantile(probability: float, df: float) -> float:
    """The t with P(T <= t) = `probability` in (0, 1), for `df` >= 1; relative error below 1e-8 up to df = 1e6.

    Newton's method on log P(T > t) over log t, where the tail is nearly a straight line for every df, from the
    Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5). Raises ValueError outside the domain.
    """
    if not (0.0 < probability < 1.0 and df >= 1.0):
        raise ValueError(f"no Student quantile for probability {probability}, {df} degrees of freedom")
    if probability <= 0.5:
        return 0.0 if probability == 0.5 else -quantile(1.0 - probability, df)
    goal = 1.0 - probability
    z = NormalDist().inv_cdf(probability)
    t = z + (z**3 + z) / (4.0 * df) + (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / (96.0 * df * df)
    log_scale = math.lgamma((df + 1.0) / 2.0) - math.lgamma(df / 2.0) - 0.5 * math.log(df * math.pi)
    for _ in range(60):
        tail = upper_tail(t, df)
        density = math.exp(log_scale - (df + 1.0) / 2.0 * math.log1p(t * t / df))
        step = math.log(tail / goal) * tail / (t * density)
        t *= math.exp(step)
        if abs(step) < 1e-6:
            break
    return t


@lru_cache(maxsize=4096)
def beta_quantile(probability: float, a: float, b: float) -> float:
    """The x with I_x(a, b) = `probability`, by bisection, to about 1e-15 absolute; for counts (a, b >= 1)."""
    low, high = 0.0, 1.0
    while (middle := 0.5 * (low + high)) not in (low, high):
        if _beta_tails(a, b, middle, 1.0 - middle)[0] < probability:
            low = middle
        else:
            high = middle
    return middle


def binomial_tail(successes: int, trials: int, p: float) -> float:
    """The smaller of P(X <= successes) and P(X >= successes) for X ~ Binomial(trials, p), by summing the masses."""
    if not 0.0 < p < 1.0:
        return 1.0 if successes == (trials if p >= 1.0 else 0) else 0.0

    def mass(k: int) -> float:
        ways = math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        return math.exp(ways + k * math.log(p) + (trials - k) * math.log(1 - p))

    return min(sum(map(mass, range(successes + 1))), sum(map(mass, range(successes, trials + 1))))


def at_least(successes: int, trials: int, p: float) -> float:
    """P(X >= successes) for X ~ Binomial(trials, p), as I_p(successes, trials - successes + 1); exact to about 1e-12."""
    if successes <= 0:
        return 1.0
    return _beta_tails(successes, trials - successes + 1.0, p, 1.0 - p)[0] if successes <= trials else 0.0
