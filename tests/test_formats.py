"""What is passed by mistake is named by its first bytes, with the remedy, wherever another file was wanted."""

from __future__ import annotations

import gzip
import io
import pickle
import sqlite3
import struct
import tarfile
import zipfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
from support import nets
from support.command import onnxnoise, refused
from support.imaging import records

from onnxnoise.formats import CARD, ONNX, RULES, mistaken, recognized

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"
HTML = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"


def zipped(names: Sequence[str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 50)
    return content.getvalue()


def tarred() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.onnx"))
    return content.getvalue()


def field(number: int, content: bytes | int) -> bytes:
    """A protobuf field: bytes, or a number below 128."""
    tag = number << 3 | (0 if isinstance(content, int) else 2)
    start = bytes([tag]) if tag < 128 else bytes([tag & 127 | 128, tag >> 7])
    return start + (bytes([content]) if isinstance(content, int) else bytes([len(content)]) + content)


def flatbuffer(identifier: bytes) -> bytes:
    return b"\x1c\0\0\0" + identifier + bytes(100)


MODELS = {
    "Git LFS pointer": (LFS, ("a Git LFS pointer", "git lfs pull")),
    "HTML page": (HTML, ("an HTML page", "resolve/")),
    "gzip": (gzip.compress(b"x"), ("packed with gzip", "unpack")),
    "xz": (b"\xfd7zXZ\0" + bytes(20), ("packed with xz", "unpack")),
    "zip": (zipped(["model.onnx"]), ("a zip archive", "unpack")),
    "tar": (tarred(), ("a tar archive", "unpack")),
    ".ort": (flatbuffer(b"ORTM"), ("(.ort)", "the ONNX file that it was made from")),
    ".tflite": (flatbuffer(b"TFL3"), ("a TFLite file", "tf2onnx.convert --tflite", "batch norms")),
    "ExecuTorch": (flatbuffer(b"ET12"), ("ExecuTorch", "torch.onnx.export")),
    "safetensors": (
        struct.pack("<Q", 60) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(60) + bytes(4),
        ("a safetensors file", "weights without a network", "torch.onnx.export", "batch norms"),
    ),
    "textproto": (b'ir_version: 8\ngraph {\n  node {\n    op_type: "Relu"', ("as text", "textproto", "onnx.save")),
    "onnx text": (
        b'<ir_version: 8, opset_import: ["" : 17]>\ng (float[N] x) => (float[N] y) {}',
        ("as text", "parser"),
    ),
    "TensorRT engine": (b"ftrt" + bytes(100), ("a TensorRT engine", "the ONNX file that it was made from")),
    "card": (nets.CARD.encode(), ("a model card", "--card")),
    "rules": (b'[[rule]]\nname = "a"\nsnr = 10\nmin = 0.5\n', ("a gate's rules", "--rules")),
    ".h5": (b"\x89HDF\r\n\x1a\n" + bytes(100), ("Keras file", "export_keras.py", "batch norms")),
    ".keras": (zipped(["metadata.json", "config.json", "model.weights.h5"]), ("Keras file", "export_keras.py")),
    ".pt": (
        zipped(["net/data.pkl", "net/version"]),
        ("a PyTorch file", "torch.onnx.export", "optimize=False", "batch norms"),
    ),
    ".pth, old": (
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.",
        ("a PyTorch file", "torch.onnx.export"),
    ),
    "pickle": (pickle.dumps({"a": 1}), ("a Python pickle", "export")),
    ".pt2": (
        zipped(["net/archive_format", "net/models/model.json"]),
        ("torch.export", "torch.export.load", "batch norms"),
    ),
    "saved_model.pb": (
        field(1, 1) + field(2, b"\x0a\x05serve"),
        ("a TensorFlow SavedModel", "--saved-model", "BatchNorm"),
    ),
    "frozen graph": (
        field(1, field(1, b"image") + field(2, b"Placeholder")),
        ("a frozen TensorFlow graph", "--graphdef"),
    ),
    ".mlmodel": (
        field(1, 4) + field(2, field(1, b"in")) + field(500, b"net"),
        ("a Core ML model", "export the network"),
    ),
    "Parquet": (b"PAR1" + bytes(100) + b"PAR1", ("a Parquet file", "go to --data", "pyarrow")),
    ".npz": (zipped(["x.npy", "y.npy"]), ("NumPy", "--data", "export it to ONNX")),
    ".npy": (b"\x93NUMPY\1\0", ("NumPy",)),
    "JSON": (b'{"schema": "onnxnoise/result/1"}', ("a JSON document",)),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(20), ("a single image", "--data")),
    "OpenVINO": (b'<?xml version="1.0"?>\n<net name="x" version="11">', ("OpenVINO", "the ONNX file")),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    nets.bench_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("content", "words"), MODELS.values(), ids=MODELS)
def test_instead_of_a_model(content: bytes, words: tuple[str, ...], folder: Path) -> None:
    Path("given.onnx").write_bytes(content)
    refused(onnxnoise("layers", "given.onnx"), 3, "given.onnx: is ", ", not an ONNX file: ", *words)


def test_a_run_file_instead_of_a_model(folder: Path) -> None:
    with closing(sqlite3.connect("given.onnx")) as connection:
        connection.execute("CREATE TABLE a (b)")
    refused(
        onnxnoise("layers", "given.onnx"), 3, "given.onnx: is an SQLite database, as run files are", "onnxnoise report"
    )


