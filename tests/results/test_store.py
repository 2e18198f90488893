from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.stores import DESCRIPTION, IDENTITY, INF, opened, tally

from onnxnoise.errors import RunFileError
from onnxnoise.records import Tally
from onnxnoise.results.run_file import database
from onnxnoise.results.run_file.store import RunStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.sqlite"


def test_tallies_come_back_as_they_went(path: Path) -> None:
    clean, whole = tally("clean", None, INF), tally("all", None)
    cells = [tally(draw=draw, start=start) for draw in (0, 1) for start in (0, 8)]
    with opened(path) as store:
        store.append([clean, whole])
        store.append(reversed(cells))
        store.append([tally(level=5.0), tally(layer=2)])
    with RunStore.existing(path) as store:
        assert list(store.tallies("clean")) == [clean]
        assert list(store.tallies("all", None, 10.0)) == [whole]
        assert list(store.tallies("single", 1, 10.0)) == cells
        assert list(store.tallies("single", 3, 10.0)) == []
        assert ("clean", None, INF, 0, 0) in store.done()
        assert len(store.done()) == 8
        assert (store.identity, store.description) == (IDENTITY, DESCRIPTION)


def test_a_tally_that_is_there_stays(path: Path) -> None:
    first = tally()
    with opened(path) as store:
        store.append([first])
        store.append([Tally("single", 1, 10.0, 0, 0, 8, b"other", b"", b"", 0)])
        assert list(store.tallies("single", 1, 10.0)) == [first]


def test_the_first_description_is_kept(path: Path) -> None:
    opened(path).close()
    with RunStore.open(path, IDENTITY, {"model": "renamed"}) as store:
        assert store.description == DESCRIPTION


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": "c" * 64}, ["another model", "aaaa", "cccc"]),
        ({"data": "c" * 64}, ["another data", "bbbb", "cccc"]),
        ({"seed": 41}, ["another seed", "40 there", "41 asked"]),
        ({"bn": "affine"}, ["another bn", '"group"', '"affine"']),
        ({"sigma_scope": "layer"}, ["another sigma scope", '"tensor"', '"layer"']),
        ({"layers": [1, 2, 3, 4, 5]}, ["another layers", "1-3,5 there", "1-5 asked"]),
        ({"preprocessing": {"size": 32, "mean": [0.5, 0.5, 0.4], "layout": "nchw"}}, ["preprocessing mean", "0.4"]),
        ({"output": "other"}, ["another output", '"logits"', '"other"']),
        ({"provider": "CUDAExecutionProvider"}, ["another provider", "CPUExecutionProvider", "CUDAExecutionProvider"]),
    ],
)
def test_another_run_is_refused(changed: dict[str, Any], words: list[str], path: Path) -> None:
    with opened(path) as store:
        store.append([tally()])
    with pytest.raises(RunFileError) as raised:
        opened(path, **changed)
    message = str(raised.value)
    assert all(word in message for word in [str(path), *words, "--out"]), message
    with opened(path) as store:
        assert len(store.done()) == 1


def test_chunks_grow_and_stay(path: Path) -> None:
    with opened(path, images=0) as store:
        assert store.lay_down(25, lambda: 10) == [range(10), range(10, 20), range(20, 25)]
        assert store.lay_down(12, never) == [range(10), range(10, 20)]
        assert store.lay_down(25, never) == [range(10), range(10, 20), range(20, 25)]
        assert store.lay_down(40, lambda: 100)[-1] == range(25, 40)


def never() -> int:
    raise AssertionError("nothing is lacking")


def test_other_images_in_the_same_place_are_refused(path: Path) -> None:
    with opened(path, images=0) as store:
        store.lay_down(20, lambda: 10)
        store.check_images(0, "one")
        store.check_images(0, "one")
        store.check_images(10, "two")
        with pytest.raises(RunFileError, match="images from number 10 on are not those"):
            store.check_images(10, "one")


def test_an_empty_file_becomes_a_run_file(path: Path) -> None:
    path.touch()
    with opened(path) as store:
        store.append([tally()])
    assert path.stat().st_size > 0


def text_file(path: Path) -> None:
    path.write_text("[input]\ndataset = 'cifar10'\n" * 100)


def other_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE precious (data)")
    connection.commit()
    connection.close()


def newer_version(path: Path) -> None:
    opened(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 7")
    connection.close()


def cut_short(path: Path) -> None:
    with opened(path) as store:
        store.append(tally(draw=draw) for draw in range(1, 500))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_record(path: Path) -> None:
    edited(path, "DELETE FROM record")


def broken_record(path: Path) -> None:
    edited(path, "UPDATE record SET json = '{'")


def edited(path: Path, statement: str) -> None:
    opened(path).close()
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (text_file, "not an onnxnoise run file"),
        (other_database, "not an onnxnoise run file"),
        (newer_version, r"newer onnxnoise \(format 7, this one reads 3\)"),
        (cut_short, "damaged"),
        (without_record, "damaged: it lacks its identity"),
        (broken_record, "damaged: in its table record the row of identity: it is not what was kept"),
        (Path.mkdir, "is a folder"),
        (os.mkfifo, "no regular file"),
    ],
)
def test_what_is_no_run_file_is_refused_and_stays(make: Any, found: str, path: Path) -> None:
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(RunFileError, match=f"{path}: .*{found}.*--out"):
        opened(path).done()
    if make not in (newer_version, without_record, broken_record, cut_short):
        assert before is None or path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("file/run.sqlite", "folder can't be made"),
        ("/proc/run.sqlite", "can't be opened or made"),
    ],
)
def test_places_that_take_no_file(place: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFileError, match=f"run.sqlite: .*{found}.*--out"):
        opened(tmp_path / place)


