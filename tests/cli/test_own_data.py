"""A classifier of one's own, with images and classes of its own, from the card to the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import nets
from support.command import onnxnoise
from support.imaging import encoded, write, write_tar

from onnxnoise.results.reading import open_run_file

QUICK = ("--snr", "10,3", "--draws", "2", "--provider", "cpu", "--json", "-")
OWN = '[input]\ndataset = "colors"\nclasses = 10\nsize = 32\nscale = 255\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    nets.bench_files(tmp_path)
    (tmp_path / "own.toml").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pictures() -> tuple[list[bytes], list[int]]:
    """The records of `test_batch.bin` as PNG files, and their labels."""
    content = np.frombuffer(Path("test_batch.bin").read_bytes(), np.uint8).reshape(-1, 3073)
    pixels = content[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return [encoded(np.ascontiguousarray(each), "PNG") for each in pixels], content[:, 0].tolist()


@pytest.mark.parametrize("layout", ["list", "webdataset", "npz"])
def test_the_same_pixels_in_another_layout_have_the_same_hits(layout: str, folder: Path) -> None:
    files, labels = pictures()
    names = [f"{i:02}.png" for i in range(len(files))]
    if layout == "list":
        lines = "".join(f"{name} {label}\n" for name, label in zip(names, labels, strict=True))
        write(folder / "own", dict(zip(names, files, strict=True)) | {"val.txt": lines.encode()})
    elif layout == "webdataset":
        pairs = [(f"{i:02}.cls", str(label).encode()) for i, label in enumerate(labels)]
        write_tar(
            folder / "own",
            dict(pair for pairs in zip(zip(names, files, strict=True), pairs, strict=True) for pair in pairs),
        )
    else:
        np.savez(folder / "own.npz", x=nets.pictures(len(labels)), y=labels)
        (folder / "own.npz").rename(folder / "own")
    expected = onnxnoise("bench", "tiny.onnx", "--data", "test_batch.bin", *QUICK).json
    result = onnxnoise("bench", "tiny.onnx", "--card", "own.toml", "--data", "own", "--out", "own.sqlite", *QUICK).json
    assert result["dataset"]["name"] == "colors"
    assert (result["clean"], result["cells"]) == (expected["clean"], expected["cells"])
    assert open_run_file("own.sqlite").classes == 10
    shown = onnxnoise("cards", "show", "own.toml").out
    assert "input.classes" in shown


def test_another_number_of_classes_than_the_model_s_is_told(folder: Path) -> None:
    (folder / "own.toml").write_text(OWN.replace("10", "12"))
    outcome = onnxnoise("cards", "check", "tiny.onnx", "--card", "own.toml")
    assert outcome.code == 1
    assert "colors, 12 classes; correct classes or label_offset in [input]" in outcome.out


@pytest.mark.parametrize(
    ("classes", "said"),
    [(9, "one more, probably a background class"), (11, "one less; is one of the data's a background")],
)
def test_one_class_more_or_less_is_named(classes: int, said: str, folder: Path) -> None:
    (folder / "own.toml").write_text(OWN.replace("10", str(classes)))
    assert said in onnxnoise("cards", "check", "tiny.onnx", "--card", "own.toml").out
    files, labels = pictures()
    write(folder / "own", {f"{label}/{i}.png": files[i] for i, label in enumerate(labels)})
    found = len({*labels})
    (folder / "own.toml").write_text(OWN.replace("10", str(found + 1)))
    outcome = onnxnoise("bench", "tiny.onnx", "--card", "own.toml", "--data", "own", *QUICK)
    assert outcome.code == 3
    assert "is one of the classes a background class?" in outcome.error


def test_class_folders_of_37_classes(folder: Path) -> None:
    values = nets.balanced(nets.weights(classes=37), nets.pictures(40))
    nets.saved(nets.residual(values))
    pixels = nets.pictures(40)
    labels = nets.labelled(nets.residual(values), nets.as_input(pixels))
    names = [f"breed {label:02}" for label in range(37)]
    write(folder / "pets", {f"{names[k]}/{i}.png": encoded(pixels[i], "PNG") for i, k in enumerate(labels)})
    (folder / "classes.txt").write_text("\n".join(names))
    (folder / "own.toml").write_text('[input]\ndataset = "pets"\nclasses = "classes.txt"\nsize = 32\n')
    result = onnxnoise("bench", "tiny.onnx", "--card", "own.toml", "--data", "pets", "--out", "own.sqlite", *QUICK).json
    truth = nets.hits(nets.graphs.run(nets.residual(values), nets.as_input(pixels)), labels, 1)
    assert (result["clean"]["images"], result["clean"]["top1_hits"]) == (40, sum(truth))
    assert open_run_file("own.sqlite").classes == 37
