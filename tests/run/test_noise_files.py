"""Runs with noise of the user's own: worker processes have the same file, and a file that changed is refused."""

from __future__ import annotations

import json
from pathlib import Path

from support.command import onnxnoise

CODE = """
import numpy as np
def add(weights, rng, level):
    size = np.float32(level * np.abs(weights).max())
    return weights + size * rng.standard_normal(weights.shape, dtype=np.float32)
"""


def test_a_function_makes_what_the_same_formula_of_ours_makes_and_may_not_change(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(CODE, encoding="utf-8")
    run = ["bench", "resnet20-cifar10", "--sweep", "all", "--limit", 20, "--levels", "0.1", "--draws", 2, "--json", "-"]
    mine = [*run, "--noise", f"python:{tmp_path / 'my.py'}:add", "--out", tmp_path / "a.sqlite"]
    own = onnxnoise(*mine, "--workers", 1)
    assert own.code == 0, own.err
    ours = onnxnoise(*run, "--noise", "relative", "--out", tmp_path / "b.sqlite")
    hits = [
        [draw["top1_hits"] for cell in json.loads(each.out)["cells"] for draw in cell["draws"]] for each in (own, ours)
    ]
    assert len(hits[0]) == 2
    assert max(abs(one - other) for one, other in zip(*hits, strict=True)) <= 1  # float32 sums in place of float64 ones
    (tmp_path / "my.py").write_text(CODE + "\n", encoding="utf-8")
    changed = onnxnoise(*mine, "--draws", 3)
    assert changed.code == 3
    assert "noise files" in changed.err


def test_what_a_function_prints_is_no_part_of_the_json(tmp_path: Path) -> None:
    code = CODE.replace("    size", "    print('adding noise')\n    size") + "print('loaded')\n"
    (tmp_path / "my.py").write_text(code, encoding="utf-8")
    run = ("bench", "resnet20-cifar10", "--sweep", "all", "--limit", 8, "--levels", "0.1", "--draws", 1, "--json", "-")
    outcome = onnxnoise(*run, "--noise", f"python:{tmp_path / 'my.py'}:add", "--out", tmp_path / "a.sqlite")
    assert outcome.code == 0, outcome.err
    assert len(outcome.json["cells"]) == 1
    assert "loaded\nadding noise\n" in outcome.err
