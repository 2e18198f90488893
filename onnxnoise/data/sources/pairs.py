"""Images that Python code gives as pairs (image, label): read once for labels and digest, and again when they are due."""

from __future__ import annotations

import hashlib
import zlib
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain, count
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnoise.data.datasets import Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.pixels.preprocess import from_array
from onnxnoise.data.pixels.stream import stream
from onnxnoise.data.sources.base import ImageSource
from onnxnoise.data.sources.labels import NO_LABELS, checked
from onnxnoise.data.sources.rows import axes_of, check_finite, check_scale, turned
from onnxnoise.errors import DataError, OnnxNoiseError
from onnxnoise.functions import printing_aside
from onnxnoise.machine import cores
from onnxnoise.records import ImageChunk, Pixels

Array = npt.NDArray[Any]
MOST_IMAGES = 1_500_000
"""Images after which code that says no length is taken for one that never ends; ImageNet's training part has 1.3 million."""


class Given:
    """A collection of pairs, which can be read again and again, as `make` gives it.

    It is made anew by a user's function, or `held`: one that is there already. Unless it is `labelled`, labels don't count, and
    images alone will do in the place of pairs.
    """

    def __init__(self, make: Callable[[], Any], where: str, *, held: bool = False, labelled: bool = True) -> None:
        self.make, self.where, self.held, self.labelled = make, where, held, labelled

    @property
    def in_order(self) -> bool:
        """Whether images should be asked for from first to last and all together: no number finds one, or all are made anew."""
        return not (self.held and _has_numbers(self.make()))

    def pairs(self, positions: Iterable[int] | None = None, most: int | None = None) -> Iterator[tuple[Array, int]]:
        """(image, label) of the images at these positions, by default of all; it ends where there is no such image.

        The images of a list or a data set are looked up; others are read from the first on, again for each step back. What has
        no length is not read past the first `most` images. A user's function prints to standard error. Raises DataError, naming
        it, for whatever is no pair.
        """
        given = self._pairs(positions, most)
        try:
            while True:
                with self._aside():
                    pair = next(given, None)
                if pair is None:
                    return
                yield pair
        finally:
            with self._aside():
                given.close()  # so ends a function that yields

    def _aside(self) -> AbstractContextManager[None]:
        return nullcontext() if self.held else printing_aside()

    def _pairs(self, positions: Iterable[int] | None, most: int | None) -> Generator[tuple[Array, int]]:
        due = 0
        try:
            made = self.make()
            if not isinstance(made, Iterable) and not _has_numbers(made):
                raise DataError(
                    f"{self.where}: gives no images, but {type(made).__name__}: yield pairs (image, label), or return a list or "
                    "a data set of them"
                )
            if _has_numbers(made):
                for due in range(len(made)) if positions is None else positions:
                    if due >= len(made):
                        return
                    yield self._image(made[due], due)
                return
            each = self._each(made)
            first = count() if most is None or hasattr(made, "__len__") else range(most)
            for position in first if positions is None else positions:
                if position < due:
                    due, each = 0, self._each(self.make())
                for pair in each:
                    due += 1
                    if due > position:
                        yield self._image(pair, position)
                        break
                else:
                    return
        except (OnnxNoiseError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            raise DataError(f"{self.where}: image {due} raises {_named(error)}") from error

    def _each(self, made: Any) -> Iterator[Any]:
        """The pairs that an iterable gives, as many as its length, where it has one."""
        length, given = len(made) if hasattr(made, "__len__") else None, 0
        try:
            for given, pair in enumerate(made, 1):
                if given > MOST_IMAGES or (length is not None and given > length):
                    endless = f"{MOST_IMAGES:,}: does it end? With --limit N it is not read past its first N images"
                    raise DataError(
                        f"{self.where}: gives more images than {endless if length is None else f'its length, {length}'}"
                    )
                yield pair
        finally:
            if isinstance(made, Generator):
                made.close()
        if length is not None and given < length:
            raise DataError(f"{self.where}: its length is {length}, but it gives {given} images")

    def _image(self, pair: Any, number: int) -> tuple[Array, int]:
        where = f"{self.where}: image {number}"
        if not self.labelled:
            pair = (pair[0] if isinstance(pair, tuple | list) and len(pair) == 2 else pair, 0)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            hint = f". {NO_LABELS}" if isinstance(pair, np.ndarray) else ""
            raise DataError(f"{where}: must be a pair (image, label), but is {type(pair).__name__}{hint}")
        image, label = np.asarray(pair[0]), np.asarray(pair[1])
        if image.dtype.hasobject or image.ndim == 0:
            raise DataError(f"{where}: is no array of numbers, but {type(pair[0]).__name__}")
        if image.size == 0:
            raise DataError(f"{where}: is {image.dtype} {image.shape}, which has no pixel and no number; leave it out")
        if label.size != 1 or label.dtype.kind not in "iu":
            raise DataError(
                f"{where}: its label must be a whole number, but is {label.dtype} {label.shape}; give images one by one, "
                "not in batches"
            )
        return image, int(label.reshape(()))


def _has_numbers(made: Any) -> bool:
    """Whether a collection gives an image for its number, as lists and PyTorch's data sets do."""
    return hasattr(made, "__len__") and hasattr(made, "__getitem__") and not isinstance(made, dict)


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
    sums: npt.NDArray[np.uint32]
    _turn: Lock = field(default_factory=Lock, repr=False)

    @property
    def in_order(self) -> bool:
        return self.given.in_order

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
        where = f"{self.given.where}: image {number}"
        axes = axes_of(image.shape, image.dtype, self.spec, f"{where}: is {image.dtype} {image.shape}")
        try:
            return from_array(np.ascontiguousarray(turned(image[None], axes or (0, 1))[0]), self.spec)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None

    def _images(self, ranges: Sequence[range]) -> Iterator[tuple[int, Array]]:
        pairs = self.given.pairs(chain.from_iterable(ranges))
        for position in chain.from_iterable(ranges):
            pair = next(pairs, None)
            if pair is None or _sum(pair[0]) != self.sums[position]:
                raise DataError(
                    f"{self.given.where}: image {position} is another one than the first time: the code must give the same "
                    "images in the same order each time (no shuffling, no random augmentation)"
                )
            yield position, pair[0]


def _sum(image: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(image).data, image.ndim)


def open_pairs(
    given: Given, dataset: Dataset, spec: InputSpec, identity: bytes = b"", most: int | None = None
) -> PairImages:
    """The images of `given`, all read once, or the first `most` of what has no length, which may have no end.

    The digest is of `identity`, these images and their labels.

    Raises DataError, naming the image, for one that is none, has another shape or type than the first, or NaN among its
    numbers, and for labels out of range.
    """
    digest = hashlib.sha256(identity)
    labels, sums = array("q"), array("L")
    first: Array | None = None
    first_axes: tuple[int, ...] | None = None
    largest = 0.0
    for number, (image, label) in enumerate(given.pairs(most=most)):
        where = f"{given.where}: image {number}"
        found = f"{where}: is {image.dtype} {image.shape}"
        axes = axes_of(image.shape, image.dtype, spec, found)
        if first is None:
            first, first_axes = image, axes
        if image.dtype != first.dtype or ((axes is None or spec.size is None) and image.shape != first.shape):
            raise DataError(
                f"{found}, unlike the first, {first.dtype} {first.shape}; all must have one type and one shape"
            )
        if image.dtype.kind == "f":
            largest = max(largest, check_finite(image[None], given.where, number))
        digest.update(repr((image.dtype.str, image.shape, label)).encode())
        digest.update(np.ascontiguousarray(image).data)
        labels.append(max(-(2**63), min(label, 2**63 - 1)))  # what no label is stays none
        sums.append(_sum(image))
    if first is None:
        raise DataError(f"{given.where}: gives no images")
    if first.dtype.kind == "f":
        check_scale(largest, spec, given.where)
    if first_axes is not None and spec.size is None:
        spec = replace(spec, size=(first.shape[first_axes[0]], first.shape[first_axes[1]]))
    truth = checked(np.array(labels, np.int64), dataset, given.where)
    kind = "<f4" if first.dtype.kind == "f" else first.dtype.str
    return PairImages(
        name=dataset.name,
        classes=dataset.classes,
        digest=digest.hexdigest(),
        spec=spec,
        labels=truth + spec.label_offset,
        given=given,
        numbers=None if first_axes is not None else (first.shape, kind),
        sums=np.array(sums, np.uint32),
    )
