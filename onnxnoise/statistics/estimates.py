"""Hit bits of noisy draws and of the clean model become normalized accuracies with two 95 % intervals.

Every estimate follows from integer sums over images (`HitSums`), so it is the same whatever the order of draws, images
and chunks, and the one division comes last. In the notation of this file `s_dj` counts the hits of draw d on image j
over the layers averaged (0 or 1 for a single cell), `c_j` is the clean hit, `k_j = sum_d s_dj`, `C = sum_j c_j`, and

    A = sum_dj s_dj / (layers * draws * C)        e_dj = s_dj / layers - A c_j        (the linearized ratio)

`fixed` (these images, other draws) and `sampled` (other images, other draws) are A with the reaches of `intervals.two_way`, from
the mean squares of e_dj / (C / images) laid out two ways. Unseen changes count per hit: `decisions` is C.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxnoise.records import Bits, Estimate, Interval, Yield
from onnxnoise.statistics.distributions import beta_quantile
from onnxnoise.statistics.intervals import SHAPED, Component, Law, reaches_95, two_way


@dataclass(frozen=True)
class HitSums:
    """Integer sums over images: all that an estimate needs. The sums of two chunks of images add up with `+`."""

    layers: int
    images: int
    clean: int  # C
    draws: tuple[int, ...]  # sum_j s_dj of each draw
    squares: int  # sum_dj s_dj^2
    powers: tuple[int, int]  # sum_j k_j^2, k_j^3
    kept: tuple[int, int]  # sum_j c_j k_j, c_j k_j^2

    def __add__(self, other: HitSums) -> HitSums:
        """The sums over both chunks. Raises ValueError if the two differ in layers or draws."""
        if (self.layers, len(self.draws)) != (other.layers, len(other.draws)):
            raise ValueError("chunks of one estimate must have the same layers and draws")
        return HitSums(
            self.layers,
            self.images + other.images,
            self.clean + other.clean,
            tuple(a + b for a, b in zip(self.draws, other.draws, strict=True)),
            self.squares + other.squares,
            (self.powers[0] + other.powers[0], self.powers[1] + other.powers[1]),
            (self.kept[0] + other.kept[0], self.kept[1] + other.kept[1]),
        )

    @property
    def whole(self) -> int:
        """Hits of a draw in which nothing changed, where A is 1. Raises ValueError without a clean hit."""
        if self.clean == 0:
            raise ValueError("no clean hit: the normalized accuracy is not defined")
        return self.layers * self.clean

    @property
    def ratios(self) -> tuple[float, ...]:
        """A of each draw, a fraction of the clean accuracy. Raises ValueError without a clean hit."""
        return tuple(hits / self.whole for hits in self.draws)


class LayerSum:
    """Adds up the hits of layers, each (draws, images), that meet the same images; holds one integer array of that shape."""

    def __init__(self, clean: Bits) -> None:
        self.clean = clean.astype(np.bool_, copy=False)
        self.layers = 0
        self._total: Bits | npt.NDArray[np.int64] = np.zeros((0, clean.size), np.bool_)

    def add(self, hits: Bits) -> None:
        """Add one layer's hits. Raises ValueError if the shape doesn't fit the clean hits or the layer before."""
        if hits.ndim != 2 or hits.shape[1:] != self.clean.shape or (self.layers and hits.shape != self._total.shape):
            raise ValueError(f"hits of shape {hits.shape} do not fit {self.clean.shape} clean hits or the layer before")
        if self.layers == 0:
            self._total = hits.astype(np.bool_, copy=False)
        elif self.layers == 1:
            self._total = self._total + hits.astype(np.int64)
        else:
            self._total += hits
        self.layers += 1

    def sums(self) -> HitSums:
        """The sums of all layers added. Raises ValueError where none was added."""
        total = self._total
        if total.size == 0:
            raise ValueError("an estimate needs at least one layer, draw and image")
        by_image: npt.NDArray[np.int64] = total.sum(axis=0, dtype=np.int64)
        by_draw = np.count_nonzero(total, axis=1) if self.layers == 1 else total.sum(axis=1)
        often, kept_often = np.bincount(by_image), np.bincount(by_image[self.clean])
        return HitSums(
            self.layers,
            self.clean.size,
            int(np.count_nonzero(self.clean)),
            tuple(by_draw.tolist()),
            int(by_draw.sum() if self.layers == 1 else np.square(total).sum()),
            (_power_sum(often, 2), _power_sum(often, 3)),
            (_power_sum(kept_often, 1), _power_sum(kept_often, 2)),
        )


def count(noisy: Iterable[Bits], clean: Bits) -> HitSums:
    """Sums of the hits of one or more layers, each (draws, images), and of the clean hits (images,) on the same images.

    The layers may come from a generator. Raises ValueError where shapes disagree or nothing was given.
    """
    layers = LayerSum(clean)
    for hits in noisy:
        layers.add(hits)
    return layers.sums()


def estimate(sums: HitSums, target: float | None = None) -> Estimate:
    """A, its intervals (none with a single draw) and how draws differ, fractions of the clean accuracy; yield at `target`.

    Formulas: top of this file. Intervals end at 0, and at the ratio with every image right. Raises ValueError without a clean
    hit.
    """
    mean, fixed, sampled = _with_intervals(sums)
    reached = None if target is None else passing(sums.ratios, target)
    return Estimate(mean, fixed, sampled, _deviation(sums.ratios), min(sums.ratios), reached)


def _with_intervals(sums: HitSums) -> tuple[float, Interval | None, Interval | None]:
    draws = len(sums.draws)
    mean = sum(sums.draws) / (draws * sums.whole)
    if draws == 1:
        return mean, None, None
    fixed, sampled = _laws(sums)
    below, above = reaches_95(fixed)
    below_sampled, above_sampled = reaches_95(fixed, sampled)
    most = sums.images / sums.clean
    return (
        mean,
        (max(mean - below, 0.0), min(mean + above, most)),
        (max(mean - below_sampled, 0.0), min(mean + above_sampled, most)),
    )


def ratio(noisy: Bits, clean: Bits, target: float | None = None) -> Estimate:
    """Normalized accuracy A of one cell from hits (draws, images) and clean hits (images,); ValueError as `count`."""
    return estimate(count([noisy], clean), target)


def average(noisy: Iterable[Bits], clean: Bits, target: float | None = None) -> Estimate:
    """A_avr, the mean of A over layers, from (layers, draws, images) hits or an iterable of its layers.

    Draws of the same number are one draw of all layers. Raises ValueError as `count` and `estimate` do.
    """
    return estimate(count(noisy, clean), target)


def estimate_accuracy(sums: HitSums, target: float | None = None) -> Estimate:
    """Accuracy, a fraction of 1, with all that `estimate` tells: the ratio to a model that is always right, cut off at 1.

    `target` stays a share of the clean accuracy, so the yield counts the same draws as the ratio's. No yield without a clean hit.
    """
    of_all = replace(sums, clean=sums.images, kept=(sum(sums.draws), sums.powers[0]))
    mean, fixed, sampled = _with_intervals(of_all)
    reached = None
    if target is not None and sums.clean:
        reached = replace(passing(sums.ratios, target), target=target * sums.clean / sums.images)
    return Estimate(mean, fixed, sampled, _deviation(of_all.ratios), min(of_all.ratios), reached)


def accuracy(noisy: Bits) -> Estimate:
    """Accuracy of one cell, a fraction of 1, from hits (draws, images); ValueError as `count`."""
    return estimate_accuracy(count([noisy], np.ones(noisy.shape[1:], np.bool_)))


def passing(values: Sequence[float], target: float) -> Yield:
    """Yield of draws with a value of at least `target`. Its lower end allows for collapses that no draw has shown.

    Ten of ten draws passing still allow a yield of 0.69. Raises ValueError without any draw.
    """
    if not values:
        raise ValueError("a yield needs at least one draw")
    draws, good = len(values), sum(value >= target for value in values)
    low = beta_quantile(0.025, good, draws - good + 1) if good else 0.0
    high = beta_quantile(0.975, good + 1, draws - good) if good < draws else 1.0
    return Yield(target, good / draws, (low, high))


def _deviation(ratios: Sequence[float]) -> float | None:
    """The standard deviation over draws; None with one draw."""
    if len(ratios) == 1:
        return None
    mean = math.fsum(ratios) / len(ratios)
    return math.sqrt(math.fsum((one - mean) ** 2 for one in ratios) / (len(ratios) - 1))


def _power_sum(often: npt.NDArray[np.int64], power: int) -> int:
    """sum_k often[k] k^power in Python's integers: third powers of hits over layers and draws overflow 64 bits."""
    seen = np.flatnonzero(often)
    return sum(times * value**power for value, times in zip(seen.tolist(), often[seen].tolist(), strict=True))


