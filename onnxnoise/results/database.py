"""The SQLite file under a run file: its tables, its transactions, and what SQLite's errors mean to the person who must act.

This is the only module that speaks SQL. Each method is one statement on one table, or a few that belong together; whoever needs
several of them at once wraps them in `transaction`. Tables: `record` (identity and description), `run` (who measured),
`chunk` (the images, cut), `tally` (hits), and what format 2 added, `owner` and `claim`: the leases, which say which process
measures what at this moment. Format 3 calls a tally's level of the noise `level`, where it was `snr`, and gives each row of the
other four tables a checksum, which is held against the row whenever it is read. Files of earlier formats are read as they are,
and become format 3 when a run goes on with them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from onnxnoise.errors import RunFileError
from onnxnoise.files import open_file
from onnxnoise.records import Tally, TallyKey

_APPLICATION_ID = 0x4F4E4E58
_VERSION = 3
_SCHEMA = """
CREATE TABLE record (name TEXT PRIMARY KEY, json TEXT NOT NULL, checksum INTEGER) WITHOUT ROWID;
CREATE TABLE run (number INTEGER PRIMARY KEY, json TEXT NOT NULL, checksum INTEGER);
CREATE TABLE chunk (start INTEGER PRIMARY KEY, images INTEGER NOT NULL, sha256 TEXT, checksum INTEGER);
CREATE TABLE tally (
    sweep TEXT NOT NULL, layer INTEGER NOT NULL, level REAL NOT NULL, draw INTEGER NOT NULL, start INTEGER NOT NULL,
    images INTEGER NOT NULL, top1 BLOB NOT NULL, top5 BLOB NOT NULL, nonfinite BLOB NOT NULL,
    negative_variances INTEGER NOT NULL, checksum INTEGER,
    PRIMARY KEY (sweep, layer, level, draw, start)
) WITHOUT ROWID;
"""
_LEASES = """
CREATE TABLE IF NOT EXISTS owner (
    number INTEGER PRIMARY KEY, place TEXT NOT NULL, pid INTEGER NOT NULL, born INTEGER NOT NULL, seen REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS claim (
    sweep TEXT NOT NULL, layer INTEGER NOT NULL, level REAL NOT NULL, draw INTEGER NOT NULL, start INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    PRIMARY KEY (sweep, layer, level, draw, start)
) WITHOUT ROWID;
"""
SUMMED = {
    "record": ("name", "json"),
    "run": ("json",),
    "chunk": ("start", "images", "sha256"),
    "tally": (
        *("sweep", "layer", "level", "draw", "start"),
        *("images", "top1", "top5", "nonfinite", "negative_variances"),
    ),
}
"""The columns that each table's checksums are made of."""

_KEY = "sweep = ? AND layer = ? AND level = ? AND draw = ? AND start = ?"

_PATIENCE = 30
"""Seconds to wait while another process writes."""

_NO_LAYER = 0
"""Stands for "no one layer" in the tables' keys, which can't hold NULL."""


class Owner(NamedTuple):
    """A process that holds leases: its random number, where its process number means something, when it began, when it last
    showed that it lives (seconds since 1970).
    """

    number: int
    place: str
    pid: int
    born: int
    seen: float


class Database:
    """An open SQLite file. Every method raises RunFileError with what to do."""

    def __init__(self, path: Path, mode: str) -> None:
        """`mode`: "rw" for a file that must be there, "rwc" to make one if it is not."""
        self.path = path
        with self._errors():
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=_PATIENCE,
                isolation_level=None,
                check_same_thread=False,
            )
            self._connection.create_function("checksum", -1, checksum, deterministic=True)

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all that the block does, or nothing, while no other process writes. Transactions can't be nested."""
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.commit()
            except BaseException:
                self._connection.rollback()
                raise

    def is_empty(self) -> bool:
        """Whether there is no table in it yet."""
        return self._number("SELECT count(*) FROM sqlite_schema") == 0

    def create(self, records: Mapping[str, Any]) -> None:
        """Make the tables, and keep the records by name."""
        with self._errors():
            for statement in (_SCHEMA + _LEASES).split(";"):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            self._connection.execute(f"PRAGMA user_version = {_VERSION}")
        self._add("record", ((name, json.dumps(value)) for name, value in records.items()))

    def check_kind(self) -> None:
        """Refuse a database that is no run file, or one of a newer format."""
        if self._number("PRAGMA application_id") != _APPLICATION_ID:
            raise RunFileError(f"{self.path}: not an onnxnoise run file; name another file with --out")
        version = self._number("PRAGMA user_version")
        if version > _VERSION:
            raise RunFileError(
                f"{self.path}: written by a newer onnxnoise (format {version}, this one reads {_VERSION}); "
                "upgrade onnxnoise or name another file with --out"
            )

    def upgrade(self) -> None:
        """Make a file of an earlier format one of this format; what it holds stays as it is."""
        if self._number("PRAGMA user_version") == _VERSION:
            return
        with self.transaction():
            version = self._number("PRAGMA user_version")  # another process may have been faster
            if version == 2:
                self._connection.execute("DROP TABLE claim")  # leases end with the processes that hold them
            if version < _VERSION:
                self._connection.execute("ALTER TABLE tally RENAME COLUMN snr TO level")
                for statement in _LEASES.split(";"):
                    self._connection.execute(statement)
                for table, columns in SUMMED.items():
                    self._connection.execute(f"ALTER TABLE {table} ADD COLUMN checksum INTEGER")
                    self._connection.execute(f"UPDATE {table} SET checksum = checksum({', '.join(columns)})")
                self._connection.execute(f"PRAGMA user_version = {_VERSION}")

    def write_ahead(self) -> None:
        """Sync once a commit, and let readers not stop a writer; the extra files go when the last process closes.

        What is committed stays, even where the power goes off; SQLite's own default depends on who built it.
        """
        with self._errors():
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA fullfsync = ON")
        with suppress(sqlite3.OperationalError):  # another process is at it: this one wants the same, and works without
            self._connection.execute("PRAGMA journal_mode = WAL")

    # Table `record`

    def record(self, name: str) -> dict[str, Any]:
        """What `create` kept by this name."""
        rows = list(self._checked("record", "WHERE name = ?", (name,)))
        if not rows:
            raise RunFileError(f"{self.path}: damaged: it lacks its {name}; name another file with --out")
        try:
            record: dict[str, Any] = json.loads(rows[0][1])
        except ValueError as error:
            raise RunFileError(f"{self.path}: damaged: its {name} is no JSON; name another file with --out") from error
        return record

    # Table `run`

    def runs(self) -> list[str]:
        """JSON of every run that had a part in the tallies, oldest first."""
        return [text for (text,) in self._checked("run", "ORDER BY number")]

    def add_runs(self, texts: Iterable[str]) -> None:
        self._add("run", ((text,) for text in texts))

    # Table `chunk`

    def chunks(self) -> list[range]:
        """The chunks of images, in order: each as the range of positions in the data."""
        rows = self._checked("chunk", "ORDER BY start")
        return [range(start, start + images) for start, images, _ in rows]

    def digests(self) -> dict[int, str | None]:
        """By each chunk's start, the digest of its pixels and labels; None where none is known yet."""
        return {start: sha256 for start, _, sha256 in self._checked("chunk")}

    def add_chunks(self, chunks: Iterable[range]) -> None:
        """Add chunks; one that begins where another does is left out."""
        self._add("chunk", ((chunk.start, len(chunk), None) for chunk in chunks))

    def add_digests(self, digests: Mapping[int, str]) -> None:
        """Keep the digests of chunks that have none, by start."""
        rows = ((sha256, sha256, start) for start, sha256 in digests.items())
        change = "UPDATE chunk SET sha256 = ?, checksum = checksum(start, images, ?) WHERE start = ? AND sha256 IS NULL"
        self._write(change, rows)

    # Table `tally`

    def keys(self) -> set[TallyKey]:
        """Keys of all tallies."""
        rows = self._all(f"SELECT sweep, layer, {self._level}, draw, start FROM tally")
        return {(sweep, layer or None, level, draw, start) for sweep, layer, level, draw, start in rows}

    def tallies(self, sweep: str, layer: int | None, level: float) -> Iterator[Tally]:
        """The tallies of one cell, by draw and start."""
        where = f"WHERE sweep = ? AND layer = ? AND {self._level} = ? ORDER BY draw, start"
        return map(_tally, self._checked("tally", where, (sweep, layer or _NO_LAYER, level)))

    def all_tallies(self) -> Iterator[Tally]:
        """Every tally, ordered by its key."""
        return map(_tally, self._checked("tally", f"ORDER BY sweep, layer, {self._level}, draw, start"))

    def tally(self, key: TallyKey) -> Tally | None:
        where = f"WHERE {_KEY.replace('level', self._level)}"
        return next(map(_tally, list(self._checked("tally", where, _key(key)))), None)

    def add_tallies(self, tallies: Iterable[Tally]) -> int:
        """Add tallies, and say how many; one that is there already stays as it is."""
        return self._add("tally", map(_row, tallies))

    # Tables `owner` and `claim`: the leases

    def owners(self) -> list[Owner]:
        return [Owner(*row) for row in self._all("SELECT number, place, pid, born, seen FROM owner")]

    def keep_owner(self, owner: Owner) -> None:
        """Add an owner, or renew what is known of it."""
        self._write("INSERT OR REPLACE INTO owner VALUES (?,?,?,?,?)", [owner])

    def drop_owner(self, number: int) -> None:
        """Forget an owner and its leases."""
        self._write("DELETE FROM claim WHERE owner = ?", [(number,)])
        self._write("DELETE FROM owner WHERE number = ?", [(number,)])

    def lease(self, keys: Sequence[TallyKey], owner: int) -> tuple[TallyKey, ...]:
        """Lease to an owner those of `keys` that are neither measured nor another's; return them."""
        taken = f"SELECT 1 FROM tally WHERE {_KEY} UNION ALL SELECT 1 FROM claim WHERE {_KEY} AND owner <> ?"
        free = tuple(key for key in keys if not self._all(taken, (*_key(key), *_key(key), owner)))
        self._write("INSERT OR REPLACE INTO claim VALUES (?,?,?,?,?,?)", ((*_key(key), owner) for key in free))
        return free

    def end_leases(self, keys: Iterable[TallyKey]) -> None:
        """End the leases of these keys, whoever holds them."""
        self._write(f"DELETE FROM claim WHERE {_KEY}", map(_key, keys))

    def others_hold(self, owner: int) -> bool:
        """Whether an owner other than this one holds a lease."""
        return bool(self._number("SELECT EXISTS (SELECT 1 FROM claim WHERE owner <> ?)", (owner,)))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise _run_file_error(self.path, error) from error

    def _rows(self, query: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """Rows as they are read, one held at a time."""
        with self._errors():
            for row in self._connection.execute(query, values):  # noqa: UP028 yield from closes cursors, too late
                yield row

    @property
    def _level(self) -> str:
        """What the column of levels is called in this file's format."""
        return "level" if self._number("PRAGMA user_version") >= 3 else "snr"

    def _checked(self, table: str, rest: str = "", values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """Rows of a table, in the columns that its checksums are made of; RunFileError for one that is not its checksum's."""
        columns = SUMMED[table]
        if self._level == "snr":
            names = ", ".join("snr" if name == "level" else name for name in columns)
            yield from self._rows(f"SELECT {names} FROM {table} {rest}", values)
            return
        for *row, kept in self._rows(f"SELECT {', '.join(columns)}, checksum FROM {table} {rest}", values):
            if kept != checksum(*row):
                where = ", ".join(str(value)[:40] for value in row[: 5 if table == "tally" else 1])
                raise RunFileError(
                    f"{self.path}: damaged: in its table {table} the row of {where} is not what was kept there; "
                    "measure it again into another file with --out"
                )
            yield tuple(row)

    def _add(self, table: str, rows: Iterable[Sequence[object]]) -> int:
        """Add rows with their checksums; one whose key is there stays as it is. Return how many were added."""
        columns = (*SUMMED[table], "checksum")
        into = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        return self._write(into, ((*row, checksum(*row)) for row in rows))

    def _all(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return list(self._rows(query, values))

    def _number(self, query: str, values: Sequence[object] = ()) -> int:
        return int(self._all(query, values)[0][0])

    def _write(self, statement: str, rows: Iterable[Sequence[object]]) -> int:
        """Do the statement for each row; return how many rows of the table it changed."""
        with self._errors():
            return self._connection.executemany(statement, rows).rowcount


def checksum(*values: object) -> int:
    """CRC-32 of a row's values, each with its type and length, so that no two rows read alike."""
    total = 0
    for value in values:
        content = value if isinstance(value, bytes) else repr(value).encode("utf-8", "backslashreplace")
        total = crc32(b"%d:%b:%b" % (len(content), type(value).__name__.encode(), content), total)
    return total


def is_database(path: Path) -> bool:
    """Whether a file is an SQLite database, by its first bytes; raises OSError where it can't be read."""
    with open_file(path) as file:
        return file.read(16) == b"SQLite format 3\0"


def _key(key: TallyKey) -> TallyKey:
    sweep, layer, level, draw, start = key
    return sweep, layer or _NO_LAYER, float(level), int(draw), int(start)


def _row(tally: Tally) -> tuple[object, ...]:
    bits = (tally.top1, tally.top5, tally.nonfinite)
    return (*_key(tally.key), int(tally.images), *bits, int(tally.negative_variances))


def _tally(row: tuple[Any, ...]) -> Tally:
    sweep, layer, *rest = row
    return Tally(sweep, layer or None, *rest)


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
