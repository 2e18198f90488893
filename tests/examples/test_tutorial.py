"""The tutorial's steps run one after the other, on few images; those that search are left to who reads it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CARD = """[input]
dataset = "cifar10"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""
TUTORIAL = Path(__file__).parents[2] / "examples" / "tutorial.py"


def test_the_steps_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tutorial.py", "30"])
    steps = re.split(r"^# %% \d+\. ", TUTORIAL.read_text(), flags=re.MULTILINE)[1:]
    assert len(steps) == 10
    monkeypatch.setenv("PYTHONPATH", str(TUTORIAL.parents[1]))
    names: dict[str, object] = {}
    for number in (1, 2, 4, 5, 9, 10):
        source = f"# {steps[number - 1]}"
        if number == 1:
            (tmp_path / "mine.toml").write_text(CARD)
        exec(source.replace("draws=3", "draws=2"), names)
    told = capsys.readouterr().out
    assert "1 conv1 conv 448" in told
    assert "<Result mine " in told
    assert "All layers noisy together" in told
    assert "# Weight noise: mine" in told
