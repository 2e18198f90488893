"""`init-gate` writes rules that the model itself meets, and jobs that hold builds to them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import nets
from support.command import onnxnoise, refused

from onnxnoise.decisions.gating.rules import load_rules


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    nets.bench_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_model_is_held_to_rules_of_its_own(folder: Path) -> None:
    outcome = onnxnoise("init-gate", "tiny.onnx", "--data", "test_batch.bin", "--bn", "affine", "--out", "ci")
    assert outcome.code == 0, outcome.err
    rules = load_rules(Path("ci/onnxnoise.toml"))
    document = tomllib.loads(Path("ci/onnxnoise.toml").read_text())
    assert document["bench"] == {"data": "../test_batch.bin", "bn": "affine"}
    (rule,) = rules.rules
    profile = onnxnoise(
        "bench",
        "tiny.onnx",
        "--data",
        "test_batch.bin",
        "--bn",
        "affine",
        "--sweep",
        "all",
        "--draws",
        8,
        "--json",
        "-",
    ).json
    worst = {cell["snr"]: cell["normalized_top1"]["worst"] for cell in profile["cells"]}
    kept = [snr for snr in worst if worst[snr] >= 0.9]
    assert rule.level == (min(kept) if kept else max(worst))
    assert worst[rule.level] - 0.06 <= rule.limit <= worst[rule.level] - 0.05 + 1e-9
    for job in (Path("ci/.github/workflows/noise-gate.yml"), Path("ci/noise-gate.gitlab-ci.yml")):
        assert "onnxnoise gate ../tiny.onnx --rules onnxnoise.toml --junit gate.xml" in job.read_text()
    gated = onnxnoise("gate", "tiny.onnx", "--rules", "ci/onnxnoise.toml")
    assert gated.code in (0, 5), gated.out


def test_what_is_there_stays(folder: Path) -> None:
    Path("onnxnoise.toml").write_text("mine")
    refused(onnxnoise("init-gate", "tiny.onnx", "--data", "test_batch.bin"), 3, "onnxnoise.toml: is there", "--out")
    assert Path("onnxnoise.toml").read_text() == "mine"
