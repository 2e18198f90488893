"""Finds and reads CIFAR's test part in any of its official forms: a file, a folder, an archive, records or a pickle."""

from __future__ import annotations

import gzip
import itertools
import tarfile
import zlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from onnxnoise.data.datasets import CIFAR10, CIFAR100
from onnxnoise.data.sources.cifar.pickles import unpickle
from onnxnoise.data.sources.files import GZIP, PICKLE, check_download, first_unpacked
from onnxnoise.errors import DataError
from onnxnoise.files import first_bytes, open_file

SIDE = 32
IMAGE_BYTES = 3 * SIDE * SIDE
MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class Form:
    """The form of one of the two sets. A record has the label bytes (the last is the class), then 3 planes 32 x 32.

    `label_counts` are the numbers of labels, `label_keys` the pickle's names for them; `files` are the names of the test part
    in the two official versions, which come in one of `folders` or `archives`.
    """

    title: str
    label_counts: tuple[int, ...]
    label_keys: tuple[str, ...]
    files: tuple[str, ...]
    folders: tuple[str, ...]
    archives: tuple[str, ...]

    @property
    def record_bytes(self) -> int:
        return len(self.label_counts) + IMAGE_BYTES


FORMS = {
    CIFAR10.name: Form(
        title="CIFAR-10",
        label_counts=(CIFAR10.classes,),
        label_keys=("labels",),
        files=("test_batch.bin", "test_batch"),
        folders=("cifar-10-batches-bin", "cifar-10-batches-py"),
        archives=("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
    ),
    CIFAR100.name: Form(
        title="CIFAR-100",
        label_counts=(20, CIFAR100.classes),
        label_keys=("coarse_labels", "fine_labels"),
        files=("test.bin", "test"),
        folders=("cifar-100-binary", "cifar-100-python"),
        archives=("cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"),
    ),
}


_OFFICIAL = {file for form in FORMS.values() for file in form.files}


def looks_like(file: Path, form: Form) -> bool:
    """Whether a file is called as one of either CIFAR, or begins like records, a pickle or an archive of `form`.

    Records have no mark of their own: theirs is a first byte that is a label.
    """
    if file.name.removesuffix(".gz") in _OFFICIAL:
        return True
    head = first_unpacked(file, 512)
    if head[257:262] == b"ustar":
        return first_bytes(file, 2) == GZIP or _is_test_part_in(file)
    return head.startswith(PICKLE) or (head != b"" and head[0] < form.label_counts[0])


def find_test_file(folder: Path, form: Form) -> Path | None:
    """The file or archive in a folder that has the test part, None where there is none."""
    names = [*form.files, *(f"{file}.gz" for file in form.files)]
    places = [folder, *(folder / inner for inner in form.folders)]
    candidates = [*(place / name for place in places for name in names), *(folder / name for name in form.archives)]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def expected(form: Form) -> str:
    """The names under which the test part is looked for in a folder, for a person."""
    return ", ".join([*form.files, *(f"{inner}/" for inner in form.folders), *form.archives])


def read_records(file: Path, form: Form) -> tuple[bytes, str]:
    """The records of the test part in a file or archive, and their place as a person reads it.

    Raises DataError for a file that can't be read or is damaged, for the other CIFAR, and for a pickle of something else.
    """
    content, origin = _content(file, form)
    if content.startswith(PICKLE):  # no label is that large: a pickle of protocol 2 or later
        content = _unpickled(content, origin, form)
    return content, origin


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _is_test_part_in(file: Path) -> bool:
    """Whether a test part is among the first members of a tar that is not compressed: the official ones have 8 at most."""
    try:
        with open_file(file) as raw, tarfile.open(fileobj=raw, mode="r:") as archive:
            return any(Path(member.name).name in _OFFICIAL for member in itertools.islice(archive, 16))
    except (OSError, EOFError, ValueError, OverflowError, RecursionError, tarfile.TarError):
        return False


def _content(file: Path, form: Form) -> tuple[bytes, str]:
    """The bytes of the test part, unpacked, and their place. Raises DataError where they are damaged or not there."""
    check_download(file)
    try:
        compressed = first_bytes(file, 2) == GZIP
        with open_file(file) as raw, gzip.open(raw) if compressed else nullcontext(raw) as stream:
            head = stream.read(512)
            if head[257:262] != b"ustar":
                return head + _limited(stream, str(file)), str(file)
        with open_file(file) as raw, tarfile.open(fileobj=raw) as archive:
            for member in archive:
                name = Path(member.name).name
                if name in form.files and (content := archive.extractfile(member)) is not None:
                    origin = f"{file}: {member.name}"
                    return _limited(content, origin), origin
                if any(name in other.files for other in FORMS.values() if other is not form):
                    raise DataError(f"{file}: holds {member.name}; the card asks for {form.title}")
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{file}: can't be read, or is damaged or truncated: {error}") from error
    raise DataError(f"{file}: the archive has no {' or '.join(form.files)}, the test part of {form.title}")


def _limited(stream: Readable, origin: str) -> bytes:
    content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise DataError(f"{origin}: more than {MAX_BYTES >> 20} MiB; this is no test part of CIFAR")
    return content


def _unpickled(content: bytes, origin: str, form: Form) -> bytes:
    """The records that the pickled test part stands for, as the binary version has them."""
    try:
        batch = unpickle(content)
    except DataError as error:
        raise DataError(f"{origin}: {error}") from error.__cause__
    found = ", ".join(sorted(batch))[:200]
    if "data" not in batch or form.label_keys[-1] not in batch:
        raise DataError(
            f"{origin}: the pickle has no 'data' and {form.label_keys[-1]!r} of {form.title} (found: {found})"
        )
    try:
        pixels = _numbers(batch, "data")
        if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != IMAGE_BYTES:
            raise ValueError(f"'data' is {pixels.dtype} {pixels.shape}, not uint8 (images, {IMAGE_BYTES})")
        batch = {key: np.zeros(len(pixels), np.int64) for key in form.label_keys} | batch
        columns = {key: _numbers(batch, key) for key in form.label_keys}
        for key, column in columns.items():
            if column.dtype.kind not in "iu" or column.shape != pixels.shape[:1]:
                raise ValueError(f"{key!r} is {column.dtype} {column.shape}, not {len(pixels)} integers, one an image")
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{origin}: {error}") from error
    # 255 is no label: where a number does not fit a byte, the check of the records still finds it.
    labels = [np.where((column < 0) | (column > 255), 255, column).astype(np.uint8) for column in columns.values()]
    return np.concatenate([np.stack(labels, axis=1), pixels], axis=1).tobytes()


def _numbers(batch: Mapping[str, Any], key: str) -> npt.NDArray[Any]:
    """An array of the batch, or a list of numbers as one; raises ValueError for a list of anything else."""
    value = batch[key]
    if isinstance(value, list | tuple | dict) and (other := {type(each) for each in value} - {int, float, bool}):
        raise ValueError(f"{key!r} holds {', '.join(sorted(each.__name__ for each in other))}, not numbers")
    return np.asarray(value)