def test_folders_instead_of_a_model(folder: Path) -> None:
    for name, words in {
        "saved/saved_model.pb": ("a TensorFlow SavedModel", "--saved-model saved --output"),
        "net.mlpackage/Data/com.apple.CoreML/model.mlmodel": ("a Core ML model",),
        "hub/model.safetensors": ("Hugging Face", "optimum-cli export onnx"),
        "other/net.onnx": ("is a folder; name the .onnx file in it",),
    }.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")
        Path("hub").mkdir(exist_ok=True)
        Path("hub/config.json").write_text("{}")
        refused(onnxnoise("layers", name.split("/")[0]), 3, *words)


def test_endings_tell_where_bytes_don_t(tmp_path: Path) -> None:
    for name, found in {
        "a.mlmodel": "a Core ML model",
        "a.engine": "a TensorRT engine",
        "a.pth": "a PyTorch file",
    }.items():
        (tmp_path / name).write_bytes(b"\x01\x02\x03")
        assert found in str(mistaken(tmp_path / name, ONNX.name, by_ending=True))
        assert mistaken(tmp_path / name, ONNX.name) is None


@pytest.mark.parametrize(
    "kind", ["Git LFS pointer", "HTML page", "gzip", ".tflite", "safetensors", ".h5", "Parquet", ".pt"]
)
@pytest.mark.parametrize(("flag", "wanted"), [("--card", "a card"), ("--rules", "a rules file"), ("--data", "images")])
def test_instead_of_cards_rules_and_images(kind: str, flag: str, wanted: str, folder: Path) -> None:
    content, (name, *_) = MODELS[kind]
    Path("given.bin").write_bytes(content)
    command = ("gate", "tiny.onnx") if flag == "--rules" else ("bench", "tiny.onnx", "--data", "test_batch.bin")
    outcome = onnxnoise(*command, flag, "given.bin", "--provider", "cpu")
    if kind == "gzip" and flag == "--data":
        refused(outcome, 3, "given.bin: not recognized", "it is packed with gzip, not images: unpack it")
    elif kind == "Parquet" and flag == "--data":
        refused(outcome, 3, "given.bin: can't be read as Parquet, or is damaged or truncated")
    else:
        assert outcome.code == 3
        for word in ("given.bin: ", name, f", not {wanted}: "):
            assert word in outcome.error


def test_model_card_and_rules_in_each_other_s_place(folder: Path) -> None:
    Path("rules.toml").write_bytes(MODELS["rules"][0])
    bench = ("bench", "tiny.onnx", "--provider", "cpu", "--data")
    refused(onnxnoise(*bench, "test_batch.bin", "--card", "tiny.onnx"), 3, "tiny.onnx: is an ONNX file, not a card")
    refused(onnxnoise(*bench, "test_batch.bin", "--card", "rules.toml"), 3, "is a gate's rules, not a card", "--rules")
    refused(onnxnoise("gate", "tiny.onnx", "--rules", "tiny.onnx"), 3, "tiny.onnx: is an ONNX file, not a rules file")
    refused(onnxnoise("gate", "tiny.onnx", "--rules", "tiny.toml"), 3, "is a model card, not a rules file", "--card")
    assert "tiny.onnx: is an ONNX file, not images" in onnxnoise(*bench, "tiny.onnx").error
    assert "tiny.toml: not recognized as images" in onnxnoise(*bench, "tiny.toml").error
    assert "it is a model card, not images: pass it with --card" in onnxnoise(*bench, "tiny.toml").error


@pytest.mark.parametrize("name", ["test_batch.bin", "val.txt", "shard.tar", "x.npz", "val/n01440764/a.JPEG"])
def test_a_pointer_in_the_place_of_data_deeper_down(name: str, folder: Path) -> None:
    card = nets.CARD if "." in name and "val" not in name else '[input]\ndataset = "imagenet"\nsize = 32\n'
    nets.saved(nets.residual(nets.weights(classes=1000 if "imagenet" in card else 10)))
    Path("tiny.toml").write_text(card)
    path = Path("data") / name
    path.parent.mkdir(parents=True)
    path.write_bytes(LFS)
    given = path if name == "x.npz" else Path("data")
    outcome = onnxnoise("bench", "tiny.onnx", "--data", given, "--provider", "cpu", "--draws", "1", "--snr", "10")
    refused(outcome, 3, Path(name).name, "is a Git LFS pointer", "git lfs pull")


def test_what_is_right_is_not_taken_for_something_else(folder: Path) -> None:
    Path("rules.toml").write_bytes(MODELS["rules"][0])
    assert recognized(Path("tiny.onnx")) is ONNX
    assert recognized(Path("tiny.toml")) is CARD
    assert recognized(Path("rules.toml")) is RULES
    for seed in range(200):
        content = records(1, seed=seed)
        content[:, 0] = (8, 0)[seed % 2]
        content[:, 1:12] = (8, 0x0A, 0x12, 0)[seed % 4]
        Path("records.bin").write_bytes(content.tobytes())
        assert recognized(Path("records.bin")) is None
    onnx.save(nets.residual(nets.weights(), batch=1), "other")
    assert recognized(Path("other")) is ONNX
    np.save("x.npy", np.zeros(3))
    assert str(mistaken(Path("x.npy"), "images", besides=())).startswith("is a file of NumPy arrays")
