"""Chunks of images that each met draws of their own become normalized accuracies with intervals clustered by chunk.

Where a precision is the goal, every chunk of images meets fresh draws: draws and images then vary together, and a chunk is
the unit that is independent of the others (a cluster). In the notation of this file chunk k has `c_k` clean hits and met
`r_k` draws, in which `l_k` clean hits were lost and `g_k` hits gained; `K` counts chunks, `C = sum_k r_k c_k`, and

    A = 1 - sum_k l_k / C + sum_k g_k / C
    u_k = (g_k - r_k c_k sum g / C) / C  -  (l_k - r_k c_k sum l / C) / C        V = K / (K-1) * sum_k u_k^2

the ratio estimate of cluster sampling with its linearized variance (W. Cochran, Sampling Techniques, 1977, chapter 9),
which holds the draws' share of it and the images'. `sampled` is A with the reaches of `intervals.Law`: V has K-1 degrees of
freedom, the decisions are the sum_k c_k clean hits, since the images are the sample, and the third cumulants are
K^2 / ((K-1)(K-2)) * sum_k (...)^3. Those of losses and of gains are taken apart: where few of either were seen, they cancel in A
but not in changes that might have been seen. `fixed` is None: one draw a chunk can't tell how much of V
is due to the draws. Spread, worst draw and yield are None too: a draw has met its own chunk only.

`A_avr` is the mean over layers of A, each from all the chunks that its layer has. A chunk stays one cluster: its u_k is the
mean of the layers', 0 for a layer that has not met it. Its degrees of freedom are those of the layer with the fewest chunks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add

import numpy as np
import numpy.typing as npt

from onnxnoise.records import Estimate
from onnxnoise.statistics.contrasts import Contrast
from onnxnoise.statistics.intervals import SHAPED, Law, reaches_95


@dataclass(frozen=True)
class ChunkHits:
    """A chunk's images and clean hits, the draws that met it, and of these together the clean hits lost and hits gained.

    The hits of more draws on the same chunk add up with `+`.
    """

    images: int
    clean: int
    draws: int
    lost: int
    gained: int

    def __add__(self, other: ChunkHits) -> ChunkHits:
        """The hits of both sets of draws. Raises ValueError if the two are not of the same chunk."""
        if (self.images, self.clean) != (other.images, other.clean):
            raise ValueError("draws that add up must have met the same images")
        return ChunkHits(
            self.images, self.clean, self.draws + other.draws, self.lost + other.lost, self.gained + other.gained
        )

    @property
    def whole(self) -> int:
        """The hits that the draws would have if nothing had changed: draws times clean hits."""
        return self.draws * self.clean


Chunks = Mapping[int, ChunkHits]
"""The chunks of one cell, each by the position of its first image."""


def estimate_chunks(chunks: Chunks) -> Estimate:
    """A and `sampled` (None with one chunk), fractions of the clean accuracy. Raises ValueError without a clean hit."""
    return estimate_layers([chunks])


def estimate_chunks_accuracy(chunks: Chunks) -> Estimate:
    """Accuracy, a fraction of 1: the ratio to a model that is always right, cut off at 1. ValueError without an image."""
    return estimate_chunks(always_right(chunks))


def always_right(chunks: Chunks) -> Chunks:
    """The chunks with the same hits, as changes to a model that is always right."""
    return {
        start: ChunkHits(
            one.images, one.images, one.draws, one.draws * one.images - one.whole + one.lost - one.gained, 0
        )
        for start, one in chunks.items()
    }


def estimate_layers(layers: Iterable[Chunks]) -> Estimate:
    """A_avr, the mean of A over layers, with `sampled` as `estimate_chunks`.

    Raises ValueError without a layer, and where a layer has no clean hit.
    """
    ratios = [_Ratio.of(chunks) for chunks in layers]
    if not ratios:
        raise ValueError("an average needs at least one layer")
    mean = math.fsum(each.value for each in ratios) / len(ratios)
    fewest = min(each.starts.size for each in ratios)
    if fewest < 2:
        return Estimate(mean, None, None)
    variance, thirds = _moments(partial(_residuals, ratios), fewest)
    below, above = reaches_95(Law(variance, thirds, fewest - 1.0, min(each.clean for each in ratios)))
    most = math.fsum(each.most for each in ratios) / len(ratios)
    return Estimate(mean, None, (max(mean - below, 0.0), max(min(mean + above, most), mean)))


def contrast_layers(
    first: Sequence[Chunks], second: Sequence[Chunks] = (), size: int = 1
) -> tuple[float, Contrast | None]:
    """A_avr of `first`, less that of `second` on the same images if there is one, with its law (None with one chunk).

    Both meet the same images, in blocks of `size` of which each chunk is a part: a block is one cluster, whose u_k is the
    difference of both. Raises ValueError as `estimate_layers` does.
    """
    sides = [[_Ratio.of(chunks).in_blocks(size) for chunks in each] for each in (first, second) if each]
    means = [math.fsum(one.value for one in each) / len(each) for each in sides]
    value = means[0] - sum(means[1:])
    every = [one for each in sides for one in each]
    fewest = min(one.starts.size for one in every)
    if fewest < 2:
        return value, None
    starts = np.unique(np.concatenate([one.starts for one in every]))

    def spread(scale: Callable[[int], float]) -> npt.NDArray[np.float64]:
        total = np.zeros((2, starts.size))
        for sign, side in zip((1, -1), sides, strict=False):
            for one in side:  # what the second loses, the first gains
                rows = one.residuals[::sign] * scale(one.starts.size) / len(side)
                total[:, np.searchsorted(starts, one.starts)] += rows
        return total

    variance, thirds = _moments(spread, fewest)
    law = Law(variance, thirds, fewest - 1.0, min(one.clean for one in every))
    return value, Contrast(value, law, law, fewest)


def share_of_images(draws: Iterable[tuple[int, ChunkHits]]) -> float | None:
    """The share of the variance V that more draws on the same images would leave, from single draws with their chunks' starts.

    A chunk's draws differ by s^2 = sum_kr (x_kr - mean_k x)^2 / sum_k (r_k - 1), x being the hits less A times the clean
    ones: the draws' part of V is s^2 times the number of draws / C^2. None where no chunk met two draws, or nothing varies.
    """
    chunks: dict[int, list[ChunkHits]] = {}
    for start, one in draws:
        chunks.setdefault(start, []).append(one)
    count, freedom = sum(map(len, chunks.values())), sum(len(each) - 1 for each in chunks.values())
    whole = sum(one.clean for each in chunks.values() for one in each)
    if not freedom or not whole or len(chunks) < 2:
        return None
    ratio = _Ratio.of({start: reduce(add, each) for start, each in chunks.items()})
    variance = float(np.square(ratio.residuals[1] - ratio.residuals[0]).sum()) * len(chunks) / (len(chunks) - 1)
    within = 0.0
    for each in chunks.values():
        apart = np.array([one.gained - one.lost for one in each], np.float64)
        within += float(np.square(apart - apart.mean()).sum())
    return max(1.0 - within / freedom * count / whole**2 / variance, 0.0) if variance > 0.0 else None


@dataclass(frozen=True)
class _Ratio:
    """A of one cell (`value`) with its clean hits, each counted once whatever the draws, and its chunks' `starts` in order (K,).

    `most` is A where every image is a hit: images / clean hits, each counted as often as it met a draw. `residuals` (2, K) are
    the losses' and the gains' share of u_k.
    """

    value: float
    clean: int
    most: float
    starts: npt.NDArray[np.int64]
    residuals: npt.NDArray[np.float64]

    @classmethod
    def of(cls, chunks: Chunks) -> _Ratio:
        counts = np.array(
            [
                (start, one.clean, one.whole, one.lost, one.gained, one.draws * one.images)
                for start, one in sorted(chunks.items())
            ],
            np.int64,
        ).reshape(-1, 6)
        starts, cleans, wholes, lost, gained, met = counts.T
        whole, all_lost, all_gained = int(wholes.sum()), int(lost.sum()), int(gained.sum())
        if whole == 0:
            raise ValueError("no clean hit: the normalized accuracy is not defined")
        residuals = np.array([lost * whole - all_lost * wholes, gained * whole - all_gained * wholes]) / whole**2
        value = (whole - all_lost + all_gained) / whole
        return cls(value, int(cleans.sum()), int(met.sum()) / whole, starts, residuals)

    def in_blocks(self, size: int) -> _Ratio:
        """A of the same cell, with blocks of `size` images as clusters, of which each chunk is a part."""
        blocks, place = np.unique(self.starts // size, return_inverse=True)
        residuals = np.array([np.bincount(place, weights=row, minlength=blocks.size) for row in self.residuals])
        return replace(self, starts=blocks, residuals=residuals)


def _moments(
    spread: Callable[[Callable[[int], float]], npt.NDArray[np.float64]], fewest: int
) -> tuple[float, tuple[float, float]]:
    """V and the third cumulants towards both ends; `spread` gives the losses' and gains' share of each chunk times a scale."""
    clusters = spread(lambda k: math.sqrt(k / (k - 1)))
    variance = float(np.square(clusters[1] - clusters[0]).sum())
    losses = gains = 0.0
    if fewest >= SHAPED:
        clusters = spread(lambda k: math.cbrt(k * k / ((k - 1) * (k - 2))))
        losses, gains = (clusters**3).sum(axis=1).tolist()
    return variance, (max(losses, 0.0) + max(-gains, 0.0), max(gains, 0.0) + max(-losses, 0.0))


def _residuals(ratios: Sequence[_Ratio], scale: Callable[[int], float]) -> npt.NDArray[np.float64]:
    """The losses' and the gains' share of each chunk (2, chunks), the mean over ratios, each times `scale` of its K."""
    if len(ratios) == 1:
        return ratios[0].residuals * scale(ratios[0].starts.size)
    starts = np.unique(np.concatenate([each.starts for each in ratios]))
    total = np.zeros((2, starts.size))
    for each in ratios:
        total[:, np.searchsorted(starts, each.starts)] += each.residuals * scale(each.starts.size)
    return total / len(ratios)
