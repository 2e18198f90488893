"""The example of a classifier of one's own runs as its README says, from training to the gate."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from support import graphs, nets
from support.command import onnxnoise

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "own_data"


def test_from_training_to_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("train_digits", FOLDER / "train_digits.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(tmp_path)
    shutil.copy(FOLDER / "onnxnoise.toml", tmp_path)
    monkeypatch.chdir(tmp_path)
    pixels, labels = example.drawn(300, seed=2)
    numbers = (pixels.astype(np.float64) / 127.5 - 1).astype(np.float32)[:, None]
    truth = sum(nets.hits(graphs.run(graphs.onnx.load("digits.onnx"), numbers), labels, 1))
    assert truth > 285
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^onnxnoise .*$", readme, re.MULTILINE)
    assert [line.split()[1] for line in lines] == ["layers", "cards", "bench", "gate", "bench"]
    for line in lines:
        words = shlex.split(line.replace(" --draws 10", ""), comments=True)[1:]
        outcome = onnxnoise(*words, *(("--draws", 2) if words[0] == "bench" else ()))
        assert outcome.code == 0, (line, outcome.err)
        if words[0] == "bench" and "--labels" not in words:
            assert f"top-1 {truth / 300:.2%}" in outcome.out
    card = tomllib.loads(Path("digits.toml").read_text("utf-8"))["input"]
    assert (card["dataset"], card["classes"], card["size"]) == ("digits", 10, 16)
    assert (card["scale"], card["mean"], card["std"]) == (127.5, 1, 1)
