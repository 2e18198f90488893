"""Data that a program or a user's own function gives: the hits are those of the same arrays in a file, with workers too."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import nets, processes
from support.command import onnxnoise, refused

from onnxnoise import BenchSpec, bench
from onnxnoise.data.cards import load_card
from onnxnoise.data.dealing import dealt
from onnxnoise.data.images import open_images
from onnxnoise.data.sources import pairs
from onnxnoise.errors import DataError, UsageError
from onnxnoise.records import Result
from onnxnoise.run.runner import bench as run
from onnxnoise.spec import OwnData

CODE = """
import time
from pathlib import Path
import numpy as np
import beside

def images():
    for pixels, label in zip(np.load("x.npy"), np.load("y.npy")):
        yield pixels, label

def listed():
    return [(pixels, int(label)) for pixels, label in images()]

def damaged():
    yield from list(images())[:5]
    raise RuntimeError("no more")

def wrong():
    return [(np.zeros((32, 32, 3)), 0), "x"]

def endless():
    print("begins")
    try:
        while True:
            yield from images()
    finally:
        print("ends")

def asleep():
    calls.append(0)
    for number, pair in enumerate(images()):
        if len(calls) == 3 and number == 12:  # the first call is for the digest, the second for the probe
            Path("asleep").touch()
            time.sleep(1000)
        yield pair

def number():
    return 3

calls = []

def shuffled():
    calls.append(0)
    return list(images())[:: -1 if len(calls) > 1 else 1]

nothing = 3
"""
QUICK: dict[str, Any] = {"snrs": (10.0,), "draws": 2, "sweeps": ("all",), "provider": "cpu"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = nets.bench_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text('[input]\ndataset = "colors"\nclasses = 10\nsize = 32\nscale = 255\n')
    np.save("x.npy", nets.pictures(40))
    np.save("y.npy", files.labels)
    np.savez("both.npz", x=nets.pictures(40), y=files.labels)
    Path("own.py").write_text(CODE)
    Path("beside.py").write_text("")
    return tmp_path


def hits(data: Any, **more: Any) -> Result:
    return run(BenchSpec("tiny.onnx", card="own.toml", data=data, **{**QUICK, **more}))


class Set:
    """A data set as PyTorch has them: a length, items by number, and no end of its own."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        return nets.pictures(40)[number % 40], np.load("y.npy")[number % 40]


def test_arrays_and_collections_in_python_have_the_hits_of_a_file(folder: Path) -> None:
    x, y = nets.pictures(40), np.load("y.npy")
    expected = hits("both.npz", out="a.sqlite")
    arrays = hits((x, y), out="a.sqlite")  # the same digest: the run file goes on
    assert arrays.dataset == expected.dataset
    pairs = list(zip(x, y, strict=True))
    for number, data in enumerate(((x, np.eye(10)[y]), pairs, Set())):
        result = hits(data, out=f"b{number}.sqlite")
        assert (result.clean, result.cells) == (expected.clean, expected.cells)
    floats = (x / 255).astype(np.float32).transpose(0, 3, 1, 2)
    Path("own.toml").write_text('[input]\ndataset = "colors"\nclasses = 10\nsize = 32\nscale = 1\n')
    result = hits(list(zip(floats, y, strict=True)), out="c.sqlite")
    assert (result.clean, result.cells) == (expected.clean, expected.cells)
    assert result.runs[0]["spec"]["data"] == "data given in Python"  # type: ignore[index]


def test_images_of_a_collection_are_looked_up_those_of_an_iterable_read_from_the_first(folder: Path) -> None:
    """Which images are read, for ranges that go on, jump ahead and go back, and dealt in a random order."""
    x, y = nets.pictures(40), np.load("y.npy")
    seen: list[int] = []

    class Listed(Set):
        def __getitem__(self, number: int) -> tuple[Any, Any]:
            seen.append(number)
            return x[number], y[number]

    class Iterated:
        def __len__(self) -> int:
            return 40

        def __iter__(self) -> Iterator[tuple[Any, Any]]:
            for number in range(40):
                seen.append(number)
                yield x[number], y[number]

    ranges = [range(30, 33), range(33, 34), range(37, 39), range(4, 6)]
    asked = [position for each in ranges for position in each]
    for data, in_order, expected in ((Listed(), False, asked), (Iterated(), True, [*range(39), *range(6)])):
        source = open_images(OwnData(data), load_card(Path("own.toml")))
        assert (source.in_order, seen) == (in_order, list(range(40)))
        seen.clear()
        chunks = list(source.chunks(ranges, threads=2))
        np.testing.assert_array_equal(np.concatenate([chunk.pixels for chunk in chunks]), x[asked])
        assert seen == expected
        seen.clear()
        mixed = dealt(source, 40, 3)
        (chunk,) = mixed.chunks([range(8)], threads=2)
        np.testing.assert_array_equal(chunk.pixels, x[mixed.positions[:8]])
        highest = int(mixed.positions[:8].max())
        assert seen == (list(range(highest + 1)) if in_order else sorted(mixed.positions[:8]))
        seen.clear()


