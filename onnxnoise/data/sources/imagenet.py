"""Opens ImageNet in the forms that people keep it in, and streams its images in a fixed order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from onnxnoise.data.cards import InputSpec
from onnxnoise.data.pixels.decode import decode
from onnxnoise.data.pixels.stream import stream
from onnxnoise.data.sources.devkit import GROUND_TRUTH
from onnxnoise.data.sources.folders import (
    LIST,
    entries,
    has_class_folders,
    list_class_folders,
    list_labelled,
    list_validation_images,
)
from onnxnoise.data.sources.ilsvrc import CLASSES, VALIDATION, Item
from onnxnoise.data.sources.tars import expand_braces, list_tars
from onnxnoise.errors import DataError
from onnxnoise.records import ImageChunk, Labels, Pixels

FORMS = (
    "a folder of folders named by WordNet id (val/n01440764/*.JPEG, all or some), a flat folder of "
    "ILSVRC2012_val_*.JPEG, a folder with val.txt (lines of NAME LABEL), ILSVRC2012_img_val.tar, "
    "or webdataset tars (a folder, or NAME-{0000..0009}.tar)"
)
VALIDATION_TAR = "ILSVRC2012_img_val.tar"


@dataclass(frozen=True, eq=False)
class ImageNetImages:
    """An ImageSource: where each image lies, in order, and the model's `labels`."""

    name: str
    classes: int
    digest: str
    spec: InputSpec
    items: tuple[Item, ...]
    labels: Labels

    def __len__(self) -> int:
        return len(self.items)

    @property
    def highest_label(self) -> int:
        return int(self.labels.max())

    def chunks(self, ranges: Sequence[range], *, threads: int | None = None) -> Iterator[ImageChunk]:
        """One ImageChunk for each range of positions, in order; decoding runs ahead in `threads`.

        Raises DataError for an image that can't be read or decoded, naming it, when its chunk is due.
        """
        return stream(ranges, self._decode, self.labels, self.spec.size, threads)

    def _decode(self, position: int) -> Pixels:
        item = self.items[position]
        return decode(item.read(), item.where(), self.spec)


def open_imagenet(data: Path, spec: InputSpec) -> ImageNetImages:
    """The images of `data`, without reading them yet. Raises DataError: none of the known forms, or a damaged one."""
    items = _list_folder(data) if data.is_dir() else _list_file(data)
    if not items:
        raise DataError(f"{data}: has no images. --data takes {FORMS}")
    validation = all(VALIDATION.match(PurePosixPath(item.name).name) for item in items)
    return ImageNetImages(
        name="imagenet-val" if validation else "imagenet",
        classes=CLASSES,
        digest=_digest(items),
        spec=spec,
        items=tuple(items),
        labels=np.array([item.label for item in items], np.int64) + spec.label_offset,
    )


def _list_folder(folder: Path) -> list[Item]:
    if has_class_folders(folder):
        return list_class_folders(folder)
    if (folder / LIST).is_file():
        return list_labelled(folder / LIST)
    if (folder / "val").is_dir():
        return _list_folder(folder / "val")
    tars = [Path(entry.path) for entry in entries(folder) if entry.name.lower().endswith(".tar")]
    if tars:
        validation = [path for path in tars if path.name == VALIDATION_TAR]
        return list_tars(validation or tars)
    return list_validation_images(folder)


def _list_file(data: Path) -> list[Item]:
    if data.is_file():
        if data.name == GROUND_TRUTH:
            return _list_beside(data)
        return list_labelled(data) if data.suffix == ".txt" else list_tars([data])
    shards = expand_braces(str(data))
    for shard in shards:
        if not shard.is_file():
            raise DataError(f"{shard}: there is no such file or folder. --data takes {FORMS}")
    return list_tars(shards)


def _list_beside(truth: Path) -> list[Item]:
    """The validation images in the folder of the development kit's ground truth."""
    folder = truth.parent
    if (folder / VALIDATION_TAR).is_file():
        return list_tars([folder / VALIDATION_TAR])
    items = list_validation_images(folder)
    if not items:
        raise DataError(
            f"{truth}: there are no validation images beside it. Put it into their folder or beside their tar and pass "
            "that; or leave it out: the standard labels are built in"
        )
    return items


def _digest(items: Iterable[Item]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.name}\0{item.size}\0{item.label}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
