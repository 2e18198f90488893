"""Names what a file or folder is by its first bytes, where another was wanted, and says what to do about it."""

from __future__ import annotations

import contextlib
import mmap
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from onnxnoise.files import first_bytes, open_file
from onnxnoise.wire import MalformedError, fields

_HEAD, _TAIL = 4096, 1 << 16
_MOST_FIELDS, _HIGHEST_FIELD = 100_000, 5000


@dataclass(frozen=True)
class Format:
    """`name` has its article; `remedy` says what to do; where `model` is true, how to make an ONNX file of it."""

    name: str
    remedy: str
    model: bool = False


_TF2ONNX = (
    'python -c "import tf2onnx.optimizer.back_to_back_optimizer as b, tf2onnx.convert as c; '
    "b._func_map.pop(('Conv', 'BatchNormalization')); c.main()\""
)
"""tf2onnx without its rewrite that merges batch norms into convolutions, which has no flag."""

_TORCH = (
    'load the model in Python and make an ONNX file of it: torch.onnx.export(model.eval(), (images,), "model.onnx", dynamo=True, '
    "optimize=False), which keeps the batch norms"
)
_KERAS = "make an ONNX file of it with `python examples/export_keras.py FILE` (onnxnoise's repository), which keeps batch norms"
_SAVED_MODEL = f"make an ONNX file of it, batch norms kept: {_TF2ONNX} --saved-model FOLDER --output model.onnx"
_ORIGINAL = "pass the ONNX file that it was made from"

LFS = Format("a Git LFS pointer, which stands for a file that isn't here", "run `git lfs pull` in its repository")
HTML = Format(
    "an HTML page",
    "the download got a web page instead of the file: take its raw address (on Hugging Face resolve/ instead of blob/)",
)
EMPTY = Format("empty", "copy or download it again")
ONNX = Format("an ONNX file", "a model is the command's first argument")
RUN_FILE = Format(
    "an SQLite database, as run files are",
    "`onnxnoise show FILE` prints a run file again, and it goes to `onnxnoise report`, `compare` or `gate`",
)
CARD = Format("a model card", "pass it with --card, and the model's .onnx file first")
RULES = Format("a gate's rules", "pass them with --rules")
PARQUET = Format("a Parquet file", "images and labels in it go to --data, with pyarrow installed")
PARQUET_FOLDER = Format(
    "a folder of Parquet files, as Hugging Face stores data sets",
    "images and labels in them go to --data, with pyarrow installed",
)
NUMPY = Format(
    "a file of NumPy arrays", "arrays of images go to --data; weights alone hold no network: export it to ONNX"
)
SAFETENSORS = Format(
    "a safetensors file",
    "it holds weights without a network: load it into the model, then torch.onnx.export(model.eval(), (images,), "
    '"model.onnx", dynamo=True, optimize=False), which keeps the batch norms',
    model=True,
)
PYTORCH = Format("a PyTorch file", _TORCH, model=True)
PT2 = Format(
    "a program of torch.export (.pt2)",
    'make an ONNX file of it: torch.onnx.export(torch.export.load(FILE), f="model.onnx", dynamo=True, optimize=False), which '
    "keeps the batch norms",
    model=True,
)
KERAS = Format("a Keras file", _KERAS, model=True)
HDF5 = Format("an HDF5 file, as Keras writes them (a Keras file)", _KERAS, model=True)
TFLITE = Format(
    "a TFLite file",
    "TFLite has merged the batch norms already: make the ONNX file of the Keras model or SavedModel it came from "
    "(examples/export_keras.py keeps them), or, without batch norms, python -m tf2onnx.convert --tflite FILE --output model.onnx",
    model=True,
)
SAVED_MODEL = Format("a TensorFlow SavedModel", _SAVED_MODEL, model=True)
FROZEN = Format(
    "a frozen TensorFlow graph",
    f"make an ONNX file of it, batch norms kept: {_TF2ONNX} --graphdef FILE --inputs IMAGE:0 --outputs LOGITS:0 "
    "--output model.onnx",
    model=True,
)
CORE_ML = Format(
    "a Core ML model",
    f"Core ML has merged the batch norms: {_ORIGINAL}, or export the network it came from",
    model=True,
)
ORT = Format("a model in ONNX Runtime's own format (.ort)", _ORIGINAL, model=True)
TENSORRT = Format("a TensorRT engine", f"it runs on one kind of GPU and its weights are fused: {_ORIGINAL}", model=True)
EXECUTORCH = Format("an ExecuTorch program (.pte)", "export the network to ONNX instead: " + _TORCH, model=True)
TEXTPROTO = Format(
    "an ONNX model as text",
    "write it as bytes: python -c \"import onnx; onnx.save(onnx.load('FILE', format='textproto'), 'model.onnx')\"",
    model=True,
)
ONNX_TEXT = Format(
    "an ONNX model as text", "write it as bytes: onnx.save(onnx.parser.parse_model(text), 'model.onnx')", model=True
)
OPENVINO = Format("an OpenVINO model (.xml)", _ORIGINAL, model=True)
PICKLE = Format(
    "a Python pickle", "it is never loaded here; if a network is in it, load it where it was made and export it to ONNX"
)
GZIP = Format("packed with gzip", "unpack it (gunzip) and pass what was in it")
TAR = Format("a tar archive", "unpack it (tar -xf) and pass the file that was meant")
ZIP = Format("a zip archive", "unpack it and pass the file that was meant")
JSON = Format("a JSON document", "pass the file that it belongs to")
IMAGE = Format("a single image", "images go to --data, in class folders or with a list of their labels")
HF_FOLDER = Format(
    "a folder of a Hugging Face model without an ONNX file",
    "make one: `optimum-cli export onnx --model FOLDER onnx/`, or torch.onnx.export(..., dynamo=True, optimize=False), which "
    "keeps the batch norms",
    model=True,
)

