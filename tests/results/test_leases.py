"""Processes that share a run file measure everything once, whoever of them is killed."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support import nets, processes
from support.command import onnxnoise
from support.stores import KEYS, opened, tally

from onnxnoise.records import TallyKey
from onnxnoise.results.run_file import leases as module
from onnxnoise.results.run_file.database import SUMMED
from onnxnoise.results.run_file.leases import Leases
from onnxnoise.results.run_file.store import RunStore

FLAGS = ("--snr", "20,5,2", "--draws", "6", "--layers", "2-4")
PLANNED = 5 * (1 + 3 * 6 * (1 + 3))
WHOLE: TallyKey = ("all", None, 10.0, 0, 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.sqlite"


def test_what_one_has_taken_another_does_not_get(path: Path) -> None:
    with opened(path) as first, opened(path) as second, Leases(first) as mine, Leases(second) as yours:
        assert mine.take([*KEYS[:2], WHOLE]) == (*KEYS[:2], WHOLE)
        assert mine.take(KEYS[:1]) == (KEYS[0],), "it is mine already"
        assert yours.take([*KEYS, WHOLE]) == tuple(KEYS[2:])
        assert mine.take(KEYS) == tuple(KEYS[:2])
        first.append([tally(layer=1)])
        assert mine.take(KEYS[:1]) == yours.take(KEYS[:1]) == (), "it is measured"
        assert mine.others()
        assert yours.others()


def test_leases_end_with_the_block(path: Path) -> None:
    with opened(path) as first, opened(path) as second, Leases(second) as yours:
        with suppress(KeyboardInterrupt), Leases(first) as mine:
            mine.take(KEYS)
            raise KeyboardInterrupt
        assert not yours.others()
        assert yours.take(KEYS) == tuple(KEYS)


TAKER = """
import sys, time
from pathlib import Path
from onnxnoise.results.run_file.leases import Leases
from support.stores import KEYS, opened
with opened(Path(sys.argv[1])) as store, Leases(store) as leases:
    print(len(leases.take(KEYS[:3])), flush=True)
    time.sleep(600)
