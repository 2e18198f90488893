"""Deals images to chunks: in a seeded random order, so that whoever looks at some of the chunks has seen a random part of all.

Files come sorted by class, by difficulty or by day. Where each chunk of images meets draws of its own, and a verdict or an
interval is made from the chunks so far, each chunk must be a random part of all images, not neighbours in a file. The order is
a permutation that follows from a seed and the number of images alone, so whoever goes on with a run deals alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnoise.data.sources.base import ImageSource
from onnxnoise.records import ImageChunk

_STREAM = 0x6465616C
"""The spawn key of this use of a seed: noise has three numbers there, so no draw shares it."""

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DealtImages(ImageSource):
    """The images of another source in the order in which they are dealt: image i is number `positions[i]` of `source`.

    `digest` stays that of the data. Only the images of the chunks that are asked for are read.
    """

    source: ImageSource
    positions: Positions

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image, that of the source."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the numbers in a chunk, that of the source."""
        return self.source.dtype

    @property
    def is_picture(self) -> bool:
        """Whether chunks have pixels, as the source's do."""
        return self.source.is_picture

    def chunks(self, ranges: Sequence[range], *, threads: int | None = None) -> Iterator[ImageChunk]:
        # the source is read from its beginning to its end for each range, or, where that is slow, once for all of them
        for group in [ranges] if self.source.in_order else [[each] for each in ranges]:
            dealt = np.concatenate([self.positions[each.start : each.stop] for each in group] or [self.positions[:0]])
            rows = np.argsort(dealt)
            places = dealt[rows].tolist()
            images = self.source.chunks([range(place, place + 1) for place in places], threads=threads)
            pixels = np.empty((len(rows), *self.shape), self.dtype)
            for row in rows:
                pixels[row] = next(images).pixels[0]
            at = 0
            for positions in group:
                labels = self.labels[positions.start : positions.stop]
                yield ImageChunk(positions.start, pixels[at : at + len(positions)], labels)
                at += len(positions)


def dealt(source: ImageSource, images: int, seed: int) -> DealtImages:
    """The first `images` images of a source, dealt by `seed`."""
    positions = permutation(images, seed)
    return DealtImages(
        source.name, source.classes, source.digest, source.spec, source.labels[positions], source, positions
    )


def permutation(images: int, seed: int) -> Positions:
    """The positions (images,) in the order in which they are dealt.

    They are sorted by the 64-bit numbers of a Philox generator, a stream that NumPy keeps from release to release (unlike that
    of `Generator.permutation`).
    """
    stream = np.random.Philox(np.random.SeedSequence(entropy=seed, spawn_key=(_STREAM,)))
    return np.argsort(stream.random_raw(images), kind="stable")


def after(source: ImageSource, skipped: int) -> DealtImages:
    """The images of a source from number `skipped` on, in their order, counted anew from 0."""
    positions = np.arange(skipped, len(source), dtype=np.int64)
    return DealtImages(
        source.name, source.classes, source.digest, source.spec, source.labels[skipped:], source, positions
    )


def undealt(images: ImageSource) -> ImageSource:
    """All images of the data in its own order, whatever has been dealt of them or set aside."""
    return undealt(images.source) if isinstance(images, DealtImages) else images
