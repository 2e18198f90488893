"""An ONNX file's graph without its payload: large tensors stay on disk and are named by file, offset and length."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message

from onnxnoise import formats
from onnxnoise.errors import ModelError
from onnxnoise.files import open_file
from onnxnoise.model.stub import model_stub
from onnxnoise.runtime.protos import nested, subgraphs

_TYPED_DATA = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


@dataclass(frozen=True)
class ModelFile:
    """`stub` is the file's ModelProto; initializers above INLINE_BYTES are external data relative to `folder`.

    `path` is as given, `folder` where the file really lies. `sha256` is the file's own digest; where it has external data,
    the digest of that followed by the data files' (in name order).
    """

    path: Path
    folder: Path
    sha256: str
    stub: onnx.ModelProto


def read_model(path: Path) -> ModelFile:
    """Read the graph of the ONNX file at `path`; raises ModelError if it isn't an ONNX file, is cut short, or lacks its data."""
    try:
        with open_file(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            digest = hashlib.sha256(data)
            encoded = model_stub(data, path.resolve().name)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except IsADirectoryError:
        known = formats.mistaken(path, formats.ONNX.name)
        raise ModelError(f"{path}: {known or 'is a folder; name the .onnx file in it'}") from None
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror or error}") from error
    except ValueError as error:  # mmap of an empty file, or MalformedError
        raise ModelError(f"{path}: {_not_onnx(path, str(error))}") from None
    stub = onnx.ModelProto()
    try:
        stub.ParseFromString(encoded)
    except (DecodeError, RuntimeError) as error:
        raise ModelError(f"{path}: {_not_onnx(path, str(error))}") from None
    _unify_domain(stub)
    for part, found in (("graph", stub.graph.node), ("IR version", stub.ir_version), ("opset", stub.opset_import)):
        if not found:
            raise ModelError(f"{path}: {_not_onnx(path, f'it has no {part}')}")
    if not _is_text(stub):
        raise ModelError(f"{path}: {_not_onnx(path, 'a name in it is not UTF-8')}")
    folder = path.resolve().parent
    for data_file in _external_files(stub, path):
        with open_file(data_file) as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return ModelFile(path, folder, digest.hexdigest(), stub)


def _not_onnx(path: Path, detail: str) -> str:
    known = formats.mistaken(path, formats.ONNX.name, besides=(formats.EMPTY,), by_ending=True)
    return known or f"not an ONNX file, or cut short ({detail}); export or copy it again"


def _is_text(message: Message) -> bool:
    """Whether every string of a message is text: protobuf hands out bytes where a string isn't valid UTF-8."""
    for field, value in message.ListFields():
        values = [value] if isinstance(value, str | bytes | Message) else value
        if field.type == field.TYPE_STRING and not all(isinstance(each, str) for each in values):
            return False
        if field.type == field.TYPE_MESSAGE and not all(_is_text(each) for each in values):
            return False
    return True


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, then the graphs in its nodes' attributes at any depth."""
    yield graph
    for node in nested(graph.node):
        yield from subgraphs(node)


def read_names(graph: onnx.GraphProto) -> set[str]:
    """The names that nodes of a graph or of its subgraphs read, and the names of these graphs' outputs."""
    inner = list(graphs(graph))
    return {name for each in inner for node in each.node for name in node.input if name} | {
        info.name for each in inner for info in each.output
    }


def all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node of a model, those in subgraphs and functions too."""
    yield from nested(model.graph.node)
    for function in model.functions:
        yield from nested(function.node)


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: initializers, subgraphs' too, and attributes such as a Constant's value."""
    for graph in graphs(model.graph):
        yield from graph.initializer
    for node in all_nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _external_files(stub: onnx.ModelProto, path: Path) -> list[Path]:
    """The data files beside `path` in name order, each tensor's place and size checked; without `path` itself."""
    files: dict[str, Path] = {}
    for tensor in all_tensors(stub):
        size = _byte_size(tensor)
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            if size and len(tensor.raw_data) != size and not any(getattr(tensor, field) for field in _TYPED_DATA):
                raise ModelError(
                    f"{path}: tensor {tensor.name!r} of shape {list(tensor.dims)} has {len(tensor.raw_data):,} bytes, "
                    f"not {size:,}; the file is broken, export it again"
                )
            continue
        location, file = _located(tensor, path)
        if file != path.resolve():
            files[location] = file
    return [files[name] for name in sorted(files)]


def _byte_size(tensor: onnx.TensorProto) -> int:
    """Bytes that the tensor's shape and type ask for; 0 where these don't fix it (strings, types below a byte)."""
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:  # a type newer than onnx: ONNX Runtime will say what it thinks of it
        return 0
    return prod(tensor.dims) * dtype.itemsize if dtype.isbuiltin == 1 and dtype.kind != "O" else 0


def _located(tensor: onnx.TensorProto, path: Path) -> tuple[str, Path]:
    """(name, file) of an external tensor's data; raises ModelError unless it lies in the model's folder and is long enough."""
    folder = path.resolve().parent
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    where = f"{path}: tensor {tensor.name!r}"
    try:
        file = (folder / location).resolve()
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
        found = file.stat().st_size if file.is_file() else None
    except ValueError:  # a null byte in the name, or a number that is none
        raise ModelError(f"{where} has a broken reference to its data, {location!r}; export it again") from None
    if not location or Path(location).is_absolute() or not file.is_relative_to(folder):
        raise ModelError(
            f"{where} wants its data from {location!r}, outside the model's folder; "
            "this is refused: put the data file beside the model and export again"
        )
    if found is None:
        raise ModelError(
            f"{where} has its data in {location!r}, which is missing; copy that file beside the model (exporters write it there)"
        )
    size = _byte_size(tensor)
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


def _unify_domain(stub: onnx.ModelProto) -> None:
    """Spell ONNX's own domain as the empty string everywhere, in place; a file of IR 1 or 2 that names no opset has the first."""
    for holder in (stub, *stub.functions):
        named = [each for each in holder.opset_import if each.domain == "ai.onnx"]
        for each in named:
            if any(not other.domain for other in holder.opset_import):
                holder.opset_import.remove(each)
            else:
                each.domain = ""
    if not stub.opset_import and 0 < stub.ir_version < 3:
        stub.opset_import.add(domain="", version=1)
    for node in all_nodes(stub):
        if node.domain == "ai.onnx":
            node.domain = ""
