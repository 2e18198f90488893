"""An ONNX file's graph without its payload: large tensors stay on disk and are named by file, offset and length."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from onnxnoise.errors import ModelError

INLINE_BYTES = 1024
"""Tensors up to this size stay inside the stub."""

_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class ModelFile:
    """`stub` is the file's ModelProto; initializers above INLINE_BYTES are external data relative to `path.parent`.

    `sha256` is the file's own digest, followed by its external data files' (in name order) where it has any.
    """

    path: Path
    sha256: str
    stub: onnx.ModelProto


def read_model(path: Path) -> ModelFile:
    """Read the graph of the ONNX file at `path`; raises ModelError if it is none, is cut short, or lacks its data."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            digest = hashlib.sha256(data)
            encoded = _model_stub(data, path.name)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ModelError(f"{path}: is a folder; name the .onnx file in it") from None
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror or error}") from error
    except ValueError as error:  # mmap of an empty file, or _MalformedError
        raise ModelError(f"{path}: {_not_onnx(path, str(error))}") from None
    stub = onnx.ModelProto()
    try:
        stub.ParseFromString(encoded)
    except (DecodeError, RuntimeError) as error:
        raise ModelError(f"{path}: {_not_onnx(path, str(error))}") from None
    if not stub.graph.node or not stub.ir_version:
        raise ModelError(f"{path}: {_not_onnx(path, 'it has no graph')}")
    for data_file in _external_files(stub, path):
        with data_file.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return ModelFile(path, digest.hexdigest(), stub)


def _not_onnx(path: Path, detail: str) -> str:
    kinds = {
        ".h5": "Keras",
        ".keras": "Keras",
        ".pt": "PyTorch",
        ".pth": "PyTorch",
        ".tflite": "TFLite",
        ".npz": "NumPy",
    }
    kind = kinds.get(path.suffix.lower())
    if kind:
        return f"a {kind} file, not ONNX; export the model to ONNX first"
    return f"not an ONNX file, or cut short ({detail}); export or copy it again"


class _MalformedError(ValueError):
    pass


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _MalformedError(f"broken number at byte {at:,}")


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, field start, value start, value end) of each field between two offsets of a protobuf message."""
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        value = at
        if wire == _VARINT:
            _, at = _varint(data, at, end)
        elif wire == _BYTES:
            length, value = _varint(data, at, end)
            at = value + length
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise _MalformedError(f"unknown wire type {wire} at byte {start:,}")
        if at > end:
            raise _MalformedError(f"a field at byte {start:,} ends at {at:,}, past {end:,}")
        yield number, start, value, at


def _encoded_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _encoded_field(number: int, payload: bytes) -> bytes:
    return _encoded_varint(number << 3 | _BYTES) + _encoded_varint(len(payload)) + payload


def _model_stub(data: mmap.mmap, location: str) -> bytes:
    out = bytearray()
    for number, start, value, end in _fields(data, 0, len(data)):
        out += (
            _encoded_field(number, _graph_stub(data, value, end, location))
            if number == _MODEL_GRAPH
            else data[start:end]
        )
    return bytes(out)


def _graph_stub(data: mmap.mmap, at: int, end: int, location: str) -> bytes:
    out = bytearray()
    for number, start, value, stop in _fields(data, at, end):
        if number == _GRAPH_INITIALIZER and stop - value > INLINE_BYTES:
            out += _encoded_field(number, _tensor_stub(data, value, stop, location))
        else:
            out += data[start:stop]
    return bytes(out)


def _tensor_stub(data: mmap.mmap, at: int, end: int, location: str) -> bytes:
    out = bytearray()
    for number, start, value, stop in _fields(data, at, end):
        if number == _TENSOR_RAW_DATA and stop - value > INLINE_BYTES:
            reference = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
            for key, text in (("location", location), ("offset", value), ("length", stop - value)):
                reference.external_data.add(key=key, value=str(text))
            out += reference.SerializeToString()
        else:
            out += data[start:stop]
    return bytes(out)


def _external_files(stub: onnx.ModelProto, path: Path) -> list[Path]:
    """The data files beside `path` in name order, each tensor's place checked; without `path` itself."""
    folder = path.parent.resolve()
    files: dict[str, Path] = {}
    for tensor in stub.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        file = (folder / location).resolve()
        if not location or not file.is_relative_to(folder):
            raise ModelError(
                f"{path}: tensor {tensor.name!r} wants its data from {location!r}, outside the model's folder; "
                "this is refused: put the data file beside the model and export again"
            )
        if not file.is_file():
            raise ModelError(
                f"{path}: tensor {tensor.name!r} has its data in {location!r}, which is missing; "
                "copy that file beside the model (exporters write it there)"
            )
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
        except ValueError:
            raise ModelError(f"{path}: tensor {tensor.name!r} has a broken reference to {location!r}") from None
        if offset < 0 or length < 0 or offset + length > file.stat().st_size:
            raise ModelError(
                f"{path}: tensor {tensor.name!r} needs bytes {offset:,} to {offset + length:,} of {location!r}, "
                f"which has {file.stat().st_size:,}; the data file is cut short or from another export"
            )
        if file != path.resolve():
            files[location] = file
    return [files[name] for name in sorted(files)]