_LFS_MARK = b"version https://git-lfs.github.com/spec/"
_PACKED = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
}
_MARKS: tuple[tuple[int, bytes, Format], ...] = (
    (0, _LFS_MARK, LFS),
    (0, b"\x1f\x8b", GZIP),
    (257, b"ustar", TAR),
    (0, b"SQLite format 3\0", RUN_FILE),
    (0, b"PAR1", PARQUET),
    (0, b"\x93NUMPY", NUMPY),
    (0, b"\x89HDF\r\n\x1a\n", HDF5),
    (4, b"TFL3", TFLITE),
    (4, b"ORTM", ORT),
    (4, b"ET12", EXECUTORCH),
    (0, b"ftrt", TENSORRT),
    (0, b"ptrt", TENSORRT),
    (0, b"\x89PNG\r\n", IMAGE),
    (0, b"\xff\xd8\xff", IMAGE),
    (0, b"GIF8", IMAGE),
)
_ZIPPED: tuple[tuple[bytes, Format], ...] = (
    (b"serialized_exported_program", PT2),
    (b"archive_format", PT2),
    (b"models/model.json", PT2),
    (b"model.weights.h5", KERAS),
    (b"/data.pkl", PYTORCH),
    (b"/constants.pkl", PYTORCH),
    (b".npy", NUMPY),
)
"""Names inside a zip, which stand in it as they are."""

_TORCH_LEGACY = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_BY_ENDING = {
    ".h5": HDF5,
    ".hdf5": HDF5,
    ".keras": KERAS,
    ".pt": PYTORCH,
    ".pth": PYTORCH,
    ".pt2": PT2,
    ".tflite": TFLITE,
    ".ort": ORT,
    ".safetensors": SAFETENSORS,
    ".mlmodel": CORE_ML,
    ".engine": TENSORRT,
    ".trt": TENSORRT,
    ".npz": NUMPY,
    ".npy": NUMPY,
    ".parquet": PARQUET,
    ".pte": EXECUTORCH,
}


def recognized(path: Path, *, by_ending: bool = False) -> Format | None:
    """The kind of a file or folder, None where it is unknown; with `by_ending` its name's ending tells where its bytes don't."""
    if path.is_dir():
        return _folder(path)
    head = first_bytes(path, _HEAD)
    if not head:
        return EMPTY if path.is_file() else None
    found = _by_mark(path, head) or _text(head) or _message(path, head)
    return found or (_BY_ENDING.get(path.suffix.lower()) if by_ending else None)


def mistaken(path: Path, wanted: str, *, besides: Collection[Format] = (), by_ending: bool = False) -> str | None:
    """The thing at a path and what to do, as the rest of a sentence about it; None where it is not known to be something else.

    `wanted` is what it should be, a Format's name or other words with their article; a Format of `besides` will do, too.
    """
    found = recognized(path, by_ending=by_ending)
    if found is None or found.name == wanted or found in besides:
        return None
    remedy = f"pass {wanted}" if found.model and wanted != ONNX.name else found.remedy
    folder = path if path.is_dir() else path.parent
    return f"is {found.name}, not {wanted}: {remedy.replace('FILE', str(path)).replace('FOLDER', str(folder))}"


