"""Lists the images in folders: one folder for each class, a flat folder of validation images, or a list with labels."""

from __future__ import annotations

import difflib
import itertools
import os
from pathlib import Path, PurePosixPath

from onnxnoise.data.sources.devkit import DEVKIT, ground_truth_beside, ground_truth_labels
from onnxnoise.data.sources.ilsvrc import CLASSES, WNID, Item, validation_label, wnids
from onnxnoise.errors import DataError

NOT_IMAGES = {
    ".txt",
    ".md",
    ".csv",
    ".tsv",
    ".json",
    ".xml",
    ".yaml",
    ".yml",
    ".html",
    ".db",
    ".ini",
    ".sh",
    ".py",
    ".mat",
    ".gz",
}
LIST = "val.txt"


def has_class_folders(folder: Path) -> bool:
    return any(entry.is_dir() and WNID.fullmatch(entry.name) for entry in entries(folder))


def list_class_folders(folder: Path) -> list[Item]:
    """Round-robin: the first image of each class in sorted order, then the second of each: any start is balanced.

    Raises DataError: a folder whose name is no class of ImageNet.
    """
    classes = []
    for entry in entries(folder):
        if not entry.is_dir():
            continue
        label = wnids().get(entry.name)
        if label is None:
            close = difflib.get_close_matches(entry.name, list(wnids()), n=1)
            hint = f" (the closest is {close[0]})" if close else ""
            raise DataError(f"{entry.path}: this folder's name is none of the 1000 WordNet ids of ImageNet{hint}")
        images = [_item(folder, inner, f"{entry.name}/{inner.name}", label) for inner in _image_files(Path(entry.path))]
        classes.append(images)
    return [item for rank in itertools.zip_longest(*classes) for item in rank if item is not None]


def list_validation_images(folder: Path) -> list[Item]:
    """A flat folder of ILSVRC2012_val_*.JPEG with the standard labels, or the development kit's, converted, if it is there.

    Raises DataError: another file is in it, or the development kit's labels are not those of these images.
    """
    truth = ground_truth_beside(folder)
    labels = None if truth is None else ground_truth_labels(truth)
    items = []
    for entry in _image_files(folder):
        label = validation_label(entry.name, labels)
        if label is None:
            raise DataError(
                f"{entry.path}: has no known label. Flat folders may hold ILSVRC2012_val_*.JPEG only; for other images "
                f"put them into folders named by WordNet id, or list them in {LIST} as lines of NAME LABEL"
            )
        items.append(_item(folder, entry, entry.name, label))
    return items


def list_labelled(file: Path) -> list[Item]:
    """The images that a list names, in its order; lines of NAME LABEL, LABEL from 0 to 999 or a WordNet id.

    Names are relative to the list's folder, or to `val/` in it. Raises DataError, naming the line.
    """
    items: list[Item] = []
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: can't be read as text: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        name, label = _name_and_label(line, where)
        items.append(_listed(file.parent, name, label, where))
    _check_order(file, items)
    return items


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name, without hidden files. Raises DataError: it can't be read."""
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: can't be read: {error.strerror}") from error


def _image_files(folder: Path) -> list[os.DirEntry[str]]:
    """Every file that is not plainly something else: whether it is an image, decoding tells."""
    files = []
    for entry in entries(folder):
        if entry.is_dir() and entry.name == DEVKIT:
            continue
        if entry.is_dir():
            raise DataError(f"{entry.path}: is a folder where images were expected")
        if PurePosixPath(entry.name).suffix.lower() not in NOT_IMAGES:
            files.append(entry)
    return files


def _item(folder: Path, entry: os.DirEntry[str], name: str, label: int) -> Item:
    try:
        return Item(folder / name, name, label, entry.stat().st_size)
    except OSError as error:
        raise DataError(f"{entry.path}: can't be read: {error.strerror}") from error


def _name_and_label(line: str, where: str) -> tuple[str, int]:
    name, _, word = line.strip().rpartition(" " if " " in line.strip() else "\t")
    label = int(word) if word.isdecimal() else wnids().get(word, -1)
    if not name or not 0 <= label < CLASSES:
        hint = ": labels count from 0" if label == CLASSES else ""
        raise DataError(
            f"{where}: {line.strip()[:80]!r} is not NAME LABEL with LABEL from 0 to 999 or a WordNet id{hint}"
        )
    return name.strip(), label


def _listed(folder: Path, name: str, label: int, where: str) -> Item:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise DataError(f"{where}: {name} points out of {folder}")
    for path in (folder / relative, folder / "val" / relative):
        if path.is_file():
            return Item(path, name, label, path.stat().st_size)
    raise DataError(f"{where}: there is no {name} in {folder} or in {folder / 'val'}")


def _check_order(file: Path, items: list[Item]) -> None:
    """Labels in the devkit's own order (ILSVRC2012_ID) look right and score 0.1 %: compare with what is known."""
    known = [(validation_label(item.name), item.label) for item in items]
    compared = [standard == label for standard, label in known if standard is not None]
    if len(compared) >= 100 and sum(compared) < len(compared) / 2:
        raise DataError(
            f"{file}: {len(compared) - sum(compared)} of {len(compared)} labels of validation images are not the "
            "standard ones. Labels must be positions among the sorted WordNet ids, not the devkit's ILSVRC2012_ID. "
            "Without this list the standard labels are used"
        )
