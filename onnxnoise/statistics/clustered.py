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
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxnoise.records import Estimate
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
    always = {
        start: ChunkHits(
            one.images, one.images, one.draws, one.draws * one.images - one.whole + one.lost - one.gained, 0
        )
        for start, one in chunks.items()
    }
    result = estimate_chunks(always)
    return Estimate(result.mean, None, result.sampled and (result.sampled[0], min(result.sampled[1], 1.0)))


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
    clusters = _residuals(ratios, lambda k: math.sqrt(k / (k - 1)))
    variance = float(np.square(clusters[1] - clusters[0]).sum())
    losses = gains = 0.0
    if fewest >= SHAPED:
        clusters = _residuals(ratios, lambda k: math.cbrt(k * k / ((k - 1) * (k - 2))))
        losses, gains = (clusters**3).sum(axis=1).tolist()
    thirds = (max(losses, 0.0) + max(-gains, 0.0), max(gains, 0.0) + max(-losses, 0.0))
    below, above = reaches_95(Law(variance, thirds, fewest - 1.0, min(each.clean for each in ratios)))
    return Estimate(mean, None, (max(mean - below, 0.0), mean + above))


@dataclass(frozen=True)
class _Ratio:
    """A of one cell (`value`) with its clean hits, each counted once whatever the draws, and its chunks' `starts` in order (K,).

    `residuals` (2, K) are the losses' and the gains' share of u_k.
    """

    value: float
    clean: int
    starts: npt.NDArray[np.int64]
    residuals: npt.NDArray[np.float64]

    @classmethod
    def of(cls, chunks: Chunks) -> _Ratio:
        counts = np.array(
            [(start, one.clean, one.whole, one.lost, one.gained) for start, one in sorted(chunks.items())], np.int64
        ).reshape(-1, 5)
        starts, cleans, wholes, lost, gained = counts.T
        whole, all_lost, all_gained = int(wholes.sum()), int(lost.sum()), int(gained.sum())
        if whole == 0:
            raise ValueError("no clean hit: the normalized accuracy is not defined")
        residuals = np.array([lost * whole - all_lost * wholes, gained * whole - all_gained * wholes]) / whole**2
        return cls((whole - all_lost + all_gained) / whole, int(cleans.sum()), starts, residuals)


def _residuals(ratios: Sequence[_Ratio], scale: Callable[[int], float]) -> npt.NDArray[np.float64]:
    """The losses' and the gains' share of each chunk (2, chunks), the mean over ratios, each times `scale` of its K."""
    if len(ratios) == 1:
        return ratios[0].residuals * scale(ratios[0].starts.size)
    starts = np.unique(np.concatenate([each.starts for each in ratios]))
    total = np.zeros((2, starts.size))
    for each in ratios:
        total[:, np.searchsorted(starts, each.starts)] += each.residuals * scale(each.starts.size)
    return total / len(ratios)
