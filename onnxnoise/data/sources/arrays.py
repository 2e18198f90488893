"""NumPy arrays of images and labels: an .npz that has both, or an .npy beside its labels.npy; read in rows, never unpickled."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from onnxnoise.data.datasets import Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.pixels.preprocess import max_pixels, resize_and_crop, resized
from onnxnoise.data.sources.base import DataLayout, ImageSource
from onnxnoise.data.sources.files import check_download
from onnxnoise.errors import DataError
from onnxnoise.files import first_bytes, open_file
from onnxnoise.machine import cores
from onnxnoise.records import ImageChunk, Labels, Pixels

PAIRS = (("x_test", "y_test"), ("test_images", "test_labels"), ("x", "y"), ("images", "labels"), ("arr_0", "arr_1"))
"""Names of images and labels in an .npz; names of a test part come before those of the whole."""
LABELS = "labels.npy"
NPY, ZIP = b"\x93NUMPY", b"PK\x03\x04"
BLOCK_BYTES = 16 << 20
MAX_LABEL_BYTES = 1 << 30


@dataclass(frozen=True)
class ArrayFile:
    """An array in C order where it lies: `member` of the .npz `file`, or `file` itself; its rows begin at byte `offset`."""

    file: Path
    member: str | None
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def where(self) -> str:
        return f"{self.file}: {self.member}" if self.member else str(self.file)

    @property
    def row_bytes(self) -> int:
        return prod(self.shape[1:]) * self.dtype.itemsize

    def blocks(self, rows: range) -> Iterator[npt.NDArray[Any]]:
        """Rows (step 1) in order, at most 16 MiB at a time. Raises DataError where the file is damaged or cut short."""
        with _stream(self.file, self.member) as stream:
            stream.seek(self.offset + rows.start * self.row_bytes)
            step = max(1, BLOCK_BYTES // max(1, self.row_bytes))
            for start in range(rows.start, rows.stop, step):
                count = min(step, rows.stop - start)
                content = stream.read(count * self.row_bytes)
                if len(content) != count * self.row_bytes:
                    raise DataError(
                        f"{self.where}: ends before row {start + count} of {self.shape[0]}: is it truncated?"
                    )
                yield np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:])


@dataclass(frozen=True, eq=False)
class ArrayImages(ImageSource):
    """The rows of `images`, uint8 (images, height, width, 3), read when their chunk is due."""

    images: ArrayFile

    def chunks(self, ranges: Sequence[range], *, threads: int | None = None) -> Iterator[ImageChunk]:
        side = self.spec.size
        with ThreadPoolExecutor(threads or cores().threads, thread_name_prefix="onnxnoise-resize") as pool:
            for positions in ranges:
                pixels, row = np.empty((len(positions), side, side, 3), np.uint8), 0
                for block in self.images.blocks(positions):
                    pixels[row : row + len(block)] = block if self._fits else list(pool.map(self._resized, block))
                    row += len(block)
                yield ImageChunk(positions.start, pixels, self.labels[positions.start : positions.stop])

    @property
    def _fits(self) -> bool:
        _, height, width, _ = self.images.shape
        return (width, height) == resized(width, height, self.spec) == (self.spec.size, self.spec.size)

    def _resized(self, image: Pixels) -> Pixels:
        try:
            return resize_and_crop(Image.fromarray(image), self.spec)
        except DataError as error:
            raise DataError(f"{self.images.where}: {error}") from None


def has_arrays(path: Path, _: Dataset) -> bool:
    """Whether a file is an .npy, or a zip that is called .npz or holds .npy files."""
    start = first_bytes(path, 6)
    if start.startswith(ZIP) and path.suffix.lower() != ".npz":
        try:
            with open_file(path) as raw, zipfile.ZipFile(raw) as archive:
                return any(name.endswith(".npy") for name in archive.namelist())
        except Exception:  # as in _stream
            return False
    return start == NPY or (path.suffix.lower() in (".npz", ".npy") and path.is_file())


def open_arrays(data: Path, dataset: Dataset, spec: InputSpec) -> ArrayImages:
    """The images of an .npz, or of an .npy with labels.npy beside it. The digest is of pixels and labels, whatever the file.

    Labels are integers (images,) or (images, 1), or one-hot (images, classes). Raises DataError for arrays of other types or
    shapes, of unequal lengths or of Python objects, for labels out of range, and for a damaged file.
    """
    images, labelled = _pair(data)
    if images.dtype != np.uint8 or len(images.shape) != 4 or images.shape[3] != 3:
        raise DataError(
            f"{images.where}: is {images.dtype} {images.shape}; images must be uint8 (images, height, width, 3), RGB"
        )
    if min(images.shape) < 1:
        raise DataError(f"{images.where}: is {images.shape} and has no images")
    if prod(images.shape[1:3]) > max_pixels():
        raise DataError(f"{images.where}: is {images.shape}: more than {max_pixels()} pixels an image are too many")
    labels = _labels(labelled, images.shape[0], dataset)
    digest = hashlib.sha256(repr(images.shape).encode())
    for block in images.blocks(range(images.shape[0])):
        digest.update(block.data)
    digest.update(labels.astype("<i8").tobytes())
    return ArrayImages(dataset.name, dataset.classes, digest.hexdigest(), spec, labels + spec.label_offset, images)


def _pair(data: Path) -> tuple[ArrayFile, ArrayFile]:
    """The array of images and the array of labels."""
    check_download(data)
    if first_bytes(data, 6) == NPY:
        beside = data.with_name(LABELS)
        if not beside.is_file() or beside == data:
            raise DataError(
                f"{data}: an array of images needs its labels beside it, as {LABELS}; or put both into one .npz"
            )
        return _array(data, None), _array(beside, None)
    try:
        with open_file(data) as raw, zipfile.ZipFile(raw) as archive:
            names = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
    except Exception as error:  # as in _stream
        raise DataError(f"{data}: can't be read as NumPy's arrays, or is damaged or truncated: {error}") from error
    for pair in PAIRS:
        if names.keys() >= {*pair}:
            return _array(data, names[pair[0]]), _array(data, names[pair[1]])
    known = ", ".join(f"{images} and {labels}" for images, labels in PAIRS)
    raise DataError(
        f"{data}: has no images with labels: expected {known}; found {', '.join(sorted(names)) or 'no array'}"
    )


def _array(file: Path, member: str | None) -> ArrayFile:
    """Read the header of an array. Raises DataError where it isn't an array, is of Python objects, or is in Fortran order."""
    with _stream(file, member) as stream:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"version {version} of NumPy's format is not for plain numbers")
        shape, fortran, dtype = read(stream)
        found = ArrayFile(file, member, stream.tell(), dtype, shape)
    if dtype.hasobject:
        raise DataError(
            f"{found.where}: holds pickled Python objects, which are never loaded: save it as an array of numbers"
        )
    if fortran and len(shape) > 1:
        raise DataError(f"{found.where}: is in Fortran order: save numpy.ascontiguousarray of it")
    return found


