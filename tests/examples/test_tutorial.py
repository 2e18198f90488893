"""The tutorial's steps run one after the other, on few images; those that search are left to who reads it."""

from __future__ import annotations

import json
import re
import runpy
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
        exec(source.replace("snrs=(20, 5)", "snrs=(20, 5), draws=2"), names)
    told = capsys.readouterr().out
    assert "1 conv1 conv 448" in told
    assert "<Result mine " in told
    assert "All layers noisy together" in told
    assert "# Weight noise: mine" in told


def test_the_notebook_is_the_script_with_what_it_shows() -> None:
    text = (TUTORIAL.with_suffix(".ipynb")).read_text(encoding="utf-8")
    notebook = json.loads(text)
    script = TUTORIAL.read_text(encoding="utf-8")
    joined = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert joined == runpy.run_path(str(TUTORIAL.with_name("make_notebook.py")))["cells"](script)
    steps = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for line in (line.strip() for line in script.splitlines() if line and not line.startswith(("#", '"'))):
        assert any(line in "".join(cell["source"]) for cell in steps) or line in "".join(notebook["cells"][0]["source"])
    assert [cell["execution_count"] for cell in steps] == list(range(1, 11))
    shown = [output for cell in steps for output in cell["outputs"]]
    assert not [output for output in shown if output["output_type"] == "error"]
    assert any("<table>" in "".join(output.get("data", {}).get("text/html", "")) for output in shown)
    assert len(text) < 300_000
    assert not re.search(r"/(?:tmp|home|root|work|usr|opt)/|\\u001b", text)