def bad_download(head: bytes) -> str | None:
    """The thing that the first bytes of a download that went wrong are, and what to do; None for any others."""
    found = LFS if head.startswith(_LFS_MARK) else _text(head[:_HEAD])
    return f"is {found.name}: {found.remedy}" if found in (LFS, HTML) else None


def _by_mark(path: Path, head: bytes) -> Format | None:
    for at, mark, found in _MARKS:
        if head.startswith(mark, at):
            return found
    for mark, name in _PACKED.items():
        if head.startswith(mark):
            return Format(f"packed with {name}", "unpack it and pass what was in it")
    if head.startswith(b"PK\x03\x04"):
        names = head + _last_bytes(path)
        return next((found for part, found in _ZIPPED if part in names), _BY_ENDING.get(path.suffix.lower(), ZIP))
    if head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5":
        return PYTORCH if head[2:].startswith(_TORCH_LEGACY) or path.suffix in (".pt", ".pth") else PICKLE
    size = int.from_bytes(head[:8], "little")
    if head[8:10] == b'{"' and size < 1 << 32 and (b'"dtype"' in head or b'"__metadata__"' in head):
        return SAFETENSORS
    return None


def _text(head: bytes) -> Format | None:
    """The kind of a text."""
    text = head.decode("utf-8", "replace").removeprefix("\ufeff").lstrip()
    lowered = text[:200].lower()
    tests: tuple[tuple[Format, Callable[[], object]], ...] = (
        (HTML, lambda: lowered.startswith(("<!doctype html", "<html", "<head")) or "<html" in lowered),
        (OPENVINO, lambda: lowered.startswith(("<?xml", "<net")) and "<net " in text),
        (ONNX_TEXT, lambda: re.match(r"<\s*(?:ir_version|opset_import)\s*:", text)),
        (TEXTPROTO, lambda: re.match(r"(?:#[^\n]*\n\s*)*(?:ir_version|producer_name|opset_import|graph)\s*[:{]", text)),
        (RULES, lambda: re.search(r"^\s*\[\[rule\]\]", text, re.MULTILINE)),
        (CARD, lambda: re.search(r"^\s*\[(?:input|structure|published|measured)\]\s*(?:#.*)?$", text, re.MULTILINE)),
        (JSON, lambda: text.startswith("{") and "\ufffd" not in text[:100] and re.match(r'\{\s*"', text)),
    )
    return next((found for found, holds in tests if holds()), None)


def _message(path: Path, head: bytes) -> Format | None:
    """The kind of a protobuf message, by the numbers and first bytes of its fields; None unless all of the file is one."""
    if head[0] not in (0x08, 0x0A, 0x12, 0x3A):
        return None
    values: dict[int, bytes] = {}
    with (
        contextlib.suppress(OSError, ValueError, MalformedError),
        open_file(path) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        for count, (number, start, value, _) in enumerate(fields(data, 0, len(data))):
            values.setdefault(number, data[start : value + 16])
            if count > _MOST_FIELDS or number > _HIGHEST_FIELD:
                return None
        return _of_fields(values)
    return None


def _of_fields(values: dict[int, bytes]) -> Format | None:
    numbers, first = set(values), values.get(1, b"")
    if first[:1] == b"\x08":
        if 7 in numbers and numbers <= {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}:
            return ONNX
        if numbers <= {1, 2} and 2 in numbers and first[:2] == b"\x08\x01":
            return SAVED_MODEL
        if 2 in numbers and any(200 <= number < 3000 for number in numbers):
            return CORE_ML
    if first[:1] == b"\x0a" and numbers <= {1, 2, 3, 4, 5} and first[2:3] == b"\x0a":
        return FROZEN
    return None


def _folder(path: Path) -> Format | None:
    if (path / "saved_model.pb").is_file():
        return SAVED_MODEL
    if (path / "Data" / "com.apple.CoreML").is_dir():
        return CORE_ML
    with contextlib.suppress(OSError):
        if any(next(path.glob(each), None) for each in ("*.parquet", "data/*.parquet")):
            return PARQUET_FOLDER
        weights = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")
        if (path / "config.json").is_file() and any((path / name).is_file() for name in weights):
            return HF_FOLDER
    return None


def _last_bytes(path: Path) -> bytes:
    with contextlib.suppress(OSError), open_file(path) as file:
        file.seek(max(0, file.seek(0, 2) - _TAIL))
        return file.read(_TAIL)
    return b""