def _laws(sums: HitSums) -> tuple[Law, Law]:
    """The laws `fixed` and `sampled` of A; their mean squares are exact up to the last division."""
    draws, images, clean = len(sums.draws), sums.images, sums.clean
    hits = sum(sums.draws)
    (k2, k3), (ck, ck2) = sums.powers, sums.kept
    deviations = [draws * one - hits for one in sums.draws]
    draw2, draw3 = sum(d**2 for d in deviations), sum(d**3 for d in deviations)
    # sums over images of (C k_j - hits c_j)^2 and ^3, which are e_j times layers * draws * C
    image2 = clean**2 * k2 - 2 * clean * hits * ck + hits**2 * clean
    image3 = clean**3 * k3 - 3 * clean**2 * hits * ck2 + 3 * clean * hits**2 * ck - hits**3 * clean
    rest2 = draws * images * (draws * sums.squares - k2) - draw2  # residual sum of squares times draws^2 * images
    unit = draws * sums.whole
    one_less, two_less = max(images - 1, 1), max(images - 2, 1)
    third_by_draw = draw3 / (unit**3 * draws * (draws - 1) * (draws - 2)) if draws >= SHAPED else 0.0
    third_by_image = image3 * images**2 / (unit**3 * clean**3 * one_less * two_less)
    return two_way(
        Component.of(draw2 / (unit**2 * draws * (draws - 1)), draws - 1),
        Component.of(image2 * images / (unit**2 * clean**2 * one_less), images - 1),
        Component.of(rest2 / (unit**2 * draws * (draws - 1) * one_less), (draws - 1) * one_less),
        (third_by_draw, third_by_image),
        (draws, images),
        clean,
    )
