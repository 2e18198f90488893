"""ImageNet in folders: one for each WordNet id, or a flat one of validation images, with or without the development kit."""

from __future__ import annotations

import difflib
from pathlib import Path

from onnxnoise.data.datasets import IMAGENET, Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.sources.base import DataLayout
from onnxnoise.data.sources.files import LEFTOVERS, entries, image_files, item_of, may_be_image
from onnxnoise.data.sources.imagenet.devkit import DEVKIT, GROUND_TRUTH, ground_truth_beside, ground_truth_labels
from onnxnoise.data.sources.imagenet.ilsvrc import WNID, source_name, validation_label, wnids
from onnxnoise.data.sources.items import ImageItems, Item, in_turn, open_items
from onnxnoise.data.sources.label_list import LIST
from onnxnoise.data.sources.labels import NO_LABELS
from onnxnoise.data.sources.tars import VALIDATION_TAR, list_tars
from onnxnoise.errors import DataError


def has_wordnet_folders(path: Path, _: Dataset) -> bool:
    """Whether a folder holds a folder that is named like a WordNet id."""
    return path.is_dir() and any(entry.is_dir() and WNID.fullmatch(entry.name) for entry in entries(path))


def open_wordnet_folders(folder: Path, dataset: Dataset, spec: InputSpec) -> ImageItems:
    """The images of folders named by WordNet id, all or some, one of each class in turn.

    Raises DataError for a folder whose name isn't a class of ImageNet.
    """
    classes = []
    for entry in entries(folder):
        if not entry.is_dir() or entry.name in LEFTOVERS:
            continue
        label = wnids().get(entry.name)
        if label is None:
            close = difflib.get_close_matches(entry.name, list(wnids()), n=1)
            hint = f" (the closest is {close[0]})" if close else ""
            raise DataError(f"{entry.path}: this folder's name is none of the 1000 WordNet ids of ImageNet{hint}")
        classes.append([item_of(image, f"{entry.name}/{image.name}", label) for image in image_files(Path(entry.path))])
    items = in_turn(classes)
    return open_items(folder, items, dataset, spec, source_name(dataset, (item.name for item in items)))


def has_numbered_folders(path: Path, _: Dataset) -> bool:
    """Whether all folders in a folder are called by numbers from 0 to 999, without zeros before them."""
    if not path.is_dir():
        return False
    names = [entry.name for entry in entries(path) if entry.is_dir() and entry.name not in LEFTOVERS]
    return bool(names) and all(name.isdecimal() and name == str(int(name[:4])) and int(name) < 1000 for name in names)


def open_numbered_folders(folder: Path, dataset: Dataset, spec: InputSpec) -> ImageItems:
    """The images of ImageNetV2's folders, whose names are the classes' numbers, all or some, one of each class in turn."""
    folders = [entry for entry in entries(folder) if entry.is_dir() and entry.name not in LEFTOVERS]
    classes = [
        [item_of(image, f"{each.name}/{image.name}", int(each.name)) for image in image_files(Path(each.path))]
        for each in sorted(folders, key=lambda each: int(each.name))
    ]
    return open_items(folder, in_turn(classes), dataset, spec)


def has_validation_images(path: Path, _: Dataset) -> bool:
    """Whether a folder holds files that may be images, or `path` is the development kit's ground truth."""
    if path.is_dir():
        return any(entry.is_file() and may_be_image(entry.name) for entry in entries(path))
    return path.name == GROUND_TRUTH and path.is_file()


def open_validation_images(data: Path, dataset: Dataset, spec: InputSpec) -> ImageItems:
    """The validation images of a flat folder, or those beside a ground truth: in their folder, or in their tar.

    Raises DataError where another file is in the folder, or where the development kit's labels don't belong to these images.
    """
    folder = data if data.is_dir() else data.parent
    tar = folder / VALIDATION_TAR
    items = list_tars([tar], dataset) if data != folder and tar.is_file() else _flat(folder)
    if data != folder and not items:
        raise DataError(
            f"{data}: there are no validation images beside it. Put it into their folder or beside their tar and pass "
            "that; or leave it out: the standard labels are built in"
        )
    return open_items(folder, items, dataset, spec, source_name(dataset, (item.name for item in items)))


def _flat(folder: Path) -> list[Item]:
    """The files ILSVRC2012_val_*.JPEG with the standard labels, or with the development kit's, converted, if it is there."""
    truth = ground_truth_beside(folder)
    labels = None if truth is None else ground_truth_labels(truth)
    items = []
    for entry in image_files(folder, besides=DEVKIT):
        label = validation_label(entry.name, labels)
        if label is None:
            raise DataError(
                f"{entry.path}: has no known label. Flat folders may hold ILSVRC2012_val_*.JPEG only; for other images "
                f"put them into folders named by WordNet id, or list them in {LIST} as lines of NAME LABEL. {NO_LABELS}"
            )
        items.append(item_of(entry, entry.name, label))
    return items


WORDNET_FOLDERS = DataLayout(
    "a folder of folders named by WordNet id (val/n01440764/*.JPEG, all or some)",
    has_wordnet_folders,
    open_wordnet_folders,
    (IMAGENET.name,),
)
NUMBERED_FOLDERS = DataLayout(
    "ImageNetV2's folders, called by the classes' numbers 0 to 999",
    has_numbered_folders,
    open_numbered_folders,
    (IMAGENET.name,),
)
VALIDATION_IMAGES = DataLayout(
    "a flat folder of ILSVRC2012_val_*.JPEG or their tar, ILSVRC2012_img_val.tar",
    has_validation_images,
    open_validation_images,
    (IMAGENET.name,),
)
