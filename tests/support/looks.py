"""Intervals of many runs of the chunked design at once, at every number of draws: an oracle of sums beside `clustered`.

Each draw meets a chunk of its own. Where `statistics/clustered` sums over the chunks of one cell, this sums up cumulatively over
the draws of all runs, with the squares and cubes of the residuals multiplied out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxnoise.statistics.distributions import quantile
from onnxnoise.statistics.stopping import FEWEST, StoppingRule

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Looks:
    """A and the ends of its interval (runs, draws), from the first n draws of each run in column n - 1."""

    mean: Floats
    low: Floats
    high: Floats

    @classmethod
    def of(cls, size: int, clean: Counts, lost: Counts, gained: Counts) -> Looks:
        """From clean hits, hits lost and hits gained (runs, draws), where each draw meets `size` images of its own."""
        n = np.arange(1, clean.shape[1] + 1)
        t = np.array([0.0, *(quantile(0.975, freedom) for freedom in range(1, n[-1]))])
        whole = clean.cumsum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            lost_rate, gained_rate = lost.cumsum(axis=1) / whole, gained.cumsum(axis=1) / whole
            mean = 1.0 - lost_rate + gained_rate
            squares = _squares(gained - lost, clean, gained_rate - lost_rate)
            error = np.sqrt(np.maximum(squares, 0.0) / whole**2 * n / (n - 1))
            shape = n * n / ((n - 1) * (n - 2)) * (n >= 5) / whole**3
            losses, gains = -_cubes(lost, clean, lost_rate) * shape, _cubes(gained, clean, gained_rate) * shape
            reaches = []
            for first, second in ((-losses, -gains), (gains, losses)):
                skewness = (np.maximum(first, 0.0) + np.maximum(second, 0.0)) / error**3
                tail = np.where(skewness > 0.1, skewness * (1.0 + 2.0 * t * t) / 3.0, 0.0) + t
                reaches.append(np.maximum(np.nan_to_num(tail * error, nan=0.0, posinf=0.0), -math.log(0.05) / whole))
        high = np.maximum(np.minimum(mean + reaches[1], n * size / whole), mean)
        low = np.maximum(mean - reaches[0], 0.0)
        low[:, 0], high[:, 0] = -np.inf, np.inf
        return cls(mean, low, high)

    @property
    def half_widths(self) -> Floats:
        return (self.high - self.low) / 2.0

    def hold(self, truth: float) -> npt.NDArray[np.bool_]:
        return (self.low <= truth) & (truth <= self.high)

    def stops(self, precision: float, most: int, fewest: int = FEWEST) -> Counts:
        """The number of draws of each run that ends as the rule says."""
        rule, found = StoppingRule(precision, most, fewest), []
        for widths in self.half_widths.tolist():
            draws = 0
            while (more := rule.next(draws, lambda n, widths=widths: widths[n - 1])) is not None:
                draws = more
            found.append(draws)
        return np.array(found)


@dataclass(frozen=True)
class Stopped:
    """What stopping at one precision did: shares of runs that held the truth, and the mean number of draws.

    `early` is the share of runs that stopped before they had all draws, `covered_early` the share of these that held the truth,
    and `end` the mean half-width of those that were looked at more than once, over the precision.
    """

    precision: float
    covered: float
    early: float
    covered_early: float
    end: float
    draws: float


def stopped(looks: Looks, truth: float, precision: float, most: int, fewest: int = FEWEST) -> Stopped:
    """The outcome of the stopping rule at one precision."""
    stops, runs = looks.stops(precision, most, fewest), np.arange(len(looks.mean))
    held, width = looks.hold(truth)[runs, stops - 1], looks.half_widths[runs, stops - 1]
    early = stops < most
    chosen = early & (stops > fewest)
    return Stopped(
        precision,
        float(held.mean()),
        float(early.mean()),
        float(held[early].mean()) if early.any() else math.nan,
        float(width[chosen].mean() / precision) if chosen.any() else math.nan,
        float(stops.mean()),
    )


def _squares(change: Counts, clean: Counts, rate: Floats) -> Floats:
    """Sums over draws of (change - rate * clean)^2."""
    return (change**2).cumsum(1) - 2 * rate * (change * clean).cumsum(1) + rate**2 * (clean**2).cumsum(1)


def _cubes(change: Counts, clean: Counts, rate: Floats) -> Floats:
    """Sums over draws of (change - rate * clean)^3."""
    return (
        (change**3).cumsum(1)
        - 3 * rate * (change**2 * clean).cumsum(1)
        + 3 * rate**2 * (change * clean**2).cumsum(1)
        - rate**3 * (clean**3).cumsum(1)
    )
