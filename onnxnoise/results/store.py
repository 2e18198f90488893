"""The run file: an SQLite database that tallies are appended to and a later run continues from."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from onnxnoise.errors import RunFileError
from onnxnoise.records import Tally, TallyKey
from onnxnoise.spec import index_ranges

_APPLICATION_ID = 0x4F4E4E58
_VERSION = 2
_SCHEMA = """
CREATE TABLE record (name TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE run (number INTEGER PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE chunk (start INTEGER PRIMARY KEY, images INTEGER NOT NULL, sha256 TEXT);
CREATE TABLE tally (
    sweep TEXT NOT NULL, layer INTEGER NOT NULL, snr REAL NOT NULL, draw INTEGER NOT NULL, start INTEGER NOT NULL,
    images INTEGER NOT NULL, top1 BLOB NOT NULL, top5 BLOB NOT NULL, nonfinite BLOB NOT NULL,
    negative_variances INTEGER NOT NULL,
    PRIMARY KEY (sweep, layer, snr, draw, start)
) WITHOUT ROWID;
"""
_CLAIMS = """
CREATE TABLE IF NOT EXISTS owner (
    number INTEGER PRIMARY KEY, place TEXT NOT NULL, pid INTEGER NOT NULL, born INTEGER NOT NULL, seen REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS claim (
    sweep TEXT NOT NULL, layer INTEGER NOT NULL, snr REAL NOT NULL, draw INTEGER NOT NULL, start INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    PRIMARY KEY (sweep, layer, snr, draw, start)
) WITHOUT ROWID;
"""
"""Which process measures what at this moment: what format 2 adds (see `claims`)."""

_PATIENCE = 30
"""Seconds to wait while another process writes."""

WHOLE = 0
"""Stands for "no one layer" in the table's key, which can't hold NULL."""


class RunStore:
    """An open run file. Every method raises RunFileError with what to do."""

    def __init__(self, path: Path, mode: str) -> None:
        self.path = path
        with self._errors():
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=_PATIENCE,
                isolation_level=None,
                check_same_thread=False,
            )

    @classmethod
    def open(cls, path: Path, identity: Mapping[str, Any], description: Mapping[str, Any]) -> Self:
        """Open the run file at `path`, or make it (an empty file is made one).

        `identity` is what must be equal to continue a run; `description` (layers, versions, command) is kept from the first run.
        """
        _check_place(path)
        with cls(path, "rwc")._closed_on_error() as store:
            if not store._tables():
                store._use_wal()
                with store.transaction():
                    if not store._tables():
                        store._create(identity, description)
            store._check_kind()
            store._check_identity(identity)
            store._upgrade()
        return store

    @classmethod
    def existing(cls, path: Path) -> Self:
        """Open a run file that must be there, whatever it holds."""
        if not path.is_file():
            raise RunFileError(f"{path}: no such run file; `onnxnoise bench MODEL --out {path.name}` makes one")
        with cls(path, "rw")._closed_on_error() as store:
            store._check_kind()
        return store

    @contextmanager
    def _closed_on_error(self) -> Iterator[Self]:
        try:
            yield self
        except BaseException:
            self.close()
            raise

    def _create(self, identity: Mapping[str, Any], description: Mapping[str, Any]) -> None:
        for statement in (_SCHEMA + _CLAIMS).split(";"):
            self._connection.execute(statement)
        self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        self._connection.execute(f"PRAGMA user_version = {_VERSION}")
        rows = [("identity", json.dumps(identity)), ("description", json.dumps(description))]
        self._connection.executemany("INSERT INTO record VALUES (?, ?)", rows)

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    def _tables(self) -> int:
        with self._errors():
            return int(self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])

    def _check_kind(self) -> None:
        with self._errors():
            application, version = self._pragma("application_id"), self._pragma("user_version")
        if application != _APPLICATION_ID:
            raise RunFileError(f"{self.path}: not an onnxnoise run file; name another file with --out")
        if version > _VERSION:
            raise RunFileError(
                f"{self.path}: written by a newer onnxnoise (format {version}, this one reads {_VERSION}); "
                "upgrade onnxnoise or name another file with --out"
            )
        self._use_wal()

    def _upgrade(self) -> None:
        """A file of format 1 gets what it lacks; its tallies stay as they are."""
        with self._errors():
            current = self._pragma("user_version")
        if current < _VERSION:
            with self.transaction() as connection:
                for statement in _CLAIMS.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_VERSION}")

    def _use_wal(self) -> None:
        """One sync a commit, and readers that don't stop a writer; the extra files go when the last process closes.

        What is committed stays, even where the power goes off; SQLite's own default depends on who built it.
        """
        with self._errors():
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA fullfsync = ON")
        with suppress(sqlite3.OperationalError):  # another process is at it: this one wants the same, and works without
            self._connection.execute("PRAGMA journal_mode = WAL")

    def _check_identity(self, asked: Mapping[str, Any]) -> None:
        if differing := difference(self.identity, asked):
            name, there, wanted = differing
            raise RunFileError(
                f"{self.path}: holds a run with another {name} ({there} there, {wanted} asked for); one run file holds one "
                "policy, seed, data and choice of layers: name another file with --out, or move this one away"
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise _run_file_error(self.path, error) from error

    @property
    def identity(self) -> dict[str, Any]:
        return self._record("identity")

    @property
    def description(self) -> dict[str, Any]:
        return self._record("description")

    def _record(self, name: str) -> dict[str, Any]:
        with self._errors():
            row = self._connection.execute("SELECT json FROM record WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise RunFileError(f"{self.path}: damaged: it lacks its {name}; name another file with --out")
        try:
            record: dict[str, Any] = json.loads(row[0])
        except ValueError as error:
            raise RunFileError(f"{self.path}: damaged: its {name} is no JSON; name another file with --out") from error
        return record

    def begin(self, run: Mapping[str, Any]) -> None:
        """Remember who measures from now on: command, versions, machine."""
        with self.transaction():
            self._connection.execute("INSERT INTO run (json) VALUES (?)", (json.dumps(run),))

    def runs(self) -> list[dict[str, Any]]:
        """What `begin` was told, oldest first: all that had a part in this file's tallies."""
        return [json.loads(text) for text in self.runs_as_kept()]

    def runs_as_kept(self) -> list[str]:
        """The same as JSON."""
        with self._errors():
            return [row[0] for row in self._connection.execute("SELECT json FROM run ORDER BY number").fetchall()]

    def chunks(self) -> list[range]:
        """The chunks of images laid down so far, in order: each as the range of positions in the data."""
        with self._errors():
            rows = self._connection.execute("SELECT start, images FROM chunk ORDER BY start").fetchall()
        return [range(start, start + images) for start, images in rows]

    def lay_down(self, images: int, size: Callable[[], int]) -> list[range]:
        """Cover the first `images` images with chunks, those that are there kept; all of them in order.

        `size` is asked for the new chunks' most images, only where one is lacking.
        """
        covered = max((chunk.stop for chunk in self.chunks()), default=0)
        if covered < images:
            step = size()
            with self.transaction():  # another process may have been faster
                covered = max((chunk.stop for chunk in self.chunks()), default=0)
                new = [(start, min(step, images - start)) for start in range(covered, images, step)]
                self._connection.executemany("INSERT INTO chunk (start, images) VALUES (?, ?)", new)
        return [chunk for chunk in self.chunks() if chunk.start < images]

    def check_images(self, start: int, sha256: str) -> None:
        """Remember the digest of a chunk's pixels and labels; refuse other images in the same place."""
        if self.digests().get(start) is None:
            with self.transaction():
                query = "UPDATE chunk SET sha256 = ? WHERE start = ? AND sha256 IS NULL"
                self._connection.execute(query, (sha256, start))
        if self.digests().get(start, sha256) != sha256:
            raise RunFileError(
                f"{self.path}: the images from number {start} on are not those it was measured with "
                "(changed files, or another Pillow decodes them differently); name another file with --out"
            )

    def digests(self) -> dict[int, str | None]:
        """By each chunk's start, the digest of its pixels and labels; None where nothing of it is measured."""
        with self._errors():
            return dict(self._connection.execute("SELECT start, sha256 FROM chunk").fetchall())

    def append(self, tallies: Iterable[Tally]) -> None:
        """Keep tallies, all of them or none; one that is there already stays as it is. Nobody claims them any more."""
        rows = [(tally.sweep, tally.layer or WHOLE, *astuple(tally)[2:]) for tally in tallies]
        with self.transaction():
            self._connection.executemany("INSERT OR IGNORE INTO tally VALUES (?,?,?,?,?,?,?,?,?,?)", rows)
            query = "DELETE FROM claim WHERE sweep = ? AND layer = ? AND snr = ? AND draw = ? AND start = ?"
            self._connection.executemany(query, (row[:5] for row in rows))

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of what is done in the block or nothing, no other process writing meanwhile; not to be nested."""
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.commit()
            except BaseException:
                self._connection.rollback()
                raise

    def done(self) -> set[TallyKey]:
        """Keys of all tallies that are there."""
        with self._errors():
            rows = self._connection.execute("SELECT sweep, layer, snr, draw, start FROM tally").fetchall()
        return {(sweep, layer or None, snr, draw, start) for sweep, layer, snr, draw, start in rows}

    def tallies(self, sweep: str, layer: int | None = None, snr: float = math.inf) -> Iterator[Tally]:
        """A cell's tallies, by draw and chunk; the clean pass is the cell ("clean", None, inf)."""
        query = "SELECT * FROM tally WHERE sweep = ? AND layer = ? AND snr = ? ORDER BY draw, start"
        with self._errors():
            for row in self._connection.execute(query, (sweep, layer or WHOLE, snr)):
                yield Tally(sweep, layer, *row[2:])

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Every tally as the table has it, ordered by its key."""
        with self._errors():
            yield from self._connection.execute("SELECT * FROM tally ORDER BY sweep, layer, snr, draw, start")

    def close(self) -> None:
        self._connection.close()

    def discard(self) -> None:
        """Close, and remove the file if it holds no tally: a run that failed before its first leaves nothing in the way."""
        empty = not self.done()
        self.close()
        if empty:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise RunFileError(f"{path}: is a folder; name a file in it with --out")
    if not path.parent.is_dir():
        raise RunFileError(
            f"{path}: can't be written: there is no folder {str(path.parent)!r}; make it, or name another file with --out"
        )
    if path.exists() and not path.is_file():
        raise RunFileError(f"{path}: is no regular file; name another file with --out")


def difference(kept: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The first key in which two identities differ, and both values, as a person reads them; None where they are equal."""
    kept, asked = (_flat(json.loads(json.dumps(each))) for each in (kept, asked))
    for name in {**kept, **asked}:
        if kept.get(name) != asked.get(name):
            return name.replace("_", " "), _short(kept.get(name)), _short(asked.get(name))
    return None


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables one level up, so that a difference is named by its own key."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        flat |= {f"{name} {key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _short(value: Any) -> str:
    text = (
        index_ranges(value) if isinstance(value, list) and all(isinstance(v, int) for v in value) else json.dumps(value)
    )
    return text if len(text) <= 80 else f"{text[:77]}..."


_ADVICE = {
    "FULL": "the disk is full; what was measured so far is kept: free some space and run the same command",
    "IOERR": "reading or writing failed (is the disk full, or a quota?); what was measured so far is kept: "
    "make room and run the same command",
    "NOTADB": "not an onnxnoise run file; name another file with --out",
    "READONLY": "can't be written; name a file that you may write to with --out",
    "CANTOPEN": "can't be opened or made; name a file in a folder that you may write to with --out",
    "BUSY": "another process is writing to it; wait for that run, or name another file with --out",
}


def _run_file_error(path: Path, error: Exception) -> RunFileError:
    kind = getattr(error, "sqlite_errorname", "").removeprefix("SQLITE_").split("_")[0]
    return RunFileError(
        f"{path}: {_ADVICE.get(kind, f'damaged or not usable ({error}); name another file with --out')}"
    )