@pytest.mark.parametrize(
    ("data", "kind", "expected"),
    [
        (lambda x, y: (x, y[:-1]), DataError, r"data: y: is int64 \(39,\); the labels of 40 images must be \(40,\)"),
        (lambda x, y: (x, y + 1), DataError, r"data: y: image \d+ has label 10; those of colors are 0 to 9"),
        (lambda x, y: (np.array([None, 1]), y), DataError, "data: x is no array of numbers, but object"),
        (lambda x, y: ([[1], [1, 2]], y), DataError, "data: x can't be an array"),
        (lambda x, y: zip(x, y, strict=True), UsageError, "data is a zip: give a path, a tuple of two arrays"),
        (lambda x, y: [(x, y)], DataError, r"data: image 0: its label must be a whole number.*not in batches"),
        (lambda x, y: [(x[0], 1), (x[1][:0], 1)], DataError, r"data: image 1: is uint8 \(0, .*no pixel"),
        (lambda x, y: [(x[0], 1), (x[1], 1.5)], DataError, r"data: image 1: its label must be a whole number"),
        (lambda x, y: [(x[0], 1), (x[1, 0, 0], 1)], DataError, r"data: image 1: is uint8 \(3,\)"),
        (lambda x, y: [], DataError, "data: gives no images"),
        (lambda x, y: [(x[0], 1), (x[1], -1)], DataError, "image 1 has label -1"),
        (
            lambda x, y: x,
            DataError,
            "image 0: must be a pair .*, but is ndarray. Images without labels go with --labels clean",
        ),
    ],
)
def test_data_that_can_t_be_used(folder: Path, data: Any, kind: type[Exception], expected: str) -> None:
    with pytest.raises(kind, match=expected):
        hits(data(nets.pictures(40), np.load("y.npy")))


def test_workers_have_no_part_in_this_process_s_memory(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"the data is in this process alone; save it as an \.npz"):
        BenchSpec("tiny.onnx", data=(np.zeros((1, 2)), [0]), workers=2)
    assert bench is run


COMMAND = (
    "bench",
    "tiny.onnx",
    "--card",
    "own.toml",
    "--snr",
    "10",
    "--draws",
    "2",
    "--provider",
    "cpu",
    "--json",
    "-",
)


def test_a_function_of_one_s_own_with_workers_too(folder: Path) -> None:
    expected = onnxnoise(*COMMAND, "--data", "both.npz").json
    for name, more in (("images", ()), ("listed", ()), ("listed", ("--workers", "2"))):
        out = ("--out", f"{name}{len(more)}.sqlite")
        result = onnxnoise(*COMMAND, "--data", f"python:own.py:{name}", *more, *out).json
        assert (result["clean"], result["cells"]) == (expected["clean"], expected["cells"])
    digests = {onnxnoise(*COMMAND, "--data", "python:own.py:images").json["dataset"]["sha256"]}
    Path("own.py").write_text(CODE + "# more\n")
    digests.add(onnxnoise(*COMMAND, "--data", "python:own.py:images").json["dataset"]["sha256"])
    assert len(digests) == 2, "the digest is of the code too"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("python:own.py:image", ("own.py: image isn't there; did you mean images?", "images, listed")),
        ("python:own.py:nothing", ("own.py: nothing is no function",)),
        ("python:own.py", ("must be python:FILE.py:NAME",)),
        ("python:none.py:images", ("none.py: can't be read: No such file",)),
        ("python:own.py:damaged", ("own.py:damaged: image 5 raises RuntimeError: no more",)),
        ("python:own.py:wrong", ("own.py:wrong: image 1: must be a pair (image, label), but is str",)),
        ("python:own.py:number", ("own.py:number: gives no images, but int: yield pairs (image, label)",)),
        ("python:own.py:shuffled", ("image 0 is another one than the first time", "no shuffling")),
        ("python:broken.py:images", ("broken.py, line 2: raises SyntaxError when it is run",)),
    ],
)
def test_functions_that_can_t_be_used(folder: Path, data: str, words: tuple[str, ...]) -> None:
    Path("broken.py").write_text("\ndef images(:\n")
    Path("own.toml").write_text(Path("own.toml").read_text().replace("255", "1"))
    refused(onnxnoise(*COMMAND[:-2], "--data", data), 3, *words)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("python:large.py:images", r"^large\.py: has more than 1 MiB; .*in files beside it"),
        ("python:a\0b.py:images", "can't be read: embedded null byte"),
    ],
)
def test_a_file_that_is_too_large_or_has_no_possible_name_is_not_run(folder: Path, data: str, expected: str) -> None:
    """What is past the limit must not be cut off and the rest run."""
    Path("large.py").write_text(CODE + "#" * (1 << 20) + "\nraise RuntimeError\n")
    with pytest.raises(DataError, match=expected):
        hits(data)


def test_code_that_never_ends_is_read_no_further_than_it_must(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit its first images are the data; without, it is an error. What it prints is no part of the JSON."""
    first = onnxnoise(*COMMAND, "--data", "python:own.py:endless", "--limit", 12)
    assert first.code == 0, first.err
    assert first.json["dataset"]["images"] == 12
    assert first.json["clean"] == onnxnoise(*COMMAND, "--data", "both.npz", "--limit", 12).json["clean"]
    assert "begins\nends\nbegins\n" in first.err
    monkeypatch.setattr(pairs, "MOST_IMAGES", 100)
    refused(onnxnoise(*COMMAND[:-2], "--data", "python:own.py:endless"), 3, "gives more images than 100: does it end?")
    with_length = hits("python:own.py:listed", limit=12, out="run.sqlite")
    assert hits("python:own.py:listed", limit=20, out="run.sqlite").dataset["sha256"] == with_length.dataset["sha256"]


def test_ctrl_c_ends_a_run_whose_images_never_come(folder: Path) -> None:
    """The user's code sleeps in a thread that decodes ahead."""
    command = [*COMMAND[:-2], "--data", "python:own.py:asleep"]
    run = processes.started(command)
    processes.until(Path("asleep").exists)
    run.send_signal(signal.SIGINT)
    code, out, errors = processes.ended(run)
    assert (code, out) == (130, ""), errors
    assert errors.splitlines()[-1].startswith("error: interrupted; ")
