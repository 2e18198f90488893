"""Rows of an array, wherever they lie: read in blocks, never whole, as pixels that the card prepares or numbers as they are."""

from __future__ import annotations

import gzip
import hashlib
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from onnxnoise.data.datasets import Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.pixels.preprocess import MODES, from_array, max_pixels, resized
from onnxnoise.data.sources.base import ImageSource
from onnxnoise.data.sources.files import GZIP
from onnxnoise.errors import DataError
from onnxnoise.files import first_bytes, open_file
from onnxnoise.machine import cores
from onnxnoise.records import ImageChunk, Labels, Pixels

Array = npt.NDArray[Any]
Reader = Callable[[range], Iterator[Array]]
"""A function that gives rows (step 1) in order, in blocks of at most 16 MiB."""

BLOCK_BYTES = 16 << 20
MAX_ROW_BYTES = 1 << 30
BOMB_RATIO, BOMB_BYTES = 200, 256 << 20
"""Content that is so many times larger than its file, and larger than so many bytes, is none that a camera took."""


class Rows(ABC):
    """An array of one row for each image. `where` names it in messages."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def packed(self) -> bool:
        """Whether what lies before a row must be unpacked to read it."""
        return False

    @property
    @abstractmethod
    def where(self) -> str: ...

    @abstractmethod
    def opened(self) -> AbstractContextManager[Reader]:
        """A reader of the rows. Raises DataError where the file is damaged or cut short."""

    @abstractmethod
    def check_bytes(self) -> None:
        """Raise DataError where the rows can't be what they are said to be: too many bytes, or too few."""

    def whole(self) -> Array:
        """All rows, in memory."""
        with self.opened() as read:
            blocks = list(read(range(self.shape[0])))
        return np.concatenate(blocks) if blocks else np.empty(self.shape, self.dtype)


@dataclass(frozen=True, eq=False)
class MemoryRows(Rows):
    """An array in memory, which messages call `where`."""

    array: Array
    where: str = ""

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]
        return self.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.array.shape

    def check_bytes(self) -> None:
        """Do nothing: the rows are there."""

    @contextmanager
    def opened(self) -> Iterator[Reader]:
        """A reader of the rows."""
        step = max(1, BLOCK_BYTES // max(1, prod(self.shape[1:]) * self.dtype.itemsize))

        def read(rows: range) -> Iterator[Array]:
            for start in range(rows.start, rows.stop, step):
                yield np.ascontiguousarray(self.array[start : min(start + step, rows.stop)])

        yield read


@dataclass(frozen=True)
class FileRows(Rows):
    """An array in C order where it lies: `member` of the zip `file`, or `file` itself, packed with gzip or not.

    Its rows begin at byte `offset` of what is unpacked.
    """

    file: Path
    member: str | None
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def where(self) -> str:
        return f"{self.file}: {self.member}" if self.member else str(self.file)

    @property
    def packed(self) -> bool:
        """Whether the file is packed with gzip, or the array in its zip."""
        if self.member is None:
            return first_bytes(self.file, 2) == GZIP
        size = _sizes(self.file, self.member)
        return size.packed != size.unpacked

    @property
    def row_bytes(self) -> int:
        return prod(self.shape[1:]) * self.dtype.itemsize

    @contextmanager
    def opened(self) -> Iterator[Reader]:
        """A reader of the rows, fastest where they are asked for in ascending order."""
        with unpacked(self.file, self.member) as stream:
            step = max(1, BLOCK_BYTES // max(1, self.row_bytes))

            def read(rows: range) -> Iterator[Array]:
                stream.seek(self.offset + rows.start * self.row_bytes)
                for start in range(rows.start, rows.stop, step):
                    count = min(step, rows.stop - start)
                    content = stream.read(count * self.row_bytes)
                    if len(content) != count * self.row_bytes:
                        raise DataError(
                            f"{self.where}: ends before row {start + count} of {self.shape[0]}: is it truncated?"
                        )
                    block = np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:])
                    yield block.astype(self.dtype.newbyteorder("="), copy=False)

            yield read

    def check_bytes(self) -> None:
        """Raise DataError where the file can't hold the array: too many bytes of it, or so few that it is a bomb."""
        size, asked = _sizes(self.file, self.member), self.offset + self.shape[0] * self.row_bytes
        if self.row_bytes > MAX_ROW_BYTES:
            raise DataError(f"{self.where}: is {self.shape}: {self.row_bytes:,} bytes an image are too many")
        if size.unpacked is not None and size.unpacked < asked:
            row = max(0, size.unpacked - self.offset) // self.row_bytes + 1
            raise DataError(f"{self.where}: ends before row {row} of {self.shape[0]}: is it truncated?")
        if asked > BOMB_BYTES and asked > BOMB_RATIO * size.packed:
            raise DataError(
                f"{self.where}: {size.packed:,} bytes would become {asked:,}: no images are packed so well, so it isn't unpacked"
            )


