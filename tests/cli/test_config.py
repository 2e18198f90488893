"""`--config`: flags from a file are the flags of the command line, which override them; mistakes name file and key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import nets
from support.command import onnxnoise, refused

ASKED = """
model = "tiny.onnx"
data = "test_batch.bin"
snr = [10, 2]
sweep = ["all"]
draws = 2
bn = "affine"
clean-check = false
quiet = true
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    nets.bench_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(ASKED)
    return tmp_path


def test_a_file_asks_what_flags_ask(folder: Path) -> None:
    flags = ("--snr", "10,2", "--sweep", "all", "--draws", "2", "--bn", "affine", "-q", "--no-clean-check")
    by_flags = onnxnoise(
        "bench", "tiny.onnx", "--data", "test_batch.bin", *flags, "--out", "a.sqlite", "--json", "-"
    ).json
    by_file = onnxnoise("bench", "--config", "run.toml", "--out", "b.sqlite", "--json", "-").json
    assert by_flags.pop("runs")
    assert by_file.pop("runs")
    assert by_file == by_flags
    over = onnxnoise("bench", "--config", "run.toml", "--bn", "group", "--snr", "5", "--json", "-").json
    assert (over["bn"], [cell["snr"] for cell in over["cells"]]) == ("group", [5])


def test_paths_are_the_file_s(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    outcome = onnxnoise("bench", "--config", "../run.toml", "--draws", "1", "--json", "-")
    assert outcome.code == 0, outcome.err


def test_compare_and_gate(folder: Path) -> None:
    Path("other.onnx").write_bytes(nets.residual(nets.weights()).SerializeToString())
    Path("other.toml").write_text(nets.CARD)
    Path("two.toml").write_text(
        'models = ["tiny.onnx", "other.onnx"]\ndata = "test_batch.bin"\nsnr = 10\ndraws = 2\nsweep = "all"\n'
    )
    outcome = onnxnoise("compare", "--config", "two.toml")
    assert outcome.code == 0, outcome.err
    Path("rules.toml").write_text('[[rule]]\nname = "any"\nsnr = 1000\nmin = 0.1\n')
    Path("gate.toml").write_text('model = "tiny.onnx"\ndata = "test_batch.bin"\nrules = "rules.toml"\n')
    outcome = onnxnoise("gate", "--config", "gate.toml")
    assert outcome.code in (0, 5), outcome.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("snrs = 10", ("run.toml", "'snrs'", "did you mean snr?")),
        ('snr = "much"', ("run.toml", "snr", "much", "not a number")),
        ("draws = 0", ("run.toml", "draws = 0", "too small")),
        ('bn = "none"', ("run.toml", "bn", "'none'", "group, raw")),
        ("quiet = 1", ("run.toml", "quiet", "true or false")),
        ("data = {a = 1}", ("run.toml", "data", "a text, a number")),
        ("snr = ", ("run.toml",)),
    ],
)
def test_mistakes_name_file_and_key(text: str, words: tuple[str, ...], folder: Path) -> None:
    Path("run.toml").write_text(text + "\n")
    refused(onnxnoise("bench", "tiny.onnx", "--config", "run.toml"), 3, *words)


def test_what_lacks_in_both(folder: Path) -> None:
    Path("run.toml").write_text("draws = 2\n")
    refused(onnxnoise("bench", "--config", "run.toml"), 2, "missing argument 'MODEL'")
    refused(onnxnoise("bench"), 2, "missing argument 'MODEL'", "bench --help")
    refused(onnxnoise("bench", "tiny.onnx", "--config", "none.toml"), 3, "none.toml", "--config")
