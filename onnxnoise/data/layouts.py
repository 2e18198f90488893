"""The registry of data layouts: all that `--data` can be, in the order in which they are asked."""

from __future__ import annotations

from onnxnoise.data.datasets import Dataset
from onnxnoise.data.sources import arrays, bundled, class_folders, idx, label_list, parquet, python_function, tars
from onnxnoise.data.sources.base import DataLayout
from onnxnoise.data.sources.cifar import images as cifar
from onnxnoise.data.sources.imagenet import images as imagenet

LAYOUTS: tuple[DataLayout, ...] = (
    python_function.LAYOUT,
    imagenet.WORDNET_FOLDERS,
    label_list.LAYOUT,
    arrays.LAYOUT,
    idx.LAYOUT,
    parquet.LAYOUT,
    cifar.CIFAR10_LAYOUT,
    cifar.CIFAR100_LAYOUT,
    tars.LAYOUT,
    imagenet.NUMBERED_FOLDERS,
    imagenet.VALIDATION_IMAGES,
    class_folders.LAYOUT,
    bundled.LAYOUT,
)
"""The first that recognizes a path opens it, so a layout with a mark of its own stands above CIFAR's, whose records have none."""


OF_PICTURES = (
    imagenet.WORDNET_FOLDERS,
    label_list.LAYOUT,
    imagenet.NUMBERED_FOLDERS,
    imagenet.VALIDATION_IMAGES,
    class_folders.LAYOUT,
)
"""Layouts that say the labels of picture files; where labels don't count, these are a folder of pictures like any other."""


def layouts_of(dataset: Dataset) -> list[DataLayout]:
    """The layouts in which a data set can come."""
    return [layout for layout in LAYOUTS if not layout.datasets or dataset.name in layout.datasets]
