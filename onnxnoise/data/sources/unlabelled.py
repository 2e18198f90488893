"""Pictures without labels, for `--labels clean`: any folder of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from onnxnoise.data.datasets import Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.sources.base import ImageSource
from onnxnoise.data.sources.class_folders import images_in
from onnxnoise.data.sources.files import LEFTOVERS, entries, item_of
from onnxnoise.data.sources.items import IMAGE_SUFFIXES, Item, in_turn, open_items


def open_unlabelled(path: Path, dataset: Dataset, spec: InputSpec) -> ImageSource | None:
    """The pictures of a folder and all folders inside it, one of each folder in turn; None where there are none.

    Every label is 0, and means nothing.
    """
    groups = list(_groups(path))
    return open_items(path, in_turn(groups), dataset, spec) if any(groups) else None


def _groups(root: Path) -> Iterator[list[Item]]:
    """The pictures of the folder itself, then those of each folder in it."""
    here: list[os.DirEntry[str]] = [entry for entry in entries(root) if entry.name not in LEFTOVERS]
    pictures = [e for e in here if not e.is_dir() and e.name.rpartition(".")[2].lower() in IMAGE_SUFFIXES]
    yield [item_of(picture, picture.name, 0) for picture in pictures]
    for folder in here:
        if folder.is_dir():
            yield [item_of(image, f"{folder.name}/{inner}", 0) for image, inner in images_in(Path(folder.path))]
