"""The places of a model's external tensors: beside the file as it is given, or beside the file that it links to."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx

from onnxnoise.errors import ModelError
from onnxnoise.model.protobuf import all_tensors

_TYPED_DATA = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_KEYS = frozenset(("location", "offset", "length", "checksum", "basepath"))


@dataclass(frozen=True)
class Folders:
    """The folders in which a model's data may lie: that of the path as given, and that of the file it links to.

    They differ in the cache of Hugging Face, where a model and its data are links to blobs. `home` holds both.
    """

    given: Path
    real: Path

    @classmethod
    def of(cls, path: Path) -> Folders:
        return cls(path.parent.resolve(), path.resolve().parent)

    @property
    def home(self) -> Path:
        return self.real if self.given == self.real else Path(os.path.commonpath((self.given, self.real)))

    def hold(self, file: Path) -> bool:
        """Whether a file, links followed, lies in one of the two."""
        return file.is_relative_to(self.given) or file.is_relative_to(self.real)


def external_files(stub: onnx.ModelProto, path: Path) -> list[Path]:
    """The data files of the model at `path` in the order of their names, without `path` itself.

    Checks each tensor's place and size, and makes its location relative to `Folders.home`, in place. Raises ModelError.
    """
    folders, own = Folders.of(path), path.resolve()
    files: dict[str, Path] = {}
    digests: dict[Path, str] = {}
    for tensor in all_tensors(stub):
        size = _byte_size(tensor)
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            if size and len(tensor.raw_data) != size and not any(getattr(tensor, field) for field in _TYPED_DATA):
                raise ModelError(
                    f"{path}: tensor {tensor.name!r} of shape {list(tensor.dims)} has {len(tensor.raw_data):,} bytes, "
                    f"not {size:,}; the file is broken, export it again"
                )
            continue
        location, file = _located(tensor, path, folders)
        _check_sum(tensor, file, path, digests)
        if file != own:
            files[location] = file
        if folders.given != folders.real:
            entry = next(entry for entry in tensor.external_data if entry.key == "location")
            entry.value = file.relative_to(folders.home).as_posix()
    return [files[name] for name in sorted(files)]


def _check_sum(tensor: onnx.TensorProto, file: Path, path: Path, digests: dict[Path, str]) -> None:
    """Raise ModelError where a tensor names a SHA-1 that its data file doesn't have; `digests` keeps those of files."""
    named = next((entry.value for entry in tensor.external_data if entry.key == "checksum" and entry.value), None)
    if named is None:
        return
    if file not in digests:
        with file.open("rb") as data:
            digests[file] = hashlib.file_digest(data, "sha1").hexdigest()
    if digests[file] != named.lower():
        raise ModelError(
            f"{path}: tensor {tensor.name!r} wants a data file of SHA-1 {named[:60]}, but {file.name!r} has {digests[file]}; "
            "the data file is damaged or from another export: copy both files again"
        )


def _byte_size(tensor: onnx.TensorProto) -> int:
    """Bytes that the tensor's shape and type ask for; 0 where these don't fix it (strings, types below a byte)."""
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:  # a type newer than onnx: ONNX Runtime will say what it thinks of it
        return 0
    return prod(tensor.dims) * dtype.itemsize if dtype.isbuiltin == 1 and dtype.kind != "O" else 0


def _located(tensor: onnx.TensorProto, path: Path, folders: Folders) -> tuple[str, Path]:
    """(name, file) of an external tensor's data; raises ModelError unless it lies in one of `folders` and is long enough."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    where = f"{path}: tensor {tensor.name!r}"
    try:
        places = [(folder / location).resolve() for folder in (folders.home, folders.given, folders.real)]
        file = next((place for place in places if folders.hold(place) and place.is_file()), places[1])
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
        found = file.stat().st_size if file.is_file() else None
    except ValueError:  # a null byte in the name, or a number that is none
        raise ModelError(f"{where} has a broken reference to its data, {location!r}; export it again") from None
    if not location or Path(location).is_absolute() or not folders.hold(file):
        raise ModelError(
            f"{where} wants its data from {location!r}, outside the model's folder; "
            "this is refused: put the data file beside the model and export again"
        )
    if found is None:
        raise ModelError(
            f"{where} has its data in {location!r}, which is missing; copy that file beside the model (exporters write it there)"
        )
    unknown = sorted(key for key in entries if key not in _KEYS and not key.startswith("prepacked"))
    if unknown or len(entries) < len(tensor.external_data):
        raise ModelError(
            f"{where} has {'an unknown key ' + repr(unknown[0]) if unknown else 'one key twice'} in the reference to its data; "
            "the file is broken, export it again"
        )
    size = _byte_size(tensor)
    if size and "offset" not in entries and size < found:
        raise ModelError(
            f"{where} takes {size:,} of the {found:,} bytes of {location!r}, but does not say from which on (no offset); "
            "export it again"
        )
    if size and length and length != size:
        raise ModelError(
            f"{where} of shape {list(tensor.dims)} takes {size:,} bytes, but refers to {length:,}; "
            "the file is broken, export it again"
        )
    if offset < 0 or length < 0 or offset + max(length, size) > found:
        raise ModelError(
            f"{where} needs bytes {offset:,} to {offset + max(length, size):,} of {location!r}, "
            f"which has {found:,}; the data file is cut short or from another export"
        )
    return location, file
