"""A difference of hits, paired by image and by draw: its variance, intervals and p-values at any confidence.

A contrast T is estimated from one or more terms, each an array x_dj of a draw d and an image j (linearized where T is a ratio),
and a term y_j of the images alone, such as the clean hits. Draws and images are random; the terms meet the same images, so
they are paired by image; the draws of different terms are independent chips. Hits that met the same noise make one term,
the difference of their x_dj, and so are paired by draw too. The laws are those of `intervals.two_way`, with

    V_draw = sum over terms of MS_draw / (draws * images)       V_rest = sum over terms of MS_rest / (draws * images)
    V_image = variance over images of (sum over terms of the mean of x_dj over draws, + y_j) / images

The image effect is common to all terms, so it is taken from their sum and what they share cancels; each term adds its
MS_rest / (draws * images) to V_draw and to V_image, so one of the two is taken off again. Degrees of freedom are
Satterthwaite's, over every mean square. With one term these are the laws in `estimates.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from onnxnoise.records import Bits, Interval
from onnxnoise.statistics.intervals import ABOVE, BELOW, SHAPED, Component, End, Law, reaches, two_way

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class Measure(NamedTuple):
    """A value with its x_dj (draws, images), its y_j (images,), and the number of decisions that it is a share of."""

    value: float
    hits: Array
    images: Array
    decisions: float


@dataclass(frozen=True)
class Contrast:
    """An estimate and how it scatters: `fixed` over draws on these images, `sampled` over draws and images like these."""

    value: float
    fixed: Law
    sampled: Law
    draws: int

    def interval(self, confidence: float = 0.95, *, fixed: bool = False) -> Interval:
        """The two-sided interval, symmetric in probability; at 95 % that of `estimates.estimate`, but not cut off at 0 or 1."""
        error = 1.0 - confidence
        below, above = reaches((self.fixed,) if fixed else self._laws, error / 2.0, error)
        return self.value - below, self.value + above

    def p_zero(self) -> float:
        """Two-sided p-value of "the truth is 0": the smallest error at which `interval` does not contain 0."""
        if not self.value:
            return 1.0
        end: End = BELOW if self.value > 0.0 else ABOVE
        distance = abs(self.value)
        return min(1.0, max(max(2.0 * law.tail(end, distance), law.by_chance(distance)) for law in self._laws))

    @property
    def _laws(self) -> tuple[Law, Law]:
        return self.fixed, self.sampled


def contrast(value: float, terms: Sequence[Array], images: Array, decisions: float) -> Contrast | None:
    """The laws of an estimate `value` from `terms`, each (draws, images), and the images' own term (images,).

    `decisions` is the number of images of which one unseen change is a share, in the unit of `value`: the clean hits for a
    normalized accuracy. None where a term has a single draw: nothing shows how chips differ. Formulas: top of this file.
    """
    draws = min(len(term) for term in terms)
    if draws < 2:
        return None
    moments = [_moments(term) for term in terms]
    together = sum((term.mean(axis=0) for term in terms), images)
    count = len(together)
    one_less, two_less = max(count - 1, 1), max(count - 2, 1)
    apart = together - together.mean()
    fixed, sampled = two_way(
        reduce(add, (each.draw for each in moments)),
        Component.of(float(np.square(apart).sum()) / (count * one_less), count - 1),
        reduce(add, (each.rest for each in moments)),
        (sum(each.third for each in moments), float((apart**3).sum()) / (count * one_less * two_less)),
        (draws, count),
        decisions,
    )
    return Contrast(value, fixed, sampled, draws)


@dataclass(frozen=True)
class _Moments:
    """V_draw and V_rest of one term, and the third cumulant of its mean over draws."""

    draw: Component
    rest: Component
    third: float


def _moments(term: Array) -> _Moments:
    draws, images = term.shape
    by_draw, by_image, mean = term.mean(axis=1), term.mean(axis=0), term.mean()
    apart = by_draw - mean
    squares = float(np.einsum("dj,dj->", term, term)) + draws * images * float(mean) ** 2
    squares -= images * float(by_draw @ by_draw) + draws * float(by_image @ by_image)
    freedom = (draws - 1) * max(images - 1, 1)
    return _Moments(
        Component.of(float(apart @ apart) / (draws * (draws - 1)), draws - 1),
        Component.of(max(squares, 0.0) / (freedom * draws * images), freedom),
        float((apart**3).sum()) / (draws * (draws - 1) * (draws - 2)) if draws >= SHAPED else 0.0,
    )


@dataclass(frozen=True)
class Side:
    """Hits of one model in one place, to be compared with another model's or with a limit.

    `hits` (draws, images) are summed over `layers` layers; `clean` (images,) are the model's hits without noise.
    """

    hits: Counts
    layers: int
    clean: Bits

    @property
    def mean(self) -> float:
        """Accuracy over draws and layers, a fraction of 1."""
        return float(self.hits.mean()) / self.layers

    def chosen(self, rows: Sequence[int]) -> Side:
        """The side with only the draws at these positions."""
        return Side(self.hits[list(rows)], self.layers, self.clean)

    def first(self, draws: int) -> Side:
        """The side with only its first `draws` draws."""
        return Side(self.hits[:draws], self.layers, self.clean)

    @property
    def each(self) -> Array:
        """The share of the layers in which an image is a hit, by draw and image (draws, images)."""
        return self.hits.astype(np.float64) / self.layers


def normalized(side: Side) -> Measure:
    """A, the accuracy as a fraction of the clean one, linearized: (s_dj / layers - A c_j) / (C / images)."""
    clean = float(side.clean.mean())
    value = side.mean / clean
    share = side.clean.astype(np.float64) * (-value / clean)
    return Measure(value, side.each / clean, share, float(side.clean.sum()))


def absolute(side: Side) -> Measure:
    """The accuracy as a fraction of 1, where there is nothing to linearize."""
    return Measure(side.mean, side.each, np.zeros(side.clean.size), float(side.clean.size))


def difference(first: Measure, second: Measure, *, by_draw: bool) -> Contrast | None:
    """The contrast `first` - `second` of measures on the same images; `by_draw` says that they also met the same noise.

    With `by_draw` both must have the same draws, in the same order. None where one has a single draw.
    """
    value, images = first.value - second.value, first.images - second.images
    terms = [first.hits - second.hits] if by_draw else [first.hits, -second.hits]
    return contrast(value, terms, images, min(first.decisions, second.decisions))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: rejecting those at most e keeps the chance of any false rejection at e (Holm 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, so_far = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        so_far = max(so_far, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = so_far
    return adjusted
