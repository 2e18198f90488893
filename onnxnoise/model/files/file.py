"""An ONNX file's graph without its payload: large tensors stay on disk and are named by file, offset and length."""

from __future__ import annotations

import hashlib
import mmap
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message

from onnxnoise import formats
from onnxnoise.errors import ModelError
from onnxnoise.files import open_file
from onnxnoise.model.files.external import Folders, external_files
from onnxnoise.model.files.stub import model_stub
from onnxnoise.model.files.wellformed import check_axes, check_unique
from onnxnoise.model.protobuf import all_nodes


@dataclass(frozen=True)
class ModelFile:
    """`stub` is the file's ModelProto; initializers above INLINE_BYTES are external data relative to `folder`.

    `path` is as given, `folder` holds all of its data. `sha256` is the file's own digest; where it has external data,
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
            encoded = model_stub(data, path.resolve().relative_to(Folders.of(path).home).as_posix())
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
    check_unique(stub, path)
    check_axes(stub, path)
    for data_file in external_files(stub, path):
        with open_file(data_file) as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return ModelFile(path, Folders.of(path).home, digest.hexdigest(), stub)


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
