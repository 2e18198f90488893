"""Data that a program gives in Python: arrays (x, y), or a collection of pairs (image, label) with a length."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxnoise.data.datasets import Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.sources.base import ImageSource
from onnxnoise.data.sources.labels import integer_labels
from onnxnoise.data.sources.pairs import Given, open_pairs
from onnxnoise.data.sources.rows import MemoryRows, open_rows
from onnxnoise.errors import DataError, UsageError


def open_in_memory(data: Any, dataset: Dataset, spec: InputSpec) -> ImageSource:
    """The images of a tuple of two arrays (x, y), or of a collection of pairs; the digest is of images and labels.

    Where labels don't count, x alone will do, or a collection of images.

    The digest of arrays is that of the same arrays in an .npz. Raises UsageError for anything else, and DataError as for files.
    """
    if not dataset.labelled and isinstance(data, np.ndarray):
        data = (data, None)
    if isinstance(data, tuple) and len(data) == 2:
        if not dataset.labelled:
            return open_rows(MemoryRows(_array(data[0], "x"), "data: x"), None, dataset, spec)
        images, labels = (_array(each, name) for each, name in zip(data, "xy", strict=True))
        rows = MemoryRows(images, "data: x")
        return open_rows(rows, integer_labels(labels, len(images), dataset, "data: y"), dataset, spec)
    if not hasattr(data, "__len__") or not (hasattr(data, "__iter__") or hasattr(data, "__getitem__")):
        raise UsageError(
            f"data is a {type(data).__name__}: give a path, a tuple of two arrays (x, y), or a collection of pairs (image, "
            "label) with a length that can be read more than once, as a list or a data set, not a generator"
        )
    return open_pairs(Given(lambda: data, "data", held=True, labelled=dataset.labelled), dataset, spec)


def _array(given: Any, name: str) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        array = np.asarray(given)
    except Exception as error:
        raise DataError(f"data: {name} can't be an array: {error}") from error
    if array.dtype.hasobject or array.ndim == 0:
        raise DataError(f"data: {name} is no array of numbers, but {array.dtype} {array.shape}")
    return array