def _labels(array: ArrayFile, images: int, dataset: Dataset) -> Labels:
    """The labels (images,) from 0, without the card's offset."""
    one_hot = len(array.shape) == 2 and array.shape[1] == dataset.classes
    if not (array.shape in ((images,), (images, 1)) or (one_hot and array.shape[0] == images)):
        raise DataError(
            f"{array.where}: is {array.dtype} {array.shape}; the labels of {images} images must be ({images},), or one-hot "
            f"({images}, {dataset.classes})"
        )
    if array.dtype.kind not in ("iufb" if one_hot else "iu"):
        raise DataError(f"{array.where}: labels are {array.dtype}; they must be integers, or one-hot")
    if array.shape[0] * array.row_bytes > MAX_LABEL_BYTES:
        raise DataError(f"{array.where}: more than {MAX_LABEL_BYTES >> 20} MiB of labels")
    values = np.concatenate(list(array.blocks(range(images))))
    if one_hot:
        right = ((values == 0) | (values == 1)).all(axis=1) & (values.sum(axis=1) == 1)
        if not right.all():
            raise DataError(f"{array.where}: row {int(np.argmin(right))} is not one-hot: one 1 and else 0")
        return np.asarray(values.argmax(axis=1), np.int64)
    values = values.reshape(images)
    wrong = (values < 0) | (values >= dataset.classes)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise DataError(
            f"{array.where}: image {first} has label {values[first]}; those of {dataset.name} are 0 to {dataset.classes - 1}"
        )
    return np.asarray(values, np.int64)


@contextmanager
def _stream(file: Path, member: str | None) -> Iterator[IO[bytes]]:
    """The bytes of an array's file; whatever a damaged one raises becomes a DataError."""
    try:
        if member is None:
            with open_file(file) as stream:
                yield stream
        else:
            with open_file(file) as raw, zipfile.ZipFile(raw) as archive, archive.open(member) as stream:
                yield stream
    except DataError:
        raise
    except (
        Exception
    ) as error:  # the readers of zips and of NumPy's headers raise whatever a damaged file makes them stumble on
        where = f"{file}: {member}" if member else str(file)
        raise DataError(f"{where}: can't be read as an array, or is damaged or truncated: {error}") from error


LAYOUT = DataLayout(
    "an .npz of images and labels (x and y, x_test and y_test, ...) or an .npy beside its labels.npy",
    has_arrays,
    open_arrays,
)
