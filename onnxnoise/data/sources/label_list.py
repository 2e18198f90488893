"""Images that a text file lists with their labels: `val.txt`, lines of NAME LABEL, in the images' folder or above it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from onnxnoise.data.datasets import IMAGENET, Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.sources.base import DataLayout
from onnxnoise.data.sources.files import text_lines
from onnxnoise.data.sources.imagenet.devkit import GROUND_TRUTH
from onnxnoise.data.sources.imagenet.ilsvrc import source_name, validation_label, wnids
from onnxnoise.data.sources.items import ImageItems, Item, open_items
from onnxnoise.errors import DataError
from onnxnoise.files import is_file

LIST = "val.txt"
MAX_LIST_BYTES = 128 << 20


def has_list(path: Path, _: Dataset) -> bool:
    """Whether `path` is a list of images by its suffix, or a folder with `val.txt`."""
    if path.is_dir():
        return is_file(path / LIST)
    return path.suffix == ".txt" and path.name != GROUND_TRUTH and is_file(path)


def open_list(data: Path, dataset: Dataset, spec: InputSpec) -> ImageItems:
    """The images that a list names, in its order. LABEL is a number from 0 or the name of a class.

    Names are relative to the list's folder, or to `val/` in it. Raises DataError, naming the line.
    """
    file = data / LIST if data.is_dir() else data
    imagenet = dataset.name == IMAGENET.name
    labels = wnids() if imagenet else {name: label for label, name in enumerate(dataset.names)}
    items: list[Item] = []
    for number, line in text_lines(file, MAX_LIST_BYTES, "list of images"):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        name, label = _name_and_label(line, where, dataset, labels)
        items.append(_listed(file.parent, name, label, where))
    if imagenet:
        _check_order(file, items)
    return open_items(data, items, dataset, spec, source_name(dataset, (item.name for item in items)))


def _name_and_label(line: str, where: str, dataset: Dataset, labels: Mapping[str, int]) -> tuple[str, int]:
    name, _, word = line.strip().rpartition("\t" if "\t" in line.strip() else " ")
    label = int(word) if word.isdecimal() and len(word) < 10 else labels.get(word, -1)
    if not name or not 0 <= label < dataset.classes:
        hint = ": labels count from 0" if label == dataset.classes else ""
        other = "a WordNet id" if dataset.name == IMAGENET.name else "the name of a class in the card"
        raise DataError(
            f"{where}: {line.strip()[:80]!r} is not NAME LABEL with LABEL from 0 to {dataset.classes - 1} or {other}{hint}"
        )
    return name.strip(), label


def _listed(folder: Path, name: str, label: int, where: str) -> Item:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise DataError(f"{where}: {name} points out of {folder}")
    for path in (folder / relative, folder / "val" / relative):
        if is_file(path):
            return Item(path, name, label, path.stat().st_size)
    raise DataError(f"{where}: there is no {name} in {folder} or in {folder / 'val'}")


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


LAYOUT = DataLayout("a folder with val.txt, or another .txt file, of lines NAME LABEL", has_list, open_list)
