"""Converts the development kit's ground truth, which counts classes in an order of its own, to positions among the wnids."""

from __future__ import annotations

from pathlib import Path

from onnxnoise.data.datasets import IMAGENET
from onnxnoise.data.sources.files import text_lines
from onnxnoise.data.sources.imagenet.ilsvrc import validation_labels
from onnxnoise.errors import DataError

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
DEVKIT = "ILSVRC2012_devkit_t12"
MAX_BYTES = 1 << 20


def ground_truth_beside(folder: Path) -> Path | None:
    """The ground truth in a folder, or in the unpacked development kit in it."""
    places = (folder, folder / DEVKIT / "data", folder / DEVKIT)
    return next((file for place in places if (file := place / GROUND_TRUTH).is_file()), None)


def ground_truth_labels(file: Path) -> tuple[int, ...]:
    """The classes (0 to 999) of the 50,000 validation images by a ground truth: line k has the ILSVRC2012_ID of image k.

    The development kit says in meta.mat which class an ILSVRC2012_ID is. The file itself tells it as well: the standard labels of
    its images are known, so each ILSVRC2012_ID must meet one class alone, and each class one ILSVRC2012_ID. Images after the last
    line have their standard label. Raises DataError, naming the line, for a text that isn't a number from 1 to 1000, and for a
    number that meets two classes: such labels don't belong to these images.
    """
    standard = validation_labels()
    lines = [text for _, text in text_lines(file, MAX_BYTES, "ground truth")]
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) > len(standard):
        raise DataError(f"{file}: has {len(lines):,} lines; there are {len(standard):,} validation images. {_REMEDY}")
    classes: dict[int, tuple[int, int]] = {}
    numbers: dict[int, tuple[int, int]] = {}
    for line, (text, label) in enumerate(zip(lines, standard, strict=False), 1):
        word = text.strip()
        number = int(word) if word.isdecimal() and len(word) < 5 else 0
        if not 1 <= number <= IMAGENET.classes:
            raise DataError(
                f"{file}, line {line}: {word[:80]!r} is no ILSVRC2012_ID, a number from 1 to {IMAGENET.classes}. {_REMEDY}"
            )
        for known, key, value in ((classes, number, label), (numbers, label, number)):
            there, before = known.setdefault(key, (value, line))
            if there != value:
                raise DataError(
                    f"{file}: lines {before} and {line} contradict the standard labels of these images: whatever "
                    f"class an ILSVRC2012_ID stands for, {_contradiction(known is classes, key)}. {_REMEDY}"
                )
    converted = (classes[int(text)][0] for text in lines)
    return (*converted, *standard[len(lines) :])


_REMEDY = "Take the file from the development kit again, or remove it: the standard labels are built in"


def _contradiction(same_number: bool, key: int) -> str:
    if same_number:
        return f"both lines have {key}, but the images are of two classes"
    return f"both images are of class {key}, but the lines have two numbers"