@dataclass(frozen=True)
class _Size:
    packed: int
    unpacked: int | None


def _sizes(file: Path, member: str | None) -> _Size:
    """The bytes that an array takes in its file, and those that it takes unpacked, where the file says them."""
    if member is None:
        size = os.stat(file).st_size  # noqa: PTH116 (a Path may be anything here)
        return _Size(size, None if first_bytes(file, 2) == GZIP else size)
    with open_file(file) as raw, zipfile.ZipFile(raw) as archive:
        info = archive.getinfo(member)
        return _Size(info.compress_size, info.file_size)


@contextmanager
def unpacked(file: Path, member: str | None) -> Iterator[IO[bytes]]:
    """The bytes of an array's file; whatever a damaged one raises becomes a DataError."""
    try:
        with open_file(file) as raw:
            if member is not None:
                with zipfile.ZipFile(raw) as archive, archive.open(member) as stream:
                    yield stream
            elif first_bytes(file, 2) == GZIP:
                with gzip.GzipFile(fileobj=raw) as packed:
                    yield cast("IO[bytes]", packed)
            else:
                yield raw
    except DataError:
        raise
    except Exception as error:  # the readers of zips and of headers raise whatever a damaged file makes them stumble on
        where = f"{file}: {member}" if member else str(file)
        raise DataError(f"{where}: can't be read as an array, or is damaged or truncated: {error}") from error


@dataclass(frozen=True, eq=False)
class ArrayImages(ImageSource):
    """The rows of `images`, read when their chunk is due.

    With `axes` they are pixels, the order of their axes that makes them (height, width, channels) or, of grey ones, (height,
    width); without, numbers of any shape, as they are.
    """

    images: Rows
    axes: tuple[int, ...] | None

    @property
    def is_picture(self) -> bool:
        return self.axes is not None

    @property
    def in_order(self) -> bool:
        return self.images.packed

    @property
    def shape(self) -> tuple[int, ...]:
        return super().shape if self.is_picture else self.images.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        kind = self.images.dtype
        return np.dtype(np.float32) if kind.kind == "f" else kind

    def chunks(self, ranges: Sequence[range], *, threads: int | None = None) -> Iterator[ImageChunk]:
        """One ImageChunk for each range, in order; images of another size are resized in threads."""
        count = threads or cores().threads
        with self.images.opened() as read, ThreadPoolExecutor(count, thread_name_prefix="onnxnoise-resize") as pool:
            for positions in ranges:
                values, row = np.empty((len(positions), *self.shape), self.dtype), 0
                for block in read(positions):
                    values[row : row + len(block)] = self._prepared(block, pool)
                    row += len(block)
                yield ImageChunk(positions.start, values, self.labels[positions.start : positions.stop])

    def _prepared(self, block: Array, pool: ThreadPoolExecutor) -> Array | list[Pixels]:
        if self.axes is None:
            return block
        pixels = turned(block, self.axes)
        height, width, channels = self.shape
        same = (
            (width, height)
            == (pixels.shape[2], pixels.shape[1])
            == resized(pixels.shape[2], pixels.shape[1], self.spec)
        )
        if same and pixels.shape[3] in (channels, 1):
            return pixels  # one channel is repeated
        return list(pool.map(self._resized, pixels))

    def _resized(self, image: Pixels) -> Pixels:
        try:
            return from_array(np.ascontiguousarray(image), self.spec)
        except DataError as error:
            raise DataError(f"{self.images.where}: {error}") from None


def turned(block: Array, axes: tuple[int, ...]) -> Array:
    """Rows of pixels as (rows, height, width, channels)."""
    pixels = block.transpose(0, *(axis + 1 for axis in axes))
    return pixels if pixels.ndim == 4 else pixels[..., None]


