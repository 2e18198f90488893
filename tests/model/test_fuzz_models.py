"""Whatever is done to a model file, `onnxnoise layers` ends soon, in bounded memory, with a table or a reason.

`python tests/fuzz.py --minutes N` goes on for longer.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from support.fuzzing import failures
from support.model_mutants import SEEDS, mutants

COUNT = 300


def test_the_seeds_themselves_are_read(tmp_path: Path) -> None:
    files = [(name, make().SerializeToString()) for name, make in SEEDS.items()]
    assert [(found.what, found.how) for found in failures(files, tmp_path)] == []


def test_mutated_models_end_with_a_table_or_a_reason(tmp_path: Path) -> None:
    found = list(failures(islice(mutants(40), COUNT), tmp_path))
    assert [(each.what, each.how) for each in found] == []
