"""Images that a table lists with their labels: `val.txt`, `val_map.txt` or `labels.csv`, in the images' folder or above it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from onnxnoise.data.datasets import IMAGENET, Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.sources.base import DataLayout
from onnxnoise.data.sources.files import text_lines
from onnxnoise.data.sources.imagenet.devkit import GROUND_TRUTH
from onnxnoise.data.sources.imagenet.ilsvrc import source_name, validation_label, wnids
from onnxnoise.data.sources.items import IMAGE_SUFFIXES, ImageItems, Item, open_items
from onnxnoise.data.sources.labels import by_name
from onnxnoise.errors import DataError
from onnxnoise.files import is_file

LISTS = ("val.txt", "val_map.txt", "labels.csv")
LIST = LISTS[0]
MAX_LIST_BYTES = 128 << 20
_NAMES = ("path", "file", "filename", "file_name", "image", "image_path", "img", "name", "id")
_LABELS = ("label", "label_id", "class", "class_id", "class_name", "target", "category", "y", "breed")
"""Titles of a table's columns, in lower case."""
_FOLDERS = ("val", "images")


def has_list(path: Path, _: Dataset) -> bool:
    """Whether `path` is a list of images by its suffix, or a folder with `val.txt`, `val_map.txt` or `labels.csv`."""
    if path.is_dir():
        return list_in(path) is not None
    return path.suffix in (".txt", ".csv") and path.name != GROUND_TRUTH and is_file(path)


def list_in(folder: Path) -> Path | None:
    """The list of images in a folder."""
    return next((folder / name for name in LISTS if is_file(folder / name)), None)


def open_list(data: Path, dataset: Dataset, spec: InputSpec) -> ImageItems:
    """The images that a list names, in its order. LABEL is a number from 0 or the name of a class.

    A `.csv` has one row for each image, two columns or more of which titles say which are meant; other lists have lines of NAME
    LABEL or NAME,LABEL. Where the card has no names of classes, LABEL may be a name too: its class is its position among all
    sorted names. Names of images are relative to the list's folder, or to `val/` or `images/` in it, and may lack their suffix.
    Raises DataError, naming the line.
    """
    file = data if not data.is_dir() else list_in(data) or data / LIST
    imagenet = dataset.name == IMAGENET.name
    rows = list(_rows(file))
    labels = wnids() if imagenet else {name: label for label, name in enumerate(dataset.names)}
    if not labels and rows and not any(row.label.isdecimal() for row in rows):
        labels = by_name(sorted({row.label for row in rows}), dataset, str(file))
    items: list[Item] = []
    for row in rows:
        label = _label(row, dataset, labels)
        items.append(_listed(file.parent, row.name, label, row.where))
    if imagenet:
        _check_order(file, items)
    return open_items(data, items, dataset, spec, source_name(dataset, (item.name for item in items)))


class _Row(NamedTuple):
    """An image's name and the text of its label, at a line of the list (`where`), which reads `line`."""

    name: str
    label: str
    where: str
    line: str


def _rows(file: Path) -> Iterator[_Row]:
    """The rows of a list, without its titles. Raises DataError for a line that hasn't a name and a label."""
    columns = (0, -1)
    for number, line in text_lines(file, MAX_LIST_BYTES, "list of images"):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        cells = _cells(line, file.suffix == ".csv")
        if titled := _titles(cells) if number == 1 else None:
            columns = titled
            continue
        if len(cells) <= max(columns) or len(cells) < 2:
            raise DataError(f"{where}: {line.strip()[:80]!r} is not NAME LABEL")
        yield _Row(cells[columns[0]], cells[columns[1]], where, line.strip())


def _cells(line: str, table: bool) -> list[str]:
    """The cells of a line: between commas, quoted or not, in a table; else a name and the label after its last space or comma."""
    text = line.strip()
    if table:
        try:
            return [cell.strip() for cell in next(csv.reader([text], delimiter=_delimiter(text)), [])]
        except csv.Error:
            return []
    for mark in ("\t", " ", ","):
        name, _, label = text.rpartition(mark)
        if name:
            return [name.strip().rstrip(","), label.strip()]
    return []


def _delimiter(text: str) -> str:
    return next((mark for mark in (",", ";", "\t") if mark in text), ",")


def _titles(cells: list[str]) -> tuple[int, int] | None:
    """The columns of names and labels, where the first line has titles; None where it is an image's."""
    titles = [cell.strip().lower() for cell in cells]
    name = next((titles.index(each) for each in _NAMES if each in titles), None)
    label = next((titles.index(each) for each in _LABELS if each in titles), None)
    return None if name is None or label is None else (name, label)


def _label(row: _Row, dataset: Dataset, labels: Mapping[str, int]) -> int:
    number = row.label.isdecimal() and len(row.label) < 10
    label = int(row.label) if number and row.label not in labels else labels.get(row.label, -1)
    if not row.name or not 0 <= label < dataset.classes:
        hint = ""
        if label == dataset.classes:
            hint = ": labels count from 0; do these count from 1, or has the data a background class?"
        other = "a WordNet id" if dataset.name == IMAGENET.name else "the name of a class in the card"
        raise DataError(
            f"{row.where}: {row.line[:80]!r} is not NAME LABEL with LABEL from 0 to {dataset.classes - 1} or {other}{hint}"
        )
    return label


def _listed(folder: Path, name: str, label: int, where: str) -> Item:
    for written in _written(name):
        relative = PurePosixPath(written)
        if relative.is_absolute() or ".." in relative.parts:
            raise DataError(f"{where}: {name} points out of {folder}")
        for path in (folder / relative, *(folder / inner / relative for inner in _FOLDERS)):
            if is_file(path):
                return Item(path, name, label, path.stat().st_size)
    raise DataError(f"{where}: there is no {name} in {folder}, or in {' or '.join(_FOLDERS)} there")


def _written(name: str) -> Iterator[str]:
    """The ways to read an image's name: as it is, with Windows' backslashes, and without the suffix of its file."""
    yield name
    if "\\" in name:
        yield name.replace("\\", "/")
    if PurePosixPath(name).suffix.lower().lstrip(".") not in IMAGE_SUFFIXES:
        yield from (f"{name}.{suffix}" for suffix in ("jpg", "png", "jpeg", "JPEG"))


def _check_order(file: Path, items: list[Item]) -> None:
    """Raise DataError for labels in the devkit's own order (ILSVRC2012_ID), which look right and score 0.1 %."""
    known = [(validation_label(item.name), item.label) for item in items]
    compared = [standard == label for standard, label in known if standard is not None]
    if len(compared) >= 100 and sum(compared) < len(compared) / 2:
        raise DataError(
            f"{file}: {len(compared) - sum(compared)} of {len(compared)} labels of validation images are not the "
            "standard ones. Labels must be positions among the sorted WordNet ids, not the devkit's ILSVRC2012_ID. "
            "Without this list the standard labels are used"
        )


LAYOUT = DataLayout(
    "a folder with val.txt, val_map.txt or labels.csv (NAME LABEL)",
    has_list,
    open_list,
)
