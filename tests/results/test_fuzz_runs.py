"""Run files that somebody edited, with right checksums: a figure, a verdict or a reason, never a crash or a hang."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import nets, processes
from support.command import onnxnoise
from support.fuzz_runs import STATEMENTS, mutated, small, wrong

SEEDS = 45
FAILED: tuple[int, ...] = ()
"""Seeds that once found a crash."""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("good") / "good.sqlite")


@pytest.mark.parametrize("first", range(0, SEEDS, 15))
def test_edited_run_files(first: int, good: Path, tmp_path: Path) -> None:
    found = {}
    for seed in (*range(first, first + 15), *(FAILED if not first else ())):
        mutant = tmp_path / f"{seed}.sqlite"
        done = mutated(good, mutant, seed)
        if how := wrong(mutant, good, tmp_path):
            found[done] = how
    assert found == {}


def test_going_on_with_edited_run_files(tmp_path: Path) -> None:
    files = nets.bench_files(tmp_path, count=16)
    good = tmp_path / "good.sqlite"
    flags = ("--snr", "10,2.5", "--draws", "2", "--sweep", "single,all", "--no-clean-check", "-q")
    assert onnxnoise(*processes.arguments(files, good, *flags)).code == 0
    found = {}
    for seed in range(1000, 1006):
        mutant = tmp_path / f"{seed}.sqlite"
        done = mutated(good, mutant, seed)
        more = processes.arguments(files, mutant, *flags, "--draws", "3")
        if how := wrong(mutant, good, tmp_path, bench=lambda more=more: onnxnoise(*more)):  # type: ignore[misc]
            found[done] = how
    assert found == {}


def test_there_are_statements_for_each_table() -> None:
    assert all(
        any(table in statement for statement in STATEMENTS) for table in ("chunk", "tally", "record", "run", "claim")
    )
