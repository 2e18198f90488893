"""Image files one by one, wherever their bytes lie: the record of each, their order, and the source that decodes them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxnoise.data.datasets import Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.pixels.decode import decode
from onnxnoise.data.pixels.stream import stream
from onnxnoise.data.sources.base import ImageSource
from onnxnoise.errors import DataError
from onnxnoise.files import open_file
from onnxnoise.records import ImageChunk, Pixels

MAX_FILE_BYTES = 256 << 20
IMAGE_SUFFIXES = frozenset(("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm"))


@dataclass(frozen=True, slots=True)
class Item:
    """One image: `name` in the data set, `label` its class from 0, and the bytes [offset, offset + size) of `file`."""

    file: Path
    name: str
    label: int
    size: int
    offset: int = 0

    def read(self) -> bytes:
        """The image file's bytes. Raises DataError where the file is gone, cut short, or too large for an image."""
        where = self.where()
        if self.size > MAX_FILE_BYTES:
            raise DataError(f"{where}: {self.size} bytes are too many for an image")
        try:
            with open_file(self.file) as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise DataError(f"{where}: can't be read: {error.strerror}") from error
        if len(content) < self.size:
            raise DataError(f"{where}: has {len(content)} of {self.size} bytes: is it truncated?")
        return content

    def where(self) -> str:
        """The item's place as a person reads it: the file, and its member if it is a tar."""
        return f"{self.file}: {self.name}" if self.offset else str(self.file)


@dataclass(frozen=True, eq=False)
class ImageItems(ImageSource):
    """A source of images from `items`, which say where the bytes of each file lie."""

    items: tuple[Item, ...]

    def chunks(self, ranges: Sequence[range], *, threads: int | None = None) -> Iterator[ImageChunk]:
        """One ImageChunk for each range of positions, in order; decoding runs ahead in `threads`."""
        return stream(ranges, self._decode, self.labels, self.shape, threads)

    def _decode(self, position: int) -> Pixels:
        item = self.items[position]
        return decode(item.read(), item.where(), self.spec)


def open_items(
    data: Path, items: Sequence[Item], dataset: Dataset, spec: InputSpec, name: str | None = None
) -> ImageItems:
    """The images `items` that were found at `data`, not read yet; `name` is their name in results, by default the data set's.

    Raises DataError where `items` is empty.
    """
    if not items:
        raise DataError(f"{data}: has no images; is it the right place, or still to be unpacked?")
    return ImageItems(
        name=name or dataset.name,
        classes=dataset.classes,
        digest=_digest(items),
        spec=spec,
        items=tuple(items),
        labels=np.array([item.label for item in items], np.int64) + spec.label_offset,
    )


def in_turn(classes: Iterable[Iterable[Item]]) -> list[Item]:
    """The first item of each class, then the second of each, and so on, so that the first N images are balanced for any N."""
    return [item for rank in itertools.zip_longest(*classes) for item in rank if item is not None]


def _digest(items: Iterable[Item]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.name}\0{item.size}\0{item.label}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
