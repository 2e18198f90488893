"""What can't be used is told in one line: what, where, what to do; with the right exit code, no traceback, nothing lost."""

from __future__ import annotations

import gzip
import os
import pickle
import resource
import sqlite3
import struct
import subprocess
import sys
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from support import nets, processes, schema
from support.command import Outcome, onnxnoise, refused

QUICK = ("--snr", "10", "--draws", "1", "--provider", "cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("good"))


@pytest.fixture
def folder(tmp_path: Path, files: nets.Files, monkeypatch: pytest.MonkeyPatch) -> Path:
    return nets.copied(files, tmp_path, monkeypatch)


def bench(*arguments: object, model: str = "tiny.onnx", data: str = "test_batch.bin") -> Outcome:
    return onnxnoise("bench", model, "--data", data, *QUICK, *arguments)


# Cards


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[input]\ndataset = 'cifar10'\nmeam = [0, 0, 0]\n", ("[input]", "'meam'", "did you mean mean")),
        ("[inputs]\ndataset = 'cifar10'\n", ("[inputs]", "did you mean input")),
        ("[input]\ndataset = 'cifar10'\nmean = 'dark'\n", ("[input]", "mean", "'dark'", "three numbers")),
        ("[input]\ndataset = 'cifar-10'\n", ("how large", "'cifar-10'", "did you mean cifar10?")),
        ("[input]\npreset = 'torchvision'\n", ("dataset is missing", "cifar10")),
        ("[input\n", ("not valid TOML", "line 1")),
        ("\x00\xff", ("not valid TOML",)),
        ('[input]\ndataset = "cifar10"\n"\\u001b[31m[red]" = 1\n', ("[input]", "[31m[red]")),
        ("[input]\ndataset = 'cifar10'\nsize = 64\n", ("32x32", "64x64", "[input]")),
        ("[input]\ndataset = 'cifar10'\nlayout = 'nhwc'\n", ("channels", "nhwc")),
        ("[input]\ndataset = 'cifar100'\n", ("test_batch.bin", "CIFAR-100")),
        ("[input]\ndataset = 'cifar10'\nlabel_offset = 1\n", ("10 classes", "label_offset of 1")),
        ("[input]\ndataset = 'cifar10'\n[measured]\nmetric = 'top1'\nclean = 89.5\n", ("[measured]", "clean", "0.895")),
    ],
)
def test_cards(content: str, words: tuple[str, ...], folder: Path) -> None:
    Path("tiny.toml").write_bytes(content.encode("latin-1"))
    refused(bench(), 3, *words)


def test_no_card(folder: Path) -> None:
    Path("tiny.toml").unlink()
    refused(bench(), 3, "tiny.onnx", "no card", "--card", "tiny.toml", "resnet20-cifar10")
    refused(bench("--card", "resnet20-cifar"), 3, "'resnet20-cifar'", "did you mean resnet20-cifar10")
    refused(bench("--card", "nothing.toml"), 3, "'nothing.toml'", "resnet20-cifar10")


def test_another_number_of_classes(folder: Path) -> None:
    nets.saved(nets.residual(nets.weights(classes=7)))
    refused(bench(), 3, "tiny.onnx", "7 classes", "10", "--data", "tiny.toml")


# Data


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch exploded",)


