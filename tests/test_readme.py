"""What the README promises: its commands run, its flags exist, its snippets are what the program takes."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from pathlib import Path

import nets
import pytest
from command import onnxnoise

from onnxnoise.cards import load_card

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_first_command_runs_the_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = blocks("sh")[0]
    setup, install, run = (shlex.split(part) for part in line.split("&&"))
    assert setup == ["python3", "-m", "venv", ".venv"]
    assert install == [".venv/bin/pip", "install", "."]
    assert run[0] == ".venv/bin/onnxnoise"
    monkeypatch.chdir(tmp_path)
    outcome = onnxnoise(*run[1:], "--limit", 20, "--draws", 1, "--layers", "1-2")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[0] in README, "the output in the README begins as the real one does"
    assert "All layers noisy together" in README
    assert "The 2 chosen of 41 layers noisy together" in outcome.out


def test_the_checks_of_a_change_run_the_test_command() -> None:
    command = blocks("sh")[-1].strip()
    assert command.endswith("&& .venv/bin/python -m pytest")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    extraction = re.search(r"eval \"\$\((.*)\)\"", script)
    assert extraction is not None
    found = subprocess.run(["bash", "-c", extraction[1]], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == command


def test_every_flag_of_bench_is_in_the_readme_or_its_help_and_no_other() -> None:
    text = onnxnoise("bench", "--help").out
    known = set(re.findall(r"--[a-z][a-z-]+", text))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    assert named <= known


def test_the_commands_for_an_own_model_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = nets.bench_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    for line in blocks("sh")[1].splitlines():
        words = shlex.split(line, comments=True)
        swaps = {"model.onnx": files.model, "card.toml": files.model.with_suffix(".toml"), "imagenet/val": files.data}
        outcome = onnxnoise(*(swaps.get(word, word) for word in words[1:]))
        assert outcome.code == 0, outcome.err


def test_the_card_is_a_card(tmp_path: Path) -> None:
    (snippet,) = blocks("toml")
    path = tmp_path / "model.toml"
    path.write_text(snippet, encoding="utf-8")
    card = load_card(path)
    assert (card.input.resize, card.input.crop, card.measured.clean) == (256, 224, 0.7613)


def test_python_snippets_are_python() -> None:
    for snippet in blocks("python"):
        ast.parse(snippet)
