"""What the README promises: its commands run, its flags exist, its snippets are what the program takes."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from support import nets
from support.command import onnxnoise

from onnxnoise.cli.commands.bench import BenchFlags
from onnxnoise.cli.options import Printer
from onnxnoise.data.cards import load_card
from onnxnoise.fields import Flag, flags_of
from onnxnoise.flags import bench_flags

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The words of every onnxnoise command in a block of its own."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("onnxnoise ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


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
    assert command.endswith("&& .venv/bin/python -m pytest -n auto --dist worksteal")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    extraction = re.search(r"eval \"\$\((.*)\)\"", script)
    assert extraction is not None
    found = subprocess.run(["bash", "-c", extraction[1]], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == command


def test_the_readme_names_every_command_and_only_flags_that_there_are() -> None:
    names = re.findall(r"^  ([a-z]+)  ", onnxnoise("--help").out.partition("Commands:")[2], re.MULTILINE)
    assert len(names) == 15
    assert [name for name in names if not re.search(rf"onnxnoise {name}|`{name}`", README)] == []
    asked = [*([name] for name in names), ["cards", "show"], ["cards", "new"], ["cards", "check"]]
    known = {flag for words in asked for flag in re.findall(r"--[a-z][a-z-]+", onnxnoise(*words, "--help").out)}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) <= known | {"--card", "--dist"}


def test_the_table_of_flags_is_the_spec_s() -> None:
    """One row a flag of `bench`; where this fails, the rows in its message are what the README should have."""
    flags = [*bench_flags("bench").values(), *flags_of(BenchFlags).values(), *flags_of(Printer).values()]
    rows = "".join(row(each) for each in flags if each.names)
    head = "| flag of `bench` | meaning | default |\n|---|---|---|\n"
    assert head + rows + "\n" in README, head + rows


def row(each: Flag) -> str:
    names = each.names.replace(" ", ", ") + ("" if each.syntax == "switch" else f" {each.metavar}")
    cells = (f"`{names}`", each.help, each.shown_default or "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def test_the_keys_of_a_card_are_the_schema_s() -> None:
    """One row a table; where this fails, the rows in its message are what the README should have."""
    schema = json.loads((ROOT / "model_cards" / "card.schema.json").read_text(encoding="utf-8"))["properties"]
    rows = "".join(
        f"| `[{table}]` | {', '.join(f'`{key}`' for key in each['properties'])} |\n" for table, each in schema.items()
    )
    assert f"| table of a card | keys |\n|---|---|\n{rows}\n" in README, rows


def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a small network under the names that the README uses, with few images."""
    files = nets.bench_files(tmp_path)
    for name in ("model", "a", "b"):
        shutil.copy(files.model, tmp_path / f"{name}.onnx")
        (tmp_path / f"{name}.toml").write_text(nets.CARD)
    shutil.copy(tmp_path / "model.toml", tmp_path / "card.toml")
    monkeypatch.chdir(tmp_path)
    found = commands()
    assert {words[0] for words in found} >= {"compare", "margin", "plan", "gate", "bench", "report", "apply", "layers"}
    for words in found:
        swaps = {
            "imagenet/val": str(files.data),
            "examples/gate/onnxnoise.toml": str(ROOT / "examples/gate/onnxnoise.toml"),
        }
        given = [swaps.get(word, word) for word in words]
        if words[0] in ("bench", "compare", "margin", "plan") and "--data" not in words:
            given += ["--data", str(files.data), "--limit", "16"]
        outcome = onnxnoise(*given)
        allowed = {"plan": (0, 1), "gate": (0, 5)}.get(words[0], (0,))
        assert outcome.code in allowed, (words, outcome.err)


def test_the_card_is_a_card(tmp_path: Path) -> None:
    (snippet,) = blocks("toml")
    path = tmp_path / "model.toml"
    path.write_text(snippet, encoding="utf-8")
    card = load_card(path)
    assert (card.input.resize, card.input.crop, card.measured.clean) == (256, 224, 0.7613)


def test_the_python_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = nets.bench_files(tmp_path)
    shutil.copy(files.model, tmp_path / "model.onnx")
    (tmp_path / "card.toml").write_text(nets.CARD)
    (tmp_path / "onnxnoise.toml").write_text('[[rule]]\nname = "any"\nsnr = 100\nmin = 0.1\n')
    monkeypatch.chdir(tmp_path)
    other = onnxnoise(
        "bench", files.model, "--data", files.data, "--snr", "100,10,5", "--draws", "10", "--out", "other.sqlite"
    )
    assert other.code == 0, other.err
    (snippet,) = blocks("python")
    ast.parse(snippet)
    names: dict[str, object] = {}
    exec(snippet.replace('data="val"', f"data={str(files.data)!r}"), names)
    assert len(names["rows"]) == 3 * 6  # type: ignore[arg-type]
    assert names["verdict"].verdict in ("pass", "inconclusive")  # type: ignore[attr-defined]
