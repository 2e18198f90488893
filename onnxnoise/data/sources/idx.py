"""IDX, the format of MNIST, Fashion-MNIST, KMNIST and EMNIST: images and labels in two files, packed with gzip or not."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from onnxnoise.data.datasets import Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.sources.arrays import labels_in, read_labels
from onnxnoise.data.sources.base import DataLayout
from onnxnoise.data.sources.files import check_download, entries, first_unpacked
from onnxnoise.data.sources.labels import NO_LABELS, some
from onnxnoise.data.sources.rows import ArrayImages, FileRows, open_rows
from onnxnoise.errors import DataError
from onnxnoise.files import is_file

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_AXES, _LARGEST_SIDE = 4, 1 << 16
_TEST = ("t10k", "test", "val")
"""Parts of the names of files that hold a test part, which comes before a training part in the same folder."""


def has_idx(path: Path, _: Dataset) -> bool:
    """Whether a file begins like IDX, packed or not, or a folder, or `raw` in it, holds a file of images that does."""
    if not path.is_dir():
        return _header(path) is not None or (_named_so(path) and is_file(path))
    return any(_image_files(folder) for folder in _folders(path))


def open_idx(data: Path, dataset: Dataset, spec: InputSpec) -> ArrayImages:
    """The images of an IDX file with the labels beside it, or of the test part of a folder of them.

    Raises DataError where the labels' file is missing, where a folder has several sets, and for whatever `open_rows` does.
    """
    images = _chosen(data)
    found = _array(images)
    if len(found.shape) == 1:
        raise DataError(f"{images}: holds labels, not images: pass the file of the images, or their folder")
    if not dataset.labelled:
        return open_rows(found, None, dataset, spec)
    beside = _labels_beside(images)
    if beside is None:
        names = some(path.name for path in _label_names(images))
        raise DataError(f"{images}: its labels are not beside it: looked for {names}. {NO_LABELS}")
    return open_rows(found, read_labels(_array(beside), found.shape, dataset), dataset, spec)


def open_idx_with(data: Path, labels: Path, dataset: Dataset, spec: InputSpec) -> ArrayImages:
    """The images of an IDX file with their labels in another, an IDX file too or an .npy."""
    found = _array(_chosen(data))
    if _header(labels) is not None:
        return open_rows(found, read_labels(_array(labels), found.shape, dataset), dataset, spec)
    return open_rows(found, labels_in(labels, found.shape, dataset), dataset, spec)


def _header(file: Path) -> tuple[np.dtype[np.generic], tuple[int, ...], int] | None:
    """(type, shape, bytes before the numbers) of an IDX file; None where it isn't one."""
    head = first_unpacked(file, 4 + 4 * _MOST_AXES)
    if len(head) < 8 or head[:2] != b"\0\0" or head[2] not in _TYPES or not 1 <= head[3] <= _MOST_AXES:
        return None
    start = 4 + 4 * head[3]
    if len(head) < start:
        return None
    shape = struct.unpack(f">{head[3]}I", head[4:start])
    if any(side > _LARGEST_SIDE for side in shape[1:]):
        return None
    return np.dtype(_TYPES[head[2]]), shape, start


def _array(file: Path) -> FileRows:
    check_download(file)
    header = _header(file)
    if header is None:
        raise DataError(f"{file}: is no IDX file, or its header is damaged")
    dtype, shape, start = header
    found = FileRows(file, None, start, dtype, shape)
    found.check_bytes()
    return found


def _named_so(path: Path) -> bool:
    """Whether a file's name is that of an IDX file, whatever is in it."""
    return any(mark in path.name.lower() for mark in ("idx1-ubyte", "idx3-ubyte"))


def _folders(path: Path) -> list[Path]:
    """The folder itself, and where torchvision puts the files: `raw`, or `NAME/raw`."""
    inside = [Path(entry.path) / "raw" for entry in entries(path) if entry.is_dir()]
    return [path, *(folder for folder in (path / "raw", *inside) if folder.is_dir())]


def _image_files(folder: Path) -> list[Path]:
    """The files of a folder that are called images and begin like IDX, without a second copy that differs in packing."""
    files: dict[str, Path] = {}
    for entry in entries(folder):
        path = Path(entry.path)
        if "images" in entry.name and not entry.is_dir() and (_named_so(path) or _header(path) is not None):
            files.setdefault(entry.name.removesuffix(".gz"), path)
    return list(files.values())


def _chosen(data: Path) -> Path:
    """The file of images that `data` is or holds."""
    if not data.is_dir():
        return data
    files = next(files for files in map(_image_files, _folders(data)) if files)
    tests = [file for file in files if any(mark in file.name for mark in _TEST)] or files
    if len(tests) > 1:
        raise DataError(
            f"{data}: holds the images of {len(tests)} sets ({some(file.name for file in tests)}): pass the file of one"
        )
    return tests[0]


def _label_names(images: Path) -> list[Path]:
    name = images.name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1")
    plain = name.removesuffix(".gz")
    return [images.with_name(each) for each in dict.fromkeys((name, plain, f"{plain}.gz"))]


def _labels_beside(images: Path) -> Path | None:
    return next((path for path in _label_names(images) if path != images and is_file(path)), None)


LAYOUT = DataLayout(
    "IDX files (t10k-images-idx3-ubyte.gz) or their folder",
    has_idx,
    open_idx,
    opens_with=open_idx_with,
)