def test_a_missing_run_file_is_not_made_to_be_read(path: Path) -> None:
    with pytest.raises(RunFileError, match="no such run file"):
        RunStore.existing(path)
    assert not path.exists()


def test_a_closed_run_file_is_one_file(path: Path) -> None:
    with opened(path) as store:
        store.append([tally()])
        iterator: Iterator[Tally] = store.tallies("single", 1, 10.0)
        next(iterator)
    with pytest.raises(AttributeError), opened(path) as store:
        store.append([None])  # type: ignore[list-item]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_only_an_empty_run_file_is_discarded(path: Path) -> None:
    with opened(path) as store:
        store.append([tally()])
        store.discard()
    with opened(path) as store:
        assert len(store.done()) == 1
    with opened(path.with_name("empty.sqlite")) as store:
        store.discard()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_full_disk_loses_nothing(path: Path) -> None:
    store = opened(path)
    store.append([tally()])
    pages = store.database._connection.execute("PRAGMA page_count").fetchone()[0]
    store.database._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    many = [tally(draw=draw) for draw in range(1, 2000)]
    with pytest.raises(RunFileError, match=r"disk is full.*same command"):
        store.append(many)
    assert store.done() == {("single", 1, 10.0, 0, 0)}, "all of them or none"
    store.database._connection.execute("PRAGMA max_page_count = 1000000")
    store.append(many)
    store.close()
    with opened(path) as store:
        assert len(store.done()) == 2000


def test_another_process_that_does_not_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_PATIENCE", 0.05)
    with opened(path) as store, opened(path) as other:
        other.database._connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(RunFileError, match="another process is writing"):
            store.append([tally()])
        other.database._connection.rollback()
        store.append([tally()])
        assert other.done() == store.done()


def test_what_is_committed_is_on_the_disk(path: Path) -> None:
    """Also after a power failure: SQLite's own promise, where it is asked to wait for the disk at each commit."""
    opened(path).close()
    for store in (opened(path), opened(path)):
        pragma = {
            name: store.database._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous")
        }
        assert pragma == {"journal_mode": "wal", "synchronous": 2}
        store.close()


def test_a_torn_write_costs_the_last_commits_only(path: Path, tmp_path: Path) -> None:
    """What a disk may have after a power failure: the file, and any first part of what was written beside it."""
    torn = random.Random(0)
    with opened(path) as store:
        store.database._connection.execute("PRAGMA wal_autocheckpoint = 0")
        sizes = [0]
        for step in range(30):
            store.append([tally(draw=step, level=level) for level in (1.0, 5.0, 10.0)])
            sizes.append(path.with_name("run.sqlite-wal").stat().st_size)
        main, wal = path.read_bytes(), path.with_name("run.sqlite-wal").read_bytes()
    for number in range(40):
        copy = tmp_path / f"{number}.sqlite"
        copy.write_bytes(main)
        length = torn.randrange(sizes[0], len(wal) + 1)
        copy.with_name(f"{copy.name}-wal").write_bytes(wal[:length] + torn.randbytes(torn.choice([0, 700])))
        whole = sum(size <= length for size in sizes[1:])
        with opened(copy) as store:
            kept = store.done()
            assert kept == {("single", 1, level, step, 0) for step in range(whole) for level in (1.0, 5.0, 10.0)}
            store.append([tally(draw=draw) for draw in range(30)])


WRITER = """
import sys
from pathlib import Path
from support.stores import opened, tally
for draw in range(int(sys.argv[2]), int(sys.argv[2]) + 40):
    with opened(Path(sys.argv[1])) as store:
        store.append([tally(draw=draw), tally(draw=999)])
"""


def test_processes_that_write_at_once_lose_nothing(path: Path) -> None:
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, str(first)], env=here, stderr=subprocess.PIPE, text=True)
        for first in (0, 100, 200)
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert (writer.returncode, errors) == (0, "")
    with opened(path) as store:
        draws = {draw for _, _, _, draw, _ in store.done()}
        assert draws == {*range(40), *range(100, 140), *range(200, 240), 999}
        assert store.chunks() == [range(8), range(8, 16)]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


FLIPS = {
    "record": ("json = replace(json, 'group', 'groub')",),
    "run": ("json = replace(json, 'earlier', 'Earlier')",),
    "chunk": ("images = images + 1", "sha256 = replace(sha256, 'a', 'b')", "start = start + 8"),
    "tally": (
        *("sweep = 'cumulative'", "layer = 3", "level = 11", "draw = 1", "start = 8", "images = 7"),
        *("top1 = x'01'", "top5 = x'fe'", "nonfinite = x'01'", "negative_variances = 4", "top1 = top5, top5 = top1"),
    ),
}


@pytest.mark.parametrize("change", [(table, change) for table, changes in FLIPS.items() for change in changes])
def test_what_was_changed_behind_its_back_is_noticed(change: tuple[str, str], path: Path) -> None:
    table, how = change
    with opened(path, images=8) as store:
        store.check_images(0, "a" * 64)
        store.begin({"command": "earlier"})
        store.append([tally()])
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(f"UPDATE {table} SET {how}").rowcount > 0
    with pytest.raises(RunFileError, match=f"damaged: in its table {table} the row"), RunStore.existing(path) as store:
        _ = store.identity, store.runs(), store.chunks(), list(store.database.all_tallies())
