"""NumPy arrays of images and labels: an .npz of both, or an .npy with its labels in another; read in rows, never unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from onnxnoise.data.datasets import Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.sources.base import DataLayout
from onnxnoise.data.sources.files import PICKLE, check_download, entries
from onnxnoise.data.sources.labels import NO_LABELS, check_labels, integer_labels
from onnxnoise.data.sources.rows import ArrayImages, FileRows, open_rows, unpacked
from onnxnoise.errors import DataError
from onnxnoise.files import first_bytes, is_file, open_file
from onnxnoise.records import Labels
from onnxnoise.text import quoted

PAIRS = (
    *(("x_test", "y_test"), ("X_test", "y_test"), ("test_images", "test_labels"), ("x_val", "y_val")),
    *(
        ("val_images", "val_labels"),
        ("x", "y"),
        ("X", "y"),
        ("images", "labels"),
        ("data", "labels"),
        ("arr_0", "arr_1"),
    ),
)
"""Names of images and labels in an .npz; names of a test part come before those of the whole."""
LABELS = "labels.npy"
NPY, ZIP = b"\x93NUMPY", b"PK\x03\x04"
MAX_LABEL_BYTES = 1 << 30
_PICKLED = "holds pickled Python objects, which are never loaded: save it as an array of numbers"


def has_arrays(path: Path, _: Dataset) -> bool:
    """Whether a file is an .npy, or a zip that is called .npz or holds .npy files; or a folder has arrays beside `labels.npy`."""
    if path.is_dir():
        return is_file(path / LABELS) and bool(_beside_labels(path))
    start = first_bytes(path, 6)
    if start.startswith(ZIP) and path.suffix.lower() != ".npz":
        try:
            return bool(_members(path))
        except DataError:
            return False
    return start == NPY or (path.suffix.lower() in (".npz", ".npy") and path.is_file())


def open_arrays(data: Path, dataset: Dataset, spec: InputSpec) -> ArrayImages:
    """The images of an .npz, or of an .npy with labels.npy beside it. The digest is of pixels and labels, whatever the file.

    Labels are integers (images,) or (images, 1), or one-hot (images, classes). Raises DataError for arrays of other types or
    shapes, of unequal lengths or of Python objects, for labels out of range, and for a damaged file.
    """
    if not dataset.labelled:
        return open_rows(array_alone(_only(data) if data.is_dir() else data), None, dataset, spec)
    images, labelled = _pair(data)
    return open_rows(images, read_labels(labelled, images.shape, dataset), dataset, spec)


def open_arrays_with(data: Path, labels: Path, dataset: Dataset, spec: InputSpec) -> ArrayImages:
    """The images of an .npy, or the only array of an .npz, with their labels in another file."""
    images = array_alone(data)
    return open_rows(images, labels_in(labels, images.shape, dataset), dataset, spec)


def array_alone(data: Path) -> FileRows:
    """The array of images of an .npy or .npz, whose labels lie elsewhere or don't count."""
    check_download(data)
    if first_bytes(data, 6) == NPY:
        return array_in(data, None)
    names = _members(data)
    wanted = [each for each, _ in PAIRS if each in names][:1] or list(names)
    if len(wanted) != 1:
        raise DataError(f"{data}: holds {_listed(names)}; with --labels it must have one array of images")
    return array_in(data, names[wanted[0]])


def labels_in(file: Path, images: tuple[int, ...], dataset: Dataset) -> Labels:
    """The labels in an .npy, for images of this shape. Raises DataError where it isn't one, or doesn't fit."""
    check_download(file)
    if not is_file(file):
        raise DataError(f"{file}: there is no such file of labels")
    head = first_bytes(file, 6)
    if head == NPY:
        return read_labels(array_in(file, None), images, dataset)
    names = _members(file) if head.startswith(ZIP) else {}
    if len(names) != 1:
        raise DataError(f"{file}: is no .npy; --labels takes an .npy of integers, one for each image, or one-hot")
    return read_labels(array_in(file, *names.values()), images, dataset)