def large_png(width: int, height: int) -> bytes:
    """A PNG that says it is so large; its pixels are not there."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\x00" * 100))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("no images",)),
        (b"\x03" * 3073 * 4 + b"\x03" * 100, ("12392 bytes", "3073", "truncated")),
        (b"plain text, no records\n" * 1000, ("3073",)),
        (b"\x0b" * 3073, ("label 11", "0 to 9")),
        (pickle.dumps({"data": Bomb(), "labels": [1]}), ("posix.system",)),
        (pickle.dumps({"data": [1, 2]}), ("'data'", "labels")),
        (b"\x80\x04 no pickle", ("pickle",)),
        (gzip.compress(b"\x03" * 3073, mtime=0)[:-20], ("truncated",)),
        (b"\x1f\x8b no gzip", ("damaged",)),
    ],
)
def test_records(content: bytes, words: tuple[str, ...], folder: Path) -> None:
    Path("test_batch.bin").write_bytes(content)
    refused(bench(), 3, "test_batch.bin", *words)
    assert not Path("exploded").exists()


def test_places_of_data(folder: Path) -> None:
    refused(bench(data="nothing.bin"), 3, "nothing.bin", "no such file", "--data takes", "test_batch.bin")
    Path("empty").mkdir()
    refused(bench(data="empty"), 3, "empty", "the test part of CIFAR-10", "test_batch.bin", "an empty folder")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not an image", ("n01440764", "broken.JPEG")),
        (large_png(60_000, 60_000), ("n01440764", "broken.JPEG", "60000")),
        (large_png(64, 64), ("n01440764", "broken.JPEG")),
    ],
    ids=["text", "bomb", "truncated"],
)
def test_pictures(content: bytes, words: tuple[str, ...], folder: Path) -> None:
    nets.saved(nets.residual(nets.weights(classes=1000)))
    Path("tiny.toml").write_text("[input]\ndataset = 'imagenet'\nsize = 32\n")
    image = Path("val/n01440764/broken.JPEG")
    image.parent.mkdir(parents=True)
    image.write_bytes(content)
    refused(bench(data="val"), 3, *words)


# Run files


def test_run_file_of_another_run(folder: Path) -> None:
    assert bench("--out", "run.sqlite").code == 0
    before = Path("run.sqlite").read_bytes()
    for arguments, words in (
        (("--seed", "41"), ("seed", "40 there", "41 asked")),
        (("--bn", "affine"), ("bn", "group", "affine")),
        (("--sigma-scope", "layer"), ("sigma scope", "tensor", "layer")),
        (("--layers", "1-3"), ("layers", "1-5 there", "1-3 asked")),
    ):
        refused(bench("--out", "run.sqlite", *arguments), 3, "run.sqlite: holds a run with another", "--out", *words)
    Path("tiny.toml").write_text(nets.CARD + "mean = [0.5, 0.5, 0.4]\n")
    refused(bench("--out", "run.sqlite"), 3, "another preprocessing mean", "0.4")
    Path("tiny.toml").write_text(nets.CARD)
    Path("other.bin").write_bytes(Path("test_batch.bin").read_bytes()[3073:])
    refused(
        bench("--out", "run.sqlite", data="other.bin"),
        3,
        "another data (cifar10-test, digest ",
        "there, cifar10, digest ",
        "leave out --out",
    )
    nets.saved(nets.residual(nets.weights()))
    refused(bench("--out", "run.sqlite"), 3, "another model")
    assert Path("run.sqlite").read_bytes() == before


def newer() -> None:
    bench("--out", "spoilt")
    connection = sqlite3.connect("spoilt")
    connection.execute("PRAGMA user_version = 99")
    connection.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (newer, ("newer onnxnoise", "99", "upgrade")),
        (lambda: Path("spoilt").write_text("notes\n" * 300), ("not an onnxnoise run file",)),
        (lambda: Path("spoilt").mkdir(), ("is a folder",)),
        (lambda: Path("spoilt").symlink_to("missing/run.sqlite"), ("spoilt",)),
    ],
    ids=["newer", "text", "folder", "link to nowhere"],
)
def test_what_is_no_run_file(make: Callable[[], Any], words: tuple[str, ...], folder: Path) -> None:
    make()
    refused(bench("--out", "spoilt"), 3, "spoilt: ", "--out", *words)


@pytest.mark.parametrize(
    "place", ["tiny.toml/run.sqlite", "tiny.toml/deeper/run.sqlite", "/proc/run.sqlite", "tiny.onnx"]
)
def test_run_files_that_can_t_be_written(place: str, folder: Path) -> None:
    model = Path("tiny.onnx").read_bytes()
    refused(bench("--out", place), 3, place, "--out")
    assert Path("tiny.onnx").read_bytes() == model


def test_a_full_disk(folder: Path) -> None:
    """A limit on the size of files, which a process meets as it meets a full disk: in the middle of a write."""
    command = [
        "bench",
        "tiny.onnx",
        "--data",
        "test_batch.bin",
        "--out",
        "run.sqlite",
        "--draws",
        "20",
        "--snr",
        "10,5,2",
    ]
    full = subprocess.run(
        [sys.executable, "-m", "onnxnoise", *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    refused(Outcome(full.returncode, full.stdout, full.stderr), 3, "run.sqlite: ", "full", "is kept", "same command")
    kept = processes.tallies(Path("run.sqlite"))
    assert len(kept) > 1
    assert onnxnoise(*command).code == 0
    assert onnxnoise(*command[:4], "--out", "fresh.sqlite", *command[6:]).code == 0
    grown, fresh = (processes.tallies(Path(name)) for name in ("run.sqlite", "fresh.sqlite"))
    assert grown == fresh
    assert set(kept) < set(fresh)


# Names that would do something to a terminal


def test_hostile_names_reach_no_terminal(folder: Path) -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J[red]bold[/red]\u202egnp:smile:\n\rerror: fake"

    def rename(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name.startswith(("stem", "block", "head")):
                        names[i] = f"{hostile}{name}"
        for tensor in model.graph.initializer:
            tensor.name = f"{hostile}{tensor.name}"

    nets.changed(rename)
    Path("tiny.onnx").rename("\x1b[31mnet\x1b[0m.onnx")
    Path("tiny.toml").rename("\x1b[31mnet\x1b[0m.toml")
    outcome = bench("--out", "run.sqlite", "--json", "result.json", model="\x1b[31mnet\x1b[0m.onnx")
    assert outcome.code == 0
    seen = [*outcome.out.split("\n"), *outcome.err.split("\n")]
    assert not [line for line in seen for c in line if unicodedata.category(c) in ("Cc", "Cf", "Cs")]
    assert not [line for line in seen if line.startswith("error")]
    assert "[red]" in outcome.out, "markup is shown, not obeyed"
    listed = onnxnoise("layers", "\x1b[31mnet\x1b[0m.onnx", "--json", "-").json
    schema.layer_list(listed)
    assert listed["layers"][0]["initializers"][0]["name"] == f"{hostile}stem_weight"
    assert listed["model"]["name"] == "\x1b[31mnet\x1b[0m"
    refused(bench("--layers", hostile, model="\x1b[31mnet\x1b[0m.onnx"), 2, "matches no layer")