def open_rows(
    images: Rows, labels: Labels | None, dataset: Dataset, spec: InputSpec, name: str | None = None
) -> ArrayImages:
    """The rows of `images` with their `labels` (images,) from 0, without the card's offset; the digest is of both.

    Labels that don't count are None, and each is 0.

    Raises DataError for rows that are no images for this card and no numbers for its model, and for floats that aren't finite.
    """
    if min(images.shape, default=0) < 1 or len(images.shape) < 2:
        raise DataError(f"{images.where}: is {images.dtype} {images.shape} and has no images")
    if labels is None:
        labels = np.zeros(images.shape[0], np.int64)
    axes = axes_of(images.shape[1:], images.dtype, spec, f"{images.where}: is {images.dtype} {images.shape}")
    if axes is not None and spec.size is None:
        spec = replace(spec, size=(images.shape[1 + axes[0]], images.shape[1 + axes[1]]))
    images.check_bytes()
    if axes is None:
        described = repr((images.dtype.str, images.shape))
    else:
        described = repr((images.shape[0], *turned(np.empty((0, *images.shape[1:])), axes).shape[1:]))
    digest = hashlib.sha256(described.encode())
    largest, row = 0.0, 0
    with images.opened() as read:
        for block in read(range(images.shape[0])):
            digest.update(block.data if axes is None else np.ascontiguousarray(turned(block, axes)).data)
            if block.dtype.kind == "f":
                largest = max(largest, check_finite(block, images.where, row))
            row += len(block)
    if images.dtype.kind == "f":
        check_scale(largest, spec, images.where)
    digest.update(labels.astype("<i8").tobytes())
    return ArrayImages(
        name or dataset.name, dataset.classes, digest.hexdigest(), spec, labels + spec.label_offset, images, axes
    )


def axes_of(shape: tuple[int, ...], dtype: np.dtype[Any], spec: InputSpec, found: str) -> tuple[int, ...] | None:
    """The order of axes that makes an array of `shape`, without the images' dimension, an image for the card's model.

    None where the array is numbers: floats, int8 codes, or whatever goes into a model of another rank than images have. Raises
    DataError, which begins with `found`, for anything else.
    """
    if dtype.kind not in "f" and dtype not in (np.uint8, np.int8):
        raise DataError(
            f"{found}; images must be uint8 (images, height, width, channels), or floats as the model takes them"
        )
    if dtype != np.uint8 or spec.channels is None:
        return None
    channels = spec.channels
    if len(shape) not in (2, 3):
        raise DataError(f"{found}; images must be uint8 (images, height, width, channels)")
    if prod(shape) > max_pixels() * max(shape[-1] if len(shape) == 3 else 1, 1):
        raise DataError(f"{found}: more than {max_pixels()} pixels an image are too many")
    if len(shape) == 2 and channels in MODES:
        return 0, 1
    if len(shape) == 3 and (shape[2] == channels or (shape[2] in MODES and channels in MODES)):
        return 0, 1, 2
    if len(shape) == 3 and shape[0] == channels:
        return 1, 2, 0
    wanted = {1: "1 channel", 3: "3 channels, RGB"}.get(channels, f"{channels} channels")
    raise DataError(f"{found}; images must be uint8 (images, height, width, channels) with the model's {wanted}")


def check_finite(block: Array, where: str, first: int) -> float:
    """The largest magnitude in rows from number `first` on; raises DataError for one that is no finite float32."""
    with np.errstate(over="ignore"):
        rows = np.abs(block.reshape(len(block), -1).astype(np.float32)).max(axis=1)
    if not np.isfinite(rows).all():
        bad = int(np.argmin(np.isfinite(rows)))
        raise DataError(
            f"{where}: image {first + bad} has NaN or infinite numbers; every number must be finite: leave that image out, or "
            "correct what made it"
        )
    return float(rows.max(initial=0.0))


def check_scale(largest: float, spec: InputSpec, where: str) -> None:
    """Raise DataError where the card doesn't say what its formula makes of floats of this magnitude, or it can't be meant."""
    if spec.scale is None and (spec.channels is not None or not spec.plain):
        raise DataError(
            f"{where}: its numbers are floats up to {largest:.4g}, and the card doesn't say whether they are scaled: write "
            "scale = 1 and no mean into its [input] where they are what the model takes, or scale = 255 where they are pixels"
        )
    if spec.scale is not None and spec.scale >= 16 and 0 < largest < spec.scale / 20:
        raise DataError(
            f"{where}: its numbers are floats up to {largest:.4g}, as if the card's scale = {spec.scale:g} had been applied "
            "already: write scale = 1 (and no mean, where that is subtracted too), or give the pixels as uint8"
        )
