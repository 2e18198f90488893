"""Facts about ILSVRC2012, the ImageNet of 1000 classes: their WordNet ids, and the labels of its validation images."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import PurePosixPath

from onnxnoise.data import resources
from onnxnoise.data.datasets import IMAGENET, Dataset

WNID = re.compile(r"n\d{8}")
VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})")


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


def is_validation_image(name: str) -> bool:
    """Whether a file is called like a validation image, whatever folder it is in."""
    return VALIDATION.match(PurePosixPath(name).name) is not None


def validation_label(name: str, labels: Sequence[int] | None = None) -> int | None:
    """The label of a validation image, by its file name, among `labels` (default: the standard ones); None for any other name."""
    match = VALIDATION.match(PurePosixPath(name).name)
    labels = validation_labels() if labels is None else labels
    return labels[int(match[1]) - 1] if match and 1 <= int(match[1]) <= len(labels) else None


def source_name(dataset: Dataset, names: Iterable[str]) -> str:
    """The data set's name in results: `imagenet-val` where all file names are those of ImageNet's validation images."""
    validation = dataset.name == IMAGENET.name and all(map(is_validation_image, names))
    return "imagenet-val" if validation else dataset.name
