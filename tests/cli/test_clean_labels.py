"""`--labels clean`: the clean model's own top-1 is the label, any pictures will do, and every output says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support import graphs, nets
from support.command import onnxnoise, refused
from support.imaging import encoded, write

COUNT = 24
QUICK = ("--snr", "3", "--draws", "2", "--provider", "cpu")
SAID = "agreement with the clean model"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nets.Files:
    found = nets.bench_files(tmp_path, COUNT)
    pictures = [encoded(each, "PNG") for each in nets.pictures(COUNT)]
    write(tmp_path / "flat", {f"{i:02}.png": picture for i, picture in enumerate(pictures)})
    shutil.copytree(tmp_path / "flat", tmp_path / "deep" / "a" / "b")
    np.save(tmp_path / "alone.npy", nets.pictures(COUNT))
    monkeypatch.chdir(tmp_path)
    return found


@pytest.mark.parametrize("data", ["flat", "deep", "alone.npy", "test_batch.bin"])
def test_the_hits_are_the_images_that_keep_the_clean_class(data: str, files: nets.Files) -> None:
    outcome = onnxnoise(
        "bench", "tiny.onnx", "--data", data, "--labels", "clean", *QUICK, "--sweep", "all", "--json", "-"
    )
    assert outcome.code == 0, outcome.err
    result = outcome.json
    clean = graphs.run(nets.residual(files.weights), files.inputs)
    own = clean.argmax(axis=1)
    (cell,) = result["cells"]
    for draw in cell["draws"]:
        layers = dict(enumerate(nets.LAYERS.values(), 1))
        noisy = graphs.run(nets.residual(floored(nets.noisy(files.weights, 3, draw["draw"], layers))), files.inputs)
        assert draw["top1_hits"] == sum(nets.hits(noisy, own, 1))
        assert draw["clean_top1_hits"] == COUNT
    assert result["dataset"]["labels"] == "clean"
    assert result["chance"]["top1"] == np.bincount(own).max() / COUNT
    assert "clean_labels" in [each["code"] for each in result["warnings"]]


def floored(values: nets.Weights) -> nets.Weights:
    """Negative variances stored as 0."""
    return {name: np.maximum(value, 0) if name.endswith("var") else value for name, value in values.items()}


def test_every_output_says_so(files: nets.Files) -> None:
    flat = ("--data", "flat", "--labels", "clean")
    told = onnxnoise("bench", "tiny.onnx", *flat, *QUICK, "--out", "run.sqlite")
    assert SAID in told.out
    assert "clean agreement: top-1 100.00%" in told.out
    Path("rules.toml").write_text('[bench]\nlabels = "clean"\n[[rule]]\nname = "any"\nsnr = 1000\nmin = 0.2\n')
    gate = onnxnoise("gate", "tiny.onnx", "--data", "flat", "--rules", "rules.toml", "--junit", "j.xml")
    assert gate.code in (0, 5), gate.err
    assert SAID in gate.out
    assert 'name="labels" value="clean"' in Path("j.xml").read_text()
    assert SAID in onnxnoise("margin", "tiny.onnx", *flat, "--draws", 2, "--range", "9,10").out
    assert SAID in onnxnoise("plan", "tiny.onnx", *flat, "--draws", 2, "--snr", 100, "--fresh-draws", 2).out
    onnxnoise("bench", "tiny.onnx", *flat, *QUICK, "--bn", "group", "--out", "other.sqlite")
    assert SAID in onnxnoise("compare", "run.sqlite", "other.sqlite").out
    assert onnxnoise("report", "run.sqlite", "-o", "r.html").code == 0
    assert SAID in Path("r.html").read_text("utf-8")


def test_another_run_file_is_another_run(files: nets.Files) -> None:
    batch = ("bench", "tiny.onnx", "--data", "test_batch.bin", *QUICK, "--sweep", "all")
    assert onnxnoise(*batch, "--out", "run.sqlite").code == 0
    refused(onnxnoise(*batch, "--labels", "clean", "--out", "run.sqlite"), 3, "labels")
    assert onnxnoise(*batch, "--labels", "clean", "--out", "clean.sqlite").code == 0
    refused(onnxnoise("compare", "run.sqlite", "clean.sqlite"), 3, "differ in labels")
    Path("empty").mkdir()
    assert onnxnoise("bench", "tiny.onnx", "--data", "empty", "--labels", "clean").code == 3
