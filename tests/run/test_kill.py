"""A run that is killed at any moment, or whose disk is full, goes on to the same tallies, byte for byte."""

from __future__ import annotations

import random
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import nets, processes

FLAGS = ("--snr", "20,5,2", "--draws", "8", "--layers", "2-4", "--sweep", "single,all")
PLANNED = 5 * (1 + 3 * 8 * (1 + 3))
MOMENTS = 30


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("kill"))


@pytest.fixture(scope="module")
def whole(files: nets.Files, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """The tallies of a run that nobody stops."""
    path = tmp_path_factory.mktemp("whole") / "run.sqlite"
    run = processes.forked(processes.arguments(files, path, *FLAGS))
    run.join(processes.PATIENCE)
    assert run.exitcode == 0
    assert processes.count(path) == PLANNED
    return processes.tallies(path)


def delays() -> Iterator[tuple[int, float]]:
    """(tallies to wait for, seconds after that): early ones meet the opening, later ones a chunk, a commit, the end."""
    moments = random.Random(40)
    for _ in range(MOMENTS):
        yield moments.choice([0, 0, 1, 20, 60]), moments.uniform(0, 0.25)


def killed(files: nets.Files, out: Path, tallies: int, seconds: float) -> bool:
    """Whether a run was still going so many seconds after it had so many tallies, when it was killed."""
    run = processes.forked(processes.arguments(files, out, *FLAGS))
    processes.until(lambda: processes.count(out) >= tallies or run.exitcode is not None)
    run.join(seconds)
    run.kill()
    run.join()
    assert run.exitcode in (0, -9)
    return run.exitcode == -9


def test_a_run_killed_at_thirty_moments_loses_nothing(
    files: nets.Files, whole: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    generation, kills, grew = 0, 0, 0
    for more, seconds in delays():
        out = tmp_path / f"{generation}.sqlite"
        before = processes.count(out)
        kills += killed(files, out, before + more, seconds)
        after = processes.count(out)
        grew += after > before
        if out.exists():
            assert processes.rows(out, "PRAGMA integrity_check") == [("ok",)]
        if after:
            assert set(processes.tallies(out)) <= set(whole)
        if after == PLANNED:
            assert processes.tallies(out) == whole
            generation += 1
    assert kills > MOMENTS // 2, "most runs were still going"
    assert grew > MOMENTS // 4, "many had measured something"
    out = tmp_path / f"{generation}.sqlite"
    run = processes.forked(processes.arguments(files, out, *FLAGS))
    run.join(processes.PATIENCE)
    assert run.exitcode == 0
    assert processes.tallies(out) == whole
    assert processes.rows(out, "SELECT count(*) FROM claim UNION ALL SELECT count(*) FROM owner") == [(0,), (0,)]
    assert not list(tmp_path.glob("*-wal"))


def test_a_full_disk_is_said_and_nothing_is_lost(
    files: nets.Files, whole: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    out = tmp_path / "run.sqlite"
    arguments = processes.arguments(files, out, *FLAGS)

    def no_more_than() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, resource.RLIM_INFINITY))

    code, printed, errors = processes.ended(processes.started(arguments, preexec_fn=no_more_than))
    assert (code, printed) == (3, ""), errors
    (error,) = [line for line in errors.splitlines() if line.startswith("error:")]
    assert "is the disk full, or a quota?" in error
    assert "same command" in error
    kept = processes.tallies(out)
    assert 0 < len(kept) < len(whole)
    assert set(kept) <= set(whole)
    code, _, errors = processes.ended(processes.started(arguments))
    assert code == 0, errors
    assert processes.tallies(out) == whole
