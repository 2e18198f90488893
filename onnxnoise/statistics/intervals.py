"""The law by which an estimate scatters around the truth, and the reach of its bounds on each side.

Estimates here are means over draws and images (`two_way`) or over chunks of images (`clustered.py`). A `Law` describes the
scatter of such a mean: its variance V, third cumulant, degrees of freedom f and the number of decisions that it is a mean of.
A bound that the truth lies beyond with probability `tail` is t(f) * sqrt(V) away, with departures for the wide side where that
plain formula was measured to miss (tests/test_coverage.py):

* Skewness: draws that collapse now and then, and few images that change, make a t interval miss on one side. Where the
  mean's standardized skewness exceeds `_SKEWED`, the side of the longer tail grows by twice the first Cornish-Fisher
  term of a studentized mean, skewness * (1 + 2 t^2) / 6 (P. Hall, The Bootstrap and Edgeworth Expansion, 1992). Doubled, the
  term gives the exact Poisson bounds on few events (5.9 for one seen; exactly 5.6) and makes up for few draws showing less
  skewness than they come from.
* Rule of three: a change that was seen in no decision may still happen in a share of -log(error) / decisions, 3 / decisions at
  95 %. Each side reaches at least that far.

With two-way random effects, draws and images, there are two laws: `fixed` for other draws on these images, whose variance is
V_draw, and `sampled` for other draws on other images. From the mean squares of the layout (draws, images), per draw and image,

    V_x = MS_x / (draws * images)        V = V_draw + V_image - V_rest
    f = V^2 / (V_draw^2 / (draws-1) + V_image^2 / (images-1) + V_rest^2 / ((draws-1)(images-1)))      (Satterthwaite)

(Searle, Casella, McCulloch: Variance Components, 1992, chapter 4), with two more departures for the wide side:

* V is at least V_draw and V_image, the variances with the images or the draws held; f at least the smaller of theirs.
* `sampled` reaches at least as far as `fixed`: up to six draws the gain in degrees of freedom can otherwise outweigh the larger
  variance (`reaches` of both laws).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from onnxnoise.statistics.distributions import quantile, upper_tail

SHAPED = 5
"""The number of draws from which on their third moment is used: that of three or four draws says next to nothing."""

_SKEWED = 0.1
"""The skewness of a Poisson count of 100, whose exact and normal bounds differ by a tenth."""

End = Literal[0, 1]
BELOW: Final = 0
ABOVE: Final = 1


@dataclass(frozen=True)
class Law:
    """The law by which an estimate scatters: `variance` in its unit squared, `thirds` in its unit cubed, degrees of freedom.

    `thirds` are the third cumulants that lengthen the tail below and the tail above: of one distribution, the same number with
    either sign. `decisions` is the number of images of which an unseen change is a share, in the estimate's unit, and `draws` how
    often each counts as a decision of its own: once where the images are the sample, however many draws look at them.
    """

    variance: float
    thirds: tuple[float, float]
    freedom: float
    decisions: float
    draws: int = 1

    def _skewness(self, end: End) -> float:
        """Standardized skewness towards an end; 0 where the tail there is not clearly the longer one. Variance above 0."""
        skewness = self.thirds[end] / self.variance**1.5
        return skewness if skewness > _SKEWED else 0.0

    def reach(self, end: End, tail: float, error: float) -> float:
        """The distance of a bound from the estimate: by Student's t at probability `tail`, by the rule of three at `error`."""
        least = -math.log(error) / self.decisions / self.draws
        if self.variance <= 0.0:
            return least
        t, deviation = quantile(1.0 - tail, self.freedom), math.sqrt(self.variance)
        return max(t * deviation + self._skewness(end) * (1.0 + 2.0 * t * t) / 3.0 * deviation, least)

    def tail(self, end: End, distance: float) -> float:
        """The probability `tail` at which the t part of `reach` is `distance` (> 0); 1/2 at most."""
        if self.variance <= 0.0:
            return 0.0
        z, skewness = distance / math.sqrt(self.variance), self._skewness(end)
        if skewness > 0.0:
            z -= skewness / 3.0
            z = (math.sqrt(1.0 + 8.0 * skewness * z / 3.0) - 1.0) * 0.75 / skewness if z > 0.0 else 0.0
        return upper_tail(z, self.freedom)

    def by_chance(self, distance: float) -> float:
        """The `error` at which the rule of three reaches `distance`."""
        return math.exp(-distance * self.decisions * self.draws)


def reaches(laws: Iterable[Law], tail: float, error: float) -> tuple[float, float]:
    """The distances of the bounds below and above from the estimate: the farthest of several laws."""
    both = [(law.reach(BELOW, tail, error), law.reach(ABOVE, tail, error)) for law in laws]
    return max(below for below, _ in both), max(above for _, above in both)


def reaches_95(*laws: Law) -> tuple[float, float]:
    """The distances that a two-sided 95 % interval reaches below and above the estimate."""
    return reaches(laws, 0.025, 0.05)


@dataclass(frozen=True)
class Component:
    """A variance from one mean square, or from independent ones that add up with `+`; `squares` sums variance^2 / freedom."""

    variance: float
    squares: float
    freedom: float

    @classmethod
    def of(cls, variance: float, freedom: int) -> Component:
        """The component of a mean square with `freedom` degrees of freedom; 0 count as 1, since the variance is 0 then."""
        freedom = max(freedom, 1)
        return cls(variance, variance**2 / freedom, float(freedom))

    def __add__(self, other: Component) -> Component:
        variance, squares = self.variance + other.variance, self.squares + other.squares
        return Component(variance, squares, _satterthwaite(variance, squares, min(self.freedom, other.freedom)))


def _satterthwaite(variance: float, squares: float, least: float) -> float:
    """Degrees of freedom of a sum of components; `squares` is the sum of their variance^2 / freedom. At least `least`."""
    return max(variance**2 / squares, least) if squares > 0.0 else least


def two_way(
    draw: Component,
    image: Component,
    rest: Component,
    thirds: tuple[float, float],
    shape: tuple[int, int],
    decisions: float,
) -> tuple[Law, Law]:
    """The laws `fixed` and `sampled` of a mean over draws and images; formulas: top of this file.

    `draw`, `image` and `rest` are V_draw, V_image and V_rest, `thirds` the third cumulants of the mean from draws and from
    images, `shape` is (draws, images) with at least two draws, and `decisions` as in `Law`.
    """
    draws, images = shape
    third = thirds[0] + thirds[1]
    variance = max(draw.variance + image.variance - rest.variance, draw.variance, image.variance)
    squares = draw.squares + (image.squares + rest.squares)
    freedom = _satterthwaite(variance, squares, max(min(draws, images) - 1.0, 1.0))
    fixed = Law(draw.variance, (-thirds[0], thirds[0]), draw.freedom, decisions, draws)
    return fixed, Law(variance, (-third, third), freedom, decisions)
