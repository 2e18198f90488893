"""The data sets that are known by name, and those that a card brings itself: the number and the names of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnxnoise.data.toml import MAX_BYTES, Table
from onnxnoise.errors import CardError
from onnxnoise.files import read_file
from onnxnoise.text import did_you_mean

MOST_CLASSES = 10**6


@dataclass(frozen=True)
class Dataset:
    """A set of labelled images; its labels count from 0 to `classes` - 1.

    `names` are the names of the classes in the order of their labels, empty where the card doesn't say them. `side` is the
    height and width of every image, pixels, or None where images differ in size. `by_model` says that the card leaves the
    classes out, so that they are the model's outputs. Where the images are not `labelled`, labels don't count: readers look for
    none, and each is 0.
    """

    name: str
    classes: int
    names: tuple[str, ...] = ()
    side: int | None = None
    by_model: bool = False
    labelled: bool = True

    @property
    def said(self) -> str:
        """The number of classes and who says it, as the end of a sentence about data that have another one."""
        if not self.by_model:
            return f"{self.name} has {self.classes} classes"
        near = did_you_mean(self.name, KNOWN)
        return f"the model tells {self.classes} classes apart (the card of {self.name} leaves its classes out{near})"


IMAGENET = Dataset("imagenet", 1000)
CIFAR10 = Dataset("cifar10", 10, side=32)
CIFAR100 = Dataset("cifar100", 100, side=32)
KNOWN = {dataset.name: dataset for dataset in (IMAGENET, CIFAR10, CIFAR100)}


def read_dataset(table: Table) -> Dataset | None:
    """The data set of a card's `[input]`: a known one, or one of the card's own, None where that leaves out its `classes`.

    Raises CardError where `dataset` is missing or blank, and for `classes` that can't be used.
    """
    name = table.text("dataset")
    if name is None:
        raise CardError(
            f"{table.file}: [input] dataset is missing: add one of {', '.join(KNOWN)}, or a name of your own"
        )
    if not name.strip():
        raise table.error("dataset", f"one of {', '.join(KNOWN)}, or a name of your own")
    found = _classes(table)
    known = KNOWN.get(name)
    if known is None:
        return None if found is None else Dataset(name, *found)
    if found is None:
        return known
    classes, names = found
    if classes != known.classes:
        raise table.error(
            "classes",
            f"{known.classes} of them, or left out, for {name}; data of your own need a dataset of another name",
        )
    return replace(known, names=names)


def _classes(table: Table) -> tuple[int, tuple[str, ...]] | None:
    """(number, names) of `classes`; no names where it is a number, None where the card leaves it out."""
    value = table.values.get("classes")
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 2 <= value <= MOST_CLASSES:
        return value, ()
    file = table.path("classes", "a text file inside the card's folder") if isinstance(value, str) else None
    if file is not None:
        names, origin = _label_file(file), str(file)
    elif isinstance(value, list) and all(isinstance(name, str) for name in value):
        names, origin = value, f"{table.file}: [input] classes"
    else:
        raise table.error(
            "classes", f"a whole number from 2 to {MOST_CLASSES}, a list of names, or a text file with a name a line"
        )
    _check_names(names, origin)
    return len(names), tuple(names)


def _label_file(file: Path) -> list[str]:
    """The lines of a labels file without the space around them; empty lines at its end don't count."""
    try:
        text = read_file(file, MAX_BYTES)
        lines = [line.strip() for line in text.decode("utf-8-sig").splitlines()]
    except OSError as error:
        raise CardError(f"{file}: the card's labels file can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CardError(f"{file}: the card's labels file is not UTF-8 text: {error}") from error
    if len(text) > MAX_BYTES:
        raise CardError(f"{file}: more than {MAX_BYTES} bytes; this is no labels file")
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _check_names(names: Sequence[str], origin: str) -> None:
    """Raise CardError for fewer than two names, an empty one, or one that stands twice."""
    if len(names) < 2:
        raise CardError(f"{origin}: has {len(names)} class names; a classifier tells at least 2 apart")
    first: dict[str, int] = {}
    for position, name in enumerate(names, 1):
        if not name.strip():
            raise CardError(f"{origin}: name {position} of {len(names)} is empty")
        if first.setdefault(name, position) != position:
            raise CardError(
                f"{origin}: names {first[name]} and {position} are both {name[:80]!r}; each class needs its own"
            )
