"""What is known of ILSVRC2012 (its classes, the labels of its validation images), and where an image of it lies."""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from onnxnoise.data import resources
from onnxnoise.errors import DataError

CLASSES = 1000
WNID = re.compile(r"n\d{8}")
VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})")
MAX_FILE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Item:
    """One image: `name` in the data set, `label` its class from 0, and the bytes [offset, offset + size) of `file`."""

    file: Path
    name: str
    label: int
    size: int
    offset: int = 0

    def read(self) -> bytes:
        """Raises DataError: gone, cut short, or too large for an image."""
        where = self.where()
        if self.size > MAX_FILE_BYTES:
            raise DataError(f"{where}: {self.size} bytes are too many for an image")
        try:
            with self.file.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise DataError(f"{where}: can't be read: {error.strerror}") from error
        if len(content) < self.size:
            raise DataError(f"{where}: has {len(content)} of {self.size} bytes: is it truncated?")
        return content

    def where(self) -> str:
        """For a person: the file, and the member if it is a tar."""
        return f"{self.file}: {self.name}" if self.offset else str(self.file)


@lru_cache(maxsize=1)
def wnids() -> dict[str, int]:
    """The class (0 to 999) of each of the 1000 WordNet ids: its position among them, sorted."""
    names = (resources.folder("datasets") / "imagenet-wnids.txt").read_text("ascii").split()
    return {name: position for position, name in enumerate(names)}


@lru_cache(maxsize=1)
def validation_labels() -> tuple[int, ...]:
    """The class of ILSVRC2012_val_00000001.JPEG and the 49,999 that follow."""
    packed = resources.folder("datasets") / "imagenet-val-labels.txt.gz"
    return tuple(int(line) for line in gzip.decompress(packed.read_bytes()).split())


def validation_label(name: str, labels: Sequence[int] | None = None) -> int | None:
    """The label of a validation image, by its file name, among `labels` (default: the standard ones); None for any other name."""
    match = VALIDATION.match(PurePosixPath(name).name)
    labels = validation_labels() if labels is None else labels
    return labels[int(match[1]) - 1] if match and 1 <= int(match[1]) <= len(labels) else None
