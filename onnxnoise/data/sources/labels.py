"""Labels held against a data set's classes: integers, one-hot rows and names, with the likely cause where they don't fit."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnoise.data.datasets import Dataset
from onnxnoise.errors import DataError
from onnxnoise.records import Labels

CLEAN = "clean"
"""The value of --labels by which the clean model's own top-1 is the label."""

NO_LABELS = "Images without labels go with --labels clean: then the clean model's own top-1 is the label"
"""The end of a message about images whose labels are missing."""

Place = Callable[[int], str]
"""A function from an image's position to the words by which a message names it."""


def image_number(position: int) -> str:
    """An image by its position, counted from 0."""
    return f"image {position}"


def integer_labels(values: npt.NDArray[Any], images: int, dataset: Dataset, where: str) -> Labels:
    """The labels (images,) from 0 that `values` are, integers (images,) or (images, 1), or one-hot (images, classes).

    Raises DataError, which begins with `where`, for another shape or type, a row that isn't one-hot and a label out of range.
    """
    one_hot = check_labels(values.shape, values.dtype, images, dataset, where)
    if not one_hot:
        return checked(values.reshape(images), dataset, where)
    right = ((values == 0) | (values == 1)).all(axis=1) & (values.sum(axis=1) == 1)
    if not right.all():
        raise DataError(f"{where}: row {int(np.argmin(right))} is not one-hot: one 1 and else 0")
    return np.asarray(values.argmax(axis=1), np.int64)


def check_labels(shape: tuple[int, ...], dtype: np.dtype[Any], images: int, dataset: Dataset, where: str) -> bool:
    """Whether labels of this shape and type are one-hot; raises DataError where they can't be labels of so many images."""
    one_hot = len(shape) == 2 and shape[1] > 1
    if not shape or shape[0] != images or len(shape) > 2 or (one_hot and shape[1] != dataset.classes):
        raise DataError(
            f"{where}: is {dtype} {shape}; the labels of {images} images must be ({images},), or one-hot "
            f"({images}, {dataset.classes})" + (more_or_less(shape[1], dataset.classes) if one_hot else "")
        )
    if dtype.kind not in ("iufb" if one_hot else "iu"):
        raise DataError(f"{where}: labels are {dtype}; they must be integers, or one-hot")
    return one_hot


def checked(values: npt.NDArray[Any], dataset: Dataset, where: str, place: Place = image_number) -> Labels:
    """Integers (images,) as labels; raises DataError that names the first one out of range, and the likely cause."""
    if not dataset.labelled:
        return np.zeros(len(values), np.int64)
    wrong = (values < 0) | (values >= dataset.classes)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise DataError(
            f"{where}: {place(first)} has label {values[first]}; those of {dataset.name} are 0 to {dataset.classes - 1}"
            f"{cause(int(values.min()), int(values.max()), dataset.classes)}"
        )
    return np.asarray(values, np.int64)


def cause(lowest: int, highest: int, classes: int) -> str:
    """The likely reason why labels from `lowest` to `highest` don't fit so many classes, as the end of a message, or nothing."""
    if lowest == -1:
        return "; -1 usually stands for no label, as in a test part whose labels are kept back: then --labels clean needs none"
    if lowest == 1 and highest == classes:
        return (
            "; they run from 1 up, and labels count from 0: subtract 1. Or is their class 0 a background class that the model "
            "doesn't have?"
        )
    if highest == classes:
        return "; one class more than there should be: has the data a background class, or do its labels count from 1?"
    return ""


def more_or_less(found: int, classes: int) -> str:
    """The likely cause of one class too many or too few, as the end of a message; nothing for other numbers."""
    return "; is one of the classes a background class?" if abs(found - classes) == 1 else ""


def by_name(found: Sequence[str], dataset: Dataset, where: str) -> dict[str, int]:
    """The label of each class name that the data has: its position in the card, or, where the card has no names, in `found`.

    Raises DataError for a name that stands twice, one that isn't in the card, and another number of names than classes.
    """
    twice = [name for name in dict.fromkeys(found) if found.count(name) > 1] if len({*found}) < len(found) else []
    if twice:
        raise DataError(f"{where}: {twice[0][:80]!r} is the name of two classes; each class needs its own")
    if dataset.names:
        labels = {name: label for label, name in enumerate(dataset.names)}
        for name in found:
            if name not in labels:
                raise DataError(f"{where}: {not_in_card(name, dataset)}")
        return {name: labels[name] for name in found}
    if len(found) != dataset.classes:
        raise DataError(
            f"{where}: has {len(found)} class names ({some(found)}), but {dataset.said}"
            f"{more_or_less(len(found), dataset.classes) or '.'} Without names in the card a class is its name's position among "
            "all: correct the card's classes, or put the names into it, classes = [\"...\", ...], in the order of the model's"
        )
    return {name: label for label, name in enumerate(found)}


def not_in_card(name: str, dataset: Dataset, what: str = "class name") -> str:
    """The end of a message about a name that is no class of the card, with the closest one."""
    lowered = {each.lower(): each for each in dataset.names}
    close = difflib.get_close_matches(name[:80].lower(), lowered, n=1)
    hint = f" (the closest is {lowered[close[0]]!r})" if close else ""
    return f"{what} {name[:80]!r} is none of the {len(dataset.names)} class names in the card{hint}"


def some(names: Iterable[str]) -> str:
    """The first few names."""
    listed = list(names)
    return ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")