"""


def test_a_killed_process_has_no_leases(path: Path) -> None:
    opened(path).close()
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    other = subprocess.Popen([sys.executable, "-c", TAKER, path], env=here, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "3\n"
    with opened(path) as store, Leases(store) as leases:
        assert leases.take(KEYS) == tuple(KEYS[3:])
        processes.kill(other.pid)
        processes.until(lambda: not processes.alive(other.pid))  # a zombie: nobody has asked for its exit code yet
        began = time.monotonic()
        leases.wait()
        assert time.monotonic() - began < 2
        assert leases.take(KEYS) == tuple(KEYS)
    other.communicate()


@pytest.mark.parametrize(
    ("changed", "lives"),
    [
        ({"place": "elsewhere", "pid": 1, "seen": time.time}, True),
        ({"place": "elsewhere", "pid": 1, "seen": lambda: time.time() - 61}, False),
        ({"born": 1}, False),
        ({}, True),
        ({"seen": lambda: 0.0}, True),
    ],
    ids=[
        "another machine",
        "silent for a minute",
        "another process of that number",
        "lives",
        "lives, whatever the clock",
    ],
)
def test_who_lives(changed: dict[str, Any], lives: bool, path: Path) -> None:
    with opened(path) as first, opened(path) as second, Leases(first) as mine:
        mine.take(KEYS[:1])
        with first.database.transaction():
            owners = first.database._connection
            for column, value in changed.items():
                owners.execute(f"UPDATE owner SET {column} = ?", (value() if callable(value) else value,))
        with Leases(second) as yours:
            assert yours.others() is lives
            assert yours.take(KEYS[:1]) == (() if lives else (KEYS[0],))


def test_a_long_run_shows_that_it_lives(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BEAT", 0.02)
    with opened(path) as store, Leases(store):
        query = "SELECT seen FROM owner"
        ((first,),) = processes.rows(path, query)
        processes.until(lambda: processes.rows(path, query)[0][0] > first)
    assert [file.name for file in path.parent.iterdir()] == ["run.sqlite"]


def test_waiting_ends_when_others_have_nothing_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST", 0.3)
    with opened(path) as first, opened(path) as second, Leases(first) as mine, Leases(second) as yours:
        mine.take(KEYS[:1])
        began = time.monotonic()
        yours.wait()
        assert time.monotonic() - began >= 0.3
        first.append([tally(layer=1)])
        monkeypatch.setattr(module, "_LONGEST", 600.0)
        yours.wait()


FORMAT_1 = """
CREATE TABLE record (name TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE run (number INTEGER PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE chunk (start INTEGER PRIMARY KEY, images INTEGER NOT NULL, sha256 TEXT);
CREATE TABLE tally (
    sweep TEXT NOT NULL, layer INTEGER NOT NULL, snr REAL NOT NULL, draw INTEGER NOT NULL, start INTEGER NOT NULL,
    images INTEGER NOT NULL, top1 BLOB NOT NULL, top5 BLOB NOT NULL, nonfinite BLOB NOT NULL,
    negative_variances INTEGER NOT NULL,
    PRIMARY KEY (sweep, layer, snr, draw, start)
) WITHOUT ROWID;
PRAGMA application_id = 1330531928;
PRAGMA user_version = 1;
"""


def test_run_files_of_format_1_go_on(path: Path) -> None:
    with opened(path.with_name("new.sqlite")) as store:
        store.append([tally(), tally(layer=2)])
        store.begin({"command": "earlier"})
    old = sqlite3.connect(path)
    old.executescript(FORMAT_1)
    old.execute("ATTACH ? AS new", (str(path.with_name("new.sqlite")),))
    for table in ("record", "run", "chunk", "tally"):
        columns = SUMMED[table] if table != "run" else ("number", "json")
        old.execute(f"INSERT INTO {table} SELECT {', '.join(columns)} FROM new.{table}")
    old.commit()
    old.close()
    with RunStore.existing(path) as store:
        assert len(store.done()) == 2
    assert processes.rows(path, "PRAGMA user_version") == [(1,)], "who only reads changes nothing"
    for _ in range(2):
        with opened(path) as store, Leases(store) as leases:
            assert leases.take(KEYS) == tuple(KEYS[2:])
            assert store.runs() == [{"command": "earlier"}]
    assert processes.rows(path, "PRAGMA user_version") == [(3,)]
    assert processes.tallies(path) == processes.tallies(path.with_name("new.sqlite"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("leases"))


NOTING = """
import os
from pathlib import Path
from onnxnoise.results.run_file.store import RunStore
append = RunStore.append
def noted(self, tallies):
    tallies = list(tallies)
    append(self, tallies)
    with Path(os.environ["BROUGHT"]).open("a") as file:
        file.write("".join(f"{tally.key}\\n" for tally in tallies))
RunStore.append = noted
"""


@pytest.mark.parametrize("killed", [False, True], ids=["both end", "one is killed"])
def test_two_processes_measure_everything_once(killed: bool, files: nets.Files, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.sqlite", tmp_path / "run.sqlite"
    alone = onnxnoise(*processes.arguments(files, whole, *FLAGS))
    assert onnxnoise(*processes.arguments(files, out, *FLAGS, "--limit", 8, "--snr", 20, "--draws", 1)).code == 0
    already = processes.count(out)
    (noting := tmp_path / "noting").mkdir()
    (noting / "sitecustomize.py").write_text(NOTING)
    brought = noting / "brought"
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(noting), *sys.path]), "BROUGHT": str(brought)}
    runs = [processes.started(processes.arguments(files, out, *FLAGS), env=here) for _ in range(2)]
    if killed:
        processes.until(lambda: processes.count(out) > already + 20)
        victim = runs.pop(random.Random(1).randrange(2))
        processes.kill(victim.pid)
        processes.ended(victim)
    for run in runs:
        code, printed, errors = processes.ended(run)
        assert (code, printed) == (0, alone.out), errors
    assert processes.tallies(out) == processes.tallies(whole)
    keys = brought.read_text().splitlines()
    assert len(keys) == len(set(keys)), "nothing was measured twice"
    assert len(keys) == PLANNED - already or (killed and PLANNED - already - 40 < len(keys) < PLANNED - already)
    shutil.rmtree(noting)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.sqlite", "whole.sqlite"]
