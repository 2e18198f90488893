"""Class folders, `root/<class>/**/*.jpg` as torchvision's ImageFolder reads them: an image's class is its folder's name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from onnxnoise.data.datasets import IMAGENET, KNOWN, Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.sources.base import DataLayout
from onnxnoise.data.sources.files import LEFTOVERS, entries, item_of
from onnxnoise.data.sources.items import IMAGE_SUFFIXES, ImageItems, in_turn, open_items
from onnxnoise.data.sources.labels import more_or_less, not_in_card, some
from onnxnoise.errors import DataError

SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))
DEEPEST = 32


def has_class_folders(path: Path, _: Dataset) -> bool:
    """Whether a folder holds folders with images, which are not all parts of a data set like `train` and `test`."""
    folders = _class_folders(path) if path.is_dir() else []
    if {folder.name.lower() for folder in folders} <= SPLITS:
        return False
    return any(next(images_in(Path(folder.path)), None) for folder in folders)


def open_class_folders(root: Path, dataset: Dataset, spec: InputSpec) -> ImageItems:
    """The images of all class folders, one of each class in turn.

    A label is the position of the folder's name among the card's class names, or, where the card has none, among the sorted
    names of all folders. Raises DataError for a folder that isn't a class of the card, and where the numbers differ.
    """
    folders = _class_folders(root)
    labels = _labels(root, [folder.name for folder in folders], dataset)
    classes = [
        [item_of(image, f"{folder.name}/{inner}", labels[folder.name]) for image, inner in images_in(Path(folder.path))]
        for folder in folders
    ]
    return open_items(root, in_turn(classes), dataset, spec)


def _class_folders(root: Path) -> list[os.DirEntry[str]]:
    return [entry for entry in entries(root) if entry.is_dir() and entry.name not in LEFTOVERS]


def images_in(folder: Path, inner: str = "", depth: int = 1) -> Iterator[tuple[os.DirEntry[str], str]]:
    """(entry, path in the folder) of each image file in a folder and those inside it, sorted by name at each level."""
    if depth > DEEPEST:
        raise DataError(f"{folder}: more than {DEEPEST} folders inside each other; does a link point back?")
    for entry in entries(folder):
        if entry.is_dir():
            if entry.name not in LEFTOVERS:
                yield from images_in(Path(entry.path), f"{inner}{entry.name}/", depth + 1)
        elif entry.name.rpartition(".")[2].lower() in IMAGE_SUFFIXES:
            yield entry, inner + entry.name


def _labels(root: Path, found: list[str], dataset: Dataset) -> dict[str, int]:
    """The label of each folder name."""
    if dataset.names:
        labels = {name: label for label, name in enumerate(dataset.names)}
        for name in found:
            if name not in labels:
                raise DataError(f"{root / name}: {not_in_card(name, dataset, 'the folder name')}")
        return labels
    if len(found) != dataset.classes and dataset.name == IMAGENET.name:
        raise DataError(
            f"{root}: has {len(found)} class folders ({some(found)}), named by no WordNet id. Of {dataset.name} some folders do "
            "where they are called n01440764 and so on; else there must be all 1000 in the order of the classes, or names in "
            'the card, classes = ["...", ...]'
        )
    if len(found) != dataset.classes:
        raise DataError(
            f"{root}: has {len(found)} class folders ({some(found)}), but {dataset.said}"
            f"{more_or_less(len(found), dataset.classes) or '.'} "
            "Without names a folder's class is its position among all of them, so none may be missing: take the folder "
            'that has them all, or put the names into the card, classes = ["...", ...], in the order of the model\'s classes'
        )
    if dataset.name in KNOWN and all(name.isdecimal() for name in found) and found != sorted(found, key=int):
        raise DataError(
            f"{root}: its folders are called by numbers ({some(found)}), and sorted as text they are in another order: put "
            f'{dataset.name}\'s class names into the card, classes = ["0", "1", ...], in the order of the model\'s classes'
        )
    return {name: label for label, name in enumerate(found)}


LAYOUT = DataLayout("a folder of class folders (CLASS/*.jpg)", has_class_folders, open_class_folders)
