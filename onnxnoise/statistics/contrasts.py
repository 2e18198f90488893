"""A difference or ratio of hits, paired by image and by draw: its variance, intervals and p-values at any confidence.

A contrast T is estimated from one or more sides, each an array x_dj of a draw d and an image j (linearized where T is a ratio),
and a term y_j of the images alone, such as the clean hits. Draws and images are random; the sides meet the same images, so
they are paired by image; the draws of different sides are independent chips. Sides that met the same noise are one side,
the difference of their x_dj, and so paired by draw too. In the notation of `estimates.py`, with two-way random effects,

    V_draw = sum over sides of MS_draw / (draws * images)       V_rest = sum over sides of MS_rest / (draws * images)
    V_image = variance over images of (sum over sides of the mean of x_dj over draws, + y_j) / images
    V = V_draw + V_image - V_rest

The image effect is common to all sides, so it is taken from their sum and what they share cancels; each side adds its
MS_rest / (draws * images) to V_draw and to V_image, so one of the two is taken off again (Searle, Casella, McCulloch: Variance
Components, 1992, chapter 4). Degrees of freedom are Satterthwaite's, over every mean square. With one side this is
the variance in `estimates.py`, and so are the four departures from a plain t interval: V at least V_draw and V_image;
the skewness term; the rule of three, -log(error) / decisions; never narrower than with the images held.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxnoise.records import Bits, Interval
from onnxnoise.statistics.distributions import quantile, upper_tail

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Measure = tuple[float, Array, Array, float]
"""A value, its x_dj (draws, images), y_j (images,), and the decisions that it is a share of."""

_SKEWED = 0.1  # as in estimates.py, whose intervals these are at other confidences
_SHAPED = 5


@dataclass(frozen=True)
class Law:
    """How an estimate scatters: variance, third cumulant, degrees of freedom, and one unseen decision in its unit."""

    variance: float
    third: float
    freedom: float
    unseen: float

    def _lengthened(self, sign: float) -> float:
        """Standardized skewness where the tail on the side of `sign` is the longer one, else 0."""
        if self.variance <= 0.0:
            return 0.0
        skewness = self.third / self.variance**1.5
        return abs(skewness) if abs(skewness) > _SKEWED and skewness * sign > 0.0 else 0.0

    def reach(self, sign: float, tail: float, error: float) -> float:
        """How far a bound lies from the estimate: t quantile at `tail`, rule of three at `error`; `sign` -1 below, 1 above."""
        least = -math.log(error) * self.unseen
        if self.variance <= 0.0:
            return least
        t, skewness = quantile(1.0 - tail, self.freedom), self._lengthened(sign)
        return max((t + skewness * (1.0 + 2.0 * t * t) / 3.0) * math.sqrt(self.variance), least)

    def tail(self, sign: float, distance: float) -> float:
        """The `tail` at which the t part of `reach` is `distance` (> 0); 1/2 at most."""
        if self.variance <= 0.0:
            return 0.0
        z, skewness = distance / math.sqrt(self.variance), self._lengthened(sign)
        if skewness > 0.0:
            z -= skewness / 3.0
            z = (math.sqrt(1.0 + 8.0 * skewness * z / 3.0) - 1.0) * 0.75 / skewness if z > 0.0 else 0.0
        return upper_tail(z, self.freedom)

    def by_chance(self, distance: float) -> float:
        """The `error` at which the rule of three reaches `distance`."""
        return math.exp(-distance / self.unseen)


@dataclass(frozen=True)
class Contrast:
    """An estimate and how it scatters: `fixed` over draws on these images, `sampled` over draws and images like these."""

    value: float
    fixed: Law
    sampled: Law
    draws: int

    def interval(self, confidence: float = 0.95, *, fixed: bool = False) -> Interval:
        """Two-sided, symmetric in probability; the same as `estimates.estimate` gives at 95 %, not cut off at 0 or 1."""
        error = 1.0 - confidence
        laws = (self.fixed,) if fixed else (self.fixed, self.sampled)
        below, above = (max(law.reach(sign, error / 2.0, error) for law in laws) for sign in (-1.0, 1.0))
        return self.value - below, self.value + above

    def bounds(self, error: float) -> Interval:
        """Two one-sided bounds, each of which fails to hold the truth with probability `error`."""
        laws = (self.fixed, self.sampled)
        below, above = (max(law.reach(sign, error, error) for law in laws) for sign in (-1.0, 1.0))
        return self.value - below, self.value + above

    def p_above(self, limit: float) -> float:
        """The smallest error at which the truth is known to be above `limit`: the lower bound of `bounds` is there then."""
        return self._p(-1.0, self.value - limit)

    def p_below(self, limit: float) -> float:
        """The smallest error at which the truth is known to be below `limit`."""
        return self._p(1.0, limit - self.value)

    def _p(self, sign: float, distance: float) -> float:
        if distance <= 0.0:
            return 1.0
        return max(max(law.tail(sign, distance), law.by_chance(distance)) for law in (self.fixed, self.sampled))

    def p_zero(self) -> float:
        """Two-sided p-value of "the truth is 0": the smallest error at which `interval` does not contain 0."""
        distance, sign = abs(self.value), -math.copysign(1.0, self.value)
        if distance == 0.0:
            return 1.0
        laws = (self.fixed, self.sampled)
        return min(1.0, max(max(2.0 * law.tail(sign, distance), law.by_chance(distance)) for law in laws))


def contrast(value: float, sides: Sequence[Array], images: Array, decisions: float) -> Contrast | None:
    """The law of an estimate `value` from `sides`, each (draws, images), and the images' own term (images,).

    `decisions` is how many images an unseen change of one is a share of, in the unit of `value`: the clean hits for a
    normalized accuracy. None where a side has a single draw: nothing shows how chips differ. Formulas: top of this file.
    """
    draws = min(len(side) for side in sides)
    if draws < 2:
        return None
    moments = [_moments(side) for side in sides]
    together = sum((side.mean(axis=0) for side in sides), images)
    count = len(together)
    one_less, two_less = max(count - 1, 1), max(count - 2, 1)
    apart = together - together.mean()
    by_image = float(np.square(apart).sum()) / (count * one_less)
    by_draw = sum(each.draw for each in moments)
    rest = sum(each.rest for each in moments)
    third = sum(each.third for each in moments)
    squares = sum(each.draw**2 / each.freedom for each in moments)
    fixed = Law(by_draw, third, _freedom(by_draw, squares, draws - 1.0), 1.0 / (draws * decisions))
    if count > 1:
        squares += by_image**2 / one_less + sum(each.rest**2 / (each.freedom * one_less) for each in moments)
    variance = max(by_draw + by_image - rest, by_draw, by_image)
    third += float((apart**3).sum()) / (count * one_less * two_less)
    freedom = _freedom(variance, squares, min(draws, count) - 1.0)
    return Contrast(value, fixed, Law(variance, third, freedom, 1.0 / decisions), draws)


@dataclass(frozen=True)
class _Moments:
    """Of one side: V_draw, V_rest, the third cumulant of its mean over draws, and draws - 1."""

    draw: float
    rest: float
    third: float
    freedom: int


def _moments(side: Array) -> _Moments:
    draws, images = side.shape
    by_draw, by_image, mean = side.mean(axis=1), side.mean(axis=0), side.mean()
    apart = by_draw - mean
    squares = float(np.einsum("dj,dj->", side, side)) + draws * images * float(mean) ** 2
    squares -= images * float(by_draw @ by_draw) + draws * float(by_image @ by_image)
    return _Moments(
        float(apart @ apart) / (draws * (draws - 1)),
        max(squares, 0.0) / ((draws - 1) * max(images - 1, 1) * draws * images),
        float((apart**3).sum()) / (draws * (draws - 1) * (draws - 2)) if draws >= _SHAPED else 0.0,
        draws - 1,
    )


def _freedom(variance: float, squares: float, least: float) -> float:
    return max(variance**2 / squares, 1.0, least) if variance > 0.0 and squares > 0.0 else max(least, 1.0)


@dataclass(frozen=True)
class Side:
    """Hits of one model in one place: `hits` (draws, images) summed over `layers` layers, and its clean hits (images,)."""

    hits: Counts
    layers: int
    clean: Bits

    @property
    def mean(self) -> float:
        """Accuracy over draws and layers, a fraction of 1."""
        return float(self.hits.mean()) / self.layers

    def chosen(self, rows: Sequence[int]) -> Side:
        """The same with these of its draws, by position."""
        return Side(self.hits[list(rows)], self.layers, self.clean)

    def first(self, draws: int) -> Side:
        """The same with its first draws only."""
        return Side(self.hits[:draws], self.layers, self.clean)

    @property
    def each(self) -> Array:
        """Share of the layers that are hits, by draw and image."""
        return self.hits.astype(np.float64) / self.layers


def normalized(side: Side) -> Measure:
    """(A, x_dj, y_j, decisions) of accuracy / clean, linearized: (s_dj / layers - A c_j) / (C / images)."""
    clean = float(side.clean.mean())
    value = side.mean / clean
    share = side.clean.astype(np.float64) * (-value / clean)
    return value, side.each / clean, share, float(side.clean.sum())


def absolute(side: Side) -> Measure:
    """(accuracy, x_dj, y_j, decisions): nothing to divide by."""
    return side.mean, side.each, np.zeros(side.clean.size), float(side.clean.size)


def difference(first: Measure, second: Measure, *, by_draw: bool) -> Contrast | None:
    """`first` - `second`, as `normalized` or `absolute` gave them, on the same images; `by_draw` where they met the same noise.

    Then both must have the same draws, in the same order.
    """
    value = first[0] - second[0]
    sides = [first[1] - second[1]] if by_draw else [first[1], -second[1]]
    return contrast(value, sides, first[2] - second[2], min(first[3], second[3]))


def ratio(first: Side, second: Side, *, by_draw: bool) -> Contrast | None:
    """Accuracy of `first` over that of `second` (above 0) on the same images, linearized in both; `by_draw` as `difference`."""
    base = second.mean
    value = first.mean / base
    mine, theirs = first.each / base, second.each * (value / base)
    sides = [mine - theirs] if by_draw else [mine, -theirs]
    return contrast(value, sides, np.zeros(first.clean.size), base * first.clean.size)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: rejecting those at most e keeps the chance of any false rejection at e (Holm 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, so_far = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        so_far = max(so_far, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = so_far
    return adjusted
