"""CIFAR-10 and CIFAR-100: the test part in any of its official forms, as images in the order of its records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxnoise.data.datasets import Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.pixels.preprocess import from_array, resized
from onnxnoise.data.pixels.stream import stream
from onnxnoise.data.sources.base import DataLayout, ImageSource
from onnxnoise.data.sources.cifar.files import (
    FORMS,
    IMAGE_BYTES,
    SIDE,
    Form,
    expected,
    find_test_file,
    looks_like,
    read_records,
)
from onnxnoise.errors import DataError
from onnxnoise.records import ImageChunk, Pixels


@dataclass(frozen=True, eq=False)
class CifarImages(ImageSource):
    """The images of CIFAR's records, uint8 (images, record bytes), in file order."""

    records: Pixels

    def chunks(self, ranges: Sequence[range], *, threads: int | None = None) -> Iterator[ImageChunk]:
        if self.shape == (SIDE, SIDE, 3) and resized(SIDE, SIDE, self.spec) == (SIDE, SIDE):
            return (
                ImageChunk(positions.start, self._pixels(positions), self.labels[positions.start : positions.stop])
                for positions in ranges
            )
        return stream(ranges, self._decode, self.labels, self.shape, threads)

    def _pixels(self, positions: range) -> Pixels:
        planes = self.records[positions.start : positions.stop, -IMAGE_BYTES:].reshape(-1, 3, SIDE, SIDE)
        return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))

    def _decode(self, position: int) -> Pixels:
        return from_array(self._pixels(range(position, position + 1))[0], self.spec)


def has_cifar(path: Path, dataset: Dataset) -> bool:
    """Whether a folder holds the test part of either CIFAR, or a file looks like the data set's."""
    if path.is_dir():
        return any(find_test_file(path, form) for form in FORMS.values())
    return path.is_file() and looks_like(path, FORMS[dataset.name])


def open_cifar(data: Path, dataset: Dataset, spec: InputSpec, name: str | None = None) -> CifarImages:
    """The test images of `data`: a file, an archive or a folder. `name` is what results call them.

    Raises DataError where there is no test part, or where it is truncated, of the other CIFAR, or has labels out of range.
    """
    form = FORMS[dataset.name]
    file = find_test_file(data, form) if data.is_dir() else data
    if file is None:
        others = " and ".join(f"{other.title}'s" for other in FORMS.values() if find_test_file(data, other))
        raise DataError(
            f"{data}: this folder has no test part of {form.title}: expected one of {expected(form)}. It has {others}"
        )
    content, origin = read_records(file, form)
    if not content:
        raise DataError(f"{origin}: holds no images")
    if len(content) % form.record_bytes:
        raise DataError(
            f"{origin}: {len(content)} bytes are no whole number of {form.title} records of {form.record_bytes} bytes"
            f"{_other(content, form)}; is it truncated, or another file?"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, form.record_bytes)
    for column, count in enumerate(form.label_counts):
        wrong = np.flatnonzero(records[:, column] >= count)
        if len(wrong):
            raise DataError(
                f"{origin}: record {wrong[0]} has label {records[wrong[0], column]}; those of {form.title} are 0 to "
                f"{count - 1}. Is it another file?"
            )
    official = Path(origin).name.removesuffix(".gz") in form.files
    return CifarImages(
        name=name or (f"{dataset.name}-test" if official else dataset.name),
        classes=dataset.classes,
        digest=hashlib.sha256(content).hexdigest(),
        spec=spec,
        records=records,
        labels=records[:, len(form.label_counts) - 1].astype(np.int64) + spec.label_offset,
    )


def _other(content: bytes, form: Form) -> str:
    for other in FORMS.values():
        if other is not form and len(content) % other.record_bytes == 0:
            return f" (they are of {other.title})"
    return ""


CIFAR10_LAYOUT, CIFAR100_LAYOUT = (
    DataLayout(f"the test part of {form.title}: {expected(form)}", has_cifar, open_cifar, (name,))
    for name, form in FORMS.items()
)