def read_labels(array: FileRows, images: tuple[int, ...], dataset: Dataset) -> Labels:
    """The labels (images,) from 0 in an array; nothing is read before its header fits images of this shape."""
    count = images[0] if images else 0
    check_labels(array.shape, array.dtype, count, dataset, array.where)
    if array.shape[0] * array.row_bytes > MAX_LABEL_BYTES:
        raise DataError(f"{array.where}: more than {MAX_LABEL_BYTES >> 20} MiB of labels")
    array.check_bytes()
    return integer_labels(array.whole(), count, dataset, array.where)


def _pair(data: Path) -> tuple[FileRows, FileRows]:
    """The array of images and the array of labels."""
    if data.is_dir():
        data = _only(data)
    check_download(data)
    if first_bytes(data, 6) == NPY:
        beside = data.with_name(LABELS)
        if not beside.is_file() or beside == data:
            raise DataError(
                f"{data}: an array of images needs its labels beside it, as {LABELS}, or elsewhere, with --labels FILE.npy; or "
                f"put both into one .npz. {NO_LABELS}"
            )
        return array_in(data, None), array_in(beside, None)
    names = _members(data)
    for pair in PAIRS:
        if names.keys() >= {*pair}:
            return array_in(data, names[pair[0]]), array_in(data, names[pair[1]])
    known = ", ".join(f"{images} and {labels}" for images, labels in PAIRS)
    raise DataError(f"{data}: has no images with labels: expected {known}; found {_listed(names)}. {NO_LABELS}")


def _beside_labels(folder: Path) -> list[Path]:
    return [Path(e.path) for e in entries(folder) if e.name.endswith(".npy") and e.name != LABELS and not e.is_dir()]


def _only(folder: Path) -> Path:
    """The array in a folder with labels.npy; raises DataError where there are several, as in CIFAR-10-C."""
    files = _beside_labels(folder)
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:20])
        raise DataError(f"{folder}: holds {len(files)} arrays of images beside {LABELS}: pass one of them ({names})")
    return files[0]


def _members(data: Path) -> dict[str, str]:
    """The arrays of a zip: the name of each member by its name as an array."""
    _check_pickle(first_bytes(data, 1), str(data))
    try:
        with open_file(data) as raw, zipfile.ZipFile(raw) as archive:
            return {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
    except Exception as error:  # as in `unpacked`
        raise DataError(f"{data}: can't be read as NumPy's arrays, or is damaged or truncated: {error}") from error


def _check_pickle(start: bytes, where: str) -> None:
    """Raise DataError for what begins as a pickle does."""
    if start == PICKLE:
        raise DataError(f"{where}: {_PICKLED}")


def _listed(names: dict[str, str]) -> str:
    shown = [name if name.isprintable() and len(name) < 60 else quoted(name[:60]) for name in sorted(names)[:20]]
    return ", ".join(shown) + (", ..." if len(names) > 20 else "") if names else "no array"


def array_in(file: Path, member: str | None) -> FileRows:
    """Read the header of an array. Raises DataError where it isn't an array, is of Python objects, or is in Fortran order."""
    with unpacked(file, member) as stream:
        _check_pickle(stream.read(1), f"{file}: {member}" if member else str(file))
        stream.seek(0)
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"version {version} of NumPy's format is not for plain numbers")
        shape, fortran, dtype = read(stream)
        found = FileRows(file, member, stream.tell(), dtype, shape)
    if dtype.hasobject:
        raise DataError(f"{found.where}: {_PICKLED}")
    if fortran and len(shape) > 1:
        raise DataError(f"{found.where}: is in Fortran order: save numpy.ascontiguousarray of it")
    return found


LAYOUT = DataLayout(
    "an .npz (x and y, ...), or an .npy with its labels.npy or --labels",
    has_arrays,
    open_arrays,
    opens_with=open_arrays_with,
)
