"""Images that Python code gives as pairs (image, label): read once for labels and digest, and again when they are due."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnoise.data.datasets import Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.pixels.preprocess import from_array
from onnxnoise.data.pixels.stream import stream
from onnxnoise.data.sources.base import ImageSource
from onnxnoise.data.sources.labels import checked
from onnxnoise.data.sources.rows import axes_of, check_finite, check_scale
from onnxnoise.errors import DataError, OnnxNoiseError
from onnxnoise.machine import cores
from onnxnoise.records import ImageChunk, Pixels

Array = npt.NDArray[Any]
MOST_IMAGES = 10_000_000


class Given:
    """A collection of pairs, which can be read again and again: `collection` itself, or what a function makes anew."""

    def __init__(self, make: Callable[[], Any], where: str) -> None:
        self.make, self.where = make, where

    def pairs(self, first: int = 0) -> Iterator[tuple[Array, int]]:
        """(image, label) of each image from number `first` on. Raises DataError, naming it, for whatever is none."""
        due = first
        try:
            for number, pair in self._from(first):
                yield self._image(pair, number)
                due = number + 1
        except OnnxNoiseError:
            raise
        except (Exception, SystemExit) as error:
            raise DataError(f"{self.where}: image {due} raises {_named(error)}") from error

    def _from(self, first: int) -> Iterator[tuple[int, Any]]:
        made = self.make()
        length = len(made) if hasattr(made, "__len__") else None
        if length is not None and hasattr(made, "__getitem__") and not isinstance(made, dict):
            for number in range(first, length):
                yield number, made[number]
            return
        count = 0
        for number, pair in enumerate(made):
            count = number + 1
            if count > MOST_IMAGES or (length is not None and count > length):
                more = f"its length, {length}" if length is not None else f"{MOST_IMAGES:,}: does it end?"
                raise DataError(f"{self.where}: gives more images than {more}")
            if number >= first:
                yield number, pair
        if length is not None and count < length:
            raise DataError(f"{self.where}: its length is {length}, but it gives {count} images")

    def _image(self, pair: Any, number: int) -> tuple[Array, int]:
        where = f"{self.where}: image {number}"
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise DataError(f"{where}: must be a pair (image, label), but is {type(pair).__name__}")
        image, label = np.asarray(pair[0]), np.asarray(pair[1])
        if image.dtype.hasobject or image.ndim == 0:
            raise DataError(f"{where}: is no array of numbers, but {type(pair[0]).__name__}")
        if label.size != 1 or label.dtype.kind not in "iu":
            raise DataError(
                f"{where}: its label must be a whole number, but is {label.dtype} {label.shape}; give images one by one, "
                "not in batches"
            )
        return image, int(label.reshape(()))


def _named(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:200]}" if said else type(error).__name__


@dataclass(frozen=True, eq=False)
class PairImages(ImageSource):
    """Images of `given`, pixels of any size or, where `numbers` says their shape and type, other arrays.

    `sums` are checksums of all images in the first pass: the second one must give the same.
    """

    given: Given
    numbers: tuple[tuple[int, ...], str] | None
    sums: tuple[int, ...]
    _turn: Lock = field(default_factory=Lock, repr=False)

    @property
    def in_order(self) -> bool:
        return True

    @property
    def is_picture(self) -> bool:
        return self.numbers is None

    @property
    def shape(self) -> tuple[int, ...]:
        return super().shape if self.numbers is None else self.numbers[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8 if self.numbers is None else self.numbers[1])

    def chunks(self, ranges: Sequence[range], *, threads: int | None = None) -> Iterator[ImageChunk]:
        """One ImageChunk for each range, in order; the code runs in one thread, and pixels are resized in others."""
        with self._turn:
            images = self._images(ranges)
            if self.numbers is None:
                ahead = 4 * (threads or cores().threads)
                yield from stream(ranges, self._prepared, self.labels, self.shape, threads, encoded=images, most=ahead)
                return
            for positions in ranges:
                values = np.empty((len(positions), *self.shape), self.dtype)
                for row in range(len(positions)):
                    values[row] = next(images)[1]
                yield ImageChunk(positions.start, values, self.labels[positions.start : positions.stop])

    def _prepared(self, numbered: tuple[int, Array]) -> Pixels:
        number, image = numbered
        try:
            return _prepared(image, self.spec, f"{self.given.where}: image {number}")
        except DataError as error:
            raise DataError(f"{self.given.where}: image {number}: {error}") from None

    def _images(self, ranges: Sequence[range]) -> Iterator[tuple[int, Array]]:
        at, pairs = 0, iter(self.given.pairs())
        for position in (position for positions in ranges for position in positions):
            if position < at:
                at, pairs = position, iter(self.given.pairs(position))
            pair = None
            while at <= position:
                pair, at = next(pairs, None), at + 1
            if pair is None or _sum(pair[0]) != self.sums[position]:
                raise DataError(
                    f"{self.given.where}: image {position} is another one than the first time: the code must give the same "
                    "images in the same order each time (no shuffling, no random augmentation)"
                )
            yield position, pair[0]


def _prepared(image: Array, spec: InputSpec, where: str) -> Pixels:
    axes = axes_of(image.shape, image.dtype, spec, f"{where}: is {image.dtype} {image.shape}")
    turned = np.ascontiguousarray(image.transpose(axes))
    return from_array(turned if turned.ndim == 3 else turned[..., None], spec)


def _sum(image: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(image).data, image.ndim)


def open_pairs(given: Given, dataset: Dataset, spec: InputSpec, identity: bytes = b"") -> PairImages:
    """The images of `given`, all read once; the digest is of `identity`, the images and the labels.

    Raises DataError, naming the image, for one that is none, has another shape or type than the first, or NaN among its
    numbers, and for labels out of range.
    """
    digest = hashlib.sha256(identity)
    labels: list[int] = []
    sums: list[int] = []
    first: Array | None = None
    picture, largest = False, 0.0
    for number, (image, label) in enumerate(given.pairs()):
        where = f"{given.where}: image {number}"
        found = f"{where}: is {image.dtype} {image.shape}"
        axes = axes_of(image.shape, image.dtype, spec, found)
        if first is None:
            first, picture = image, axes is not None
        if image.dtype != first.dtype or ((not picture or spec.size is None) and image.shape != first.shape):
            raise DataError(
                f"{found}, unlike the first, {first.dtype} {first.shape}; all must have one type and one shape"
            )
        if image.dtype.kind == "f":
            largest = max(largest, check_finite(image[None], given.where, number))
        digest.update(repr((image.dtype.str, image.shape, label)).encode())
        digest.update(np.ascontiguousarray(image).data)
        labels.append(label)
        sums.append(_sum(image))
    if first is None:
        raise DataError(f"{given.where}: gives no images")
    if first.dtype.kind == "f":
        check_scale(largest, spec, given.where)
    if picture and spec.size is None:
        high, wide = (first.shape[axis] for axis in (axes_of(first.shape, first.dtype, spec, "") or (0, 1))[:2])
        spec = replace(spec, size=(high, wide))
    truth = checked(np.array(labels, np.int64), dataset, given.where)
    kind = "<f4" if first.dtype.kind == "f" else first.dtype.str
    return PairImages(
        name=dataset.name,
        classes=dataset.classes,
        digest=digest.hexdigest(),
        spec=spec,
        labels=truth + spec.label_offset,
        given=given,
        numbers=None if picture else (first.shape, kind),
        sums=tuple(sums),
    )
