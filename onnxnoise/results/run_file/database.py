"""The SQLite file under a run file: its tables, its transactions, and what SQLite's errors mean to the person who must act.

This is the only module that speaks SQL. Each method is one statement on one table, or a few that belong together; whoever needs
several of them at once wraps them in `transaction`. Tables: `record` (identity and description), `run` (who measured),
`chunk` (the images, cut), `tally` (hits), and what format 2 added, `owner` and `claim`: the leases, which say which process
measures what at this moment. Format 3 calls a tally's level of the noise `level`, where it was `snr`, and gives each row of the
other four tables a checksum, which is held against the row whenever it is read. Files of earlier formats are read as they are,
and become format 3 when a run goes on with them. Whatever the format, what is read makes sense (`content`), or it is an error
that names the file, the table and the row.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

from onnxnoise.errors import RunFileError
from onnxnoise.files import open_file
from onnxnoise.records import Realized, Tally, TallyKey
from onnxnoise.results.run_file import content
from onnxnoise.results.run_file.content import Owner, TallyCheck
from onnxnoise.text import shortened

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

_NAMED_BY = {"record": 1, "run": 0, "chunk": 1, "tally": 5}
"""The number of columns by which a message names a row; 0 for a row that has a number."""

_PRIMARY = {"record": ("name",), "run": ("number",), "chunk": ("start",), "tally": SUMMED["tally"][:5]}
_HOLDERS = {"owner": ("number", "place", "pid", "born", "seen"), "claim": (*SUMMED["tally"][:5], "owner")}

_COMPUTING = re.compile(r"\b(VIRTUAL|CHECK|DEFAULT|GENERATED|AS|REFERENCES|COLLATE)\b", re.IGNORECASE)
"""Words in a table's definition by which the file could make SQLite compute something."""

_LARGEST = 64 << 20
"""Bytes of the largest value that is read: the bits of half a billion images."""

_MOST_KNOWN = 1_000_000
"""Tallies of which it is kept that they were found right; some 60 bytes each."""

_KEY = "sweep = ? AND layer = ? AND level = ? AND draw = ? AND start = ?"

_PATIENCE = 30
"""Seconds to wait while another process writes."""

_REALIZED = "realized"
"""The name of the record with the realized noise, which a file has once a run of it has ended."""

_NO_LAYER = 0
"""Stands for "no one layer" in the tables' keys, which can't hold NULL."""


class Database:
    """An open SQLite file. Every method raises RunFileError with what to do."""

    def __init__(self, path: Path, mode: Literal["rw", "rwc", "ro"]) -> None:
        """`mode`: "rw" for a file that must be there, "rwc" to make one if it is not, "ro" to read it, wherever it lies."""
        self.path = path
        self._records: dict[str, dict[str, Any]] = {}
        self._check: TallyCheck | None = None
        self._known: set[int] = set()
        self._is_current = False
        self._rescued = ""
        with self._errors(reading=mode == "ro"):
            self._connection = _readable(path) if mode == "ro" else _connected(path, f"mode={mode}")
            self._place = _place(path)

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
        self.check_place()

    @property
    def is_there(self) -> bool:
        """Whether the path still leads to the file that was opened, and nobody has emptied it.

        The file isn't opened for that: to close it again would end SQLite's locks, which are the process's.
        """
        return _place(self.path) == self._place and _size(self.path) > 0

    def check_place(self) -> None:
        """Raise RunFileError where the file was removed, or another one put in its place; what it held is written beside it."""
        if self.is_there:
            return
        found = "another file was put in its place" if self.path.exists() else "it was removed"
        if _place(self.path) == self._place:
            found = "it was emptied"
        self._rescued = self._rescued or self._rescue()
        raise RunFileError(f"{self.path}: {found} while it was written to; {self._rescued}")

    def _rescue(self) -> str:
        """Write what the open file holds to a new file, beside its path if that can be; what happened, and what to do now."""
        target = None
        for folder in (self.path.parent, Path.cwd(), Path(tempfile.gettempdir())):
            names = (f"{self.path.stem}.rescued{n}.sqlite" for n in ("", *(f"-{n}" for n in range(2, 100))))
            target = next((folder / name for name in names if not (folder / name).exists()), target)
            if target is not None:
                with suppress(sqlite3.Error), closing(sqlite3.connect(target)) as copy:
                    self._connection.backup(copy)
                    if copy.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
                        break
                    return (
                        f"what was measured until then is in {target}: move that to where it belongs, and the same command "
                        "goes on from there"
                    )
        return f"what was measured can't be saved to {target} either; run the same command again"

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
        """Refuse a database that is no run file, one of a newer format, or one whose tables are not those of its format."""
        with self._errors():
            self._connection.execute("BEGIN")  # so that all is as one moment has it
        try:
            self._check_format()
        finally:
            self._connection.rollback()

    def _check_format(self) -> None:
        if self._number("PRAGMA application_id") != _APPLICATION_ID:
            raise RunFileError(f"{self.path}: not an onnxnoise run file; name another file with --out")
        version = self._number("PRAGMA user_version")
        if version > _VERSION:
            raise RunFileError(
                f"{self.path}: written by a newer onnxnoise (format {version}, this one reads {_VERSION}); "
                "upgrade onnxnoise or name another file with --out"
            )
        self._check_tables(version)

    def _check_tables(self, version: int) -> None:
        """Refuse tables that are not those of the format, and whatever could compute or change something when it is read."""
        if version < 1:
            raise self._damaged(f"it says that its format is {version}")
        for kind, name, statement in self._all("SELECT type, name, sql FROM sqlite_schema"):
            if kind not in ("table", "index") or (kind == "index" and statement is not None):
                raise self._damaged(f"it has the {kind} {content.shown(name)}, which no run file has")
            known = SUMMED.keys() | _HOLDERS.keys()
            if kind == "table" and not str(name).startswith("sqlite_"):
                if name not in known:
                    raise self._damaged(f"it has the table {content.shown(name)}, which no run file has")
                if _COMPUTING.search(str(statement)):
                    raise self._damaged(f"its table {name} is not defined as in a run file")
        for table, summed in SUMMED.items():
            primary = _PRIMARY[table]
            columns = {*primary, *summed, "checksum"} if version >= 3 else {*primary, *summed}
            found = self._all(f"SELECT name, pk FROM pragma_table_xinfo('{table}') WHERE hidden = 0")
            if {self._formatted(each) for each in columns} != {name for name, _ in found} or tuple(
                name for name, place in sorted(found, key=lambda each: each[1]) if place
            ) != tuple(map(self._formatted, primary)):
                raise self._damaged(f"its table {table} has not the columns of format {version}")

    def upgrade(self) -> None:
        """Make a file of an earlier format one of this format; what it holds stays as it is."""
        if self._number("PRAGMA user_version") == _VERSION:
            return
        with self.transaction():
            version = self._number("PRAGMA user_version")  # another process may have been faster
            if version < _VERSION:
                self._connection.execute("DROP TABLE IF EXISTS claim")  # leases end with the processes that hold them
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
        """The record that `create` kept by this name: the identity, or the description."""
        if name not in self._records:
            rows = self._checked("record", self._check_record, "WHERE name = ?", (name,))
            if not (found := [content.parsed(text) for _, text in rows]):
                raise self._damaged(f"it lacks its {name}")
            self._records[name] = found[0]
        return self._records[name]

    def realized(self) -> list[Realized]:
        """The realized noise that `keep_realized` kept; none in a file where it wasn't measured yet."""
        rows = self._checked("record", self._check_record, "WHERE name = ?", (_REALIZED,))
        return [content.realized(each) for _, text in rows for each in content.parsed(text)["layers"]]

    def keep_realized(self, found: Iterable[Realized]) -> None:
        """Keep the realized noise in place of what there was."""
        text = json.dumps({"layers": [list(vars(each).values()) for each in found]})
        columns = ", ".join((*SUMMED["record"], "checksum"))
        self._write(
            f"INSERT OR REPLACE INTO record ({columns}) VALUES (?, ?, ?)",
            [(_REALIZED, text, checksum(_REALIZED, text))],
        )

    def _check_record(self, name: str, text: Any) -> None:
        record = content.parsed(text)
        if name == "identity":
            content.check_identity(record)
        elif name == _REALIZED:
            content.check_realized(record, self.record("identity"))
        else:
            content.check_description(record, self.record("identity"))

    # Table `run`

    def runs(self) -> list[str]:
        """JSON of every run that had a part in the tallies, oldest first."""
        rows = self._checked("run", lambda text: content.check_run(content.parsed(text)), "ORDER BY number")
        return [text for (text,) in rows]

    def add_runs(self, texts: Iterable[str]) -> None:
        self._add("run", ((text,) for text in texts))

    # Table `chunk`

    def chunks(self) -> list[range]:
        """The chunks of images, in order: each as the range of positions in the data. Each begins where another ends."""
        return [range(start, start + images) for start, images, _ in self._chunks()]

    def digests(self) -> dict[int, str | None]:
        """The digest of each chunk's pixels and labels, by the chunk's start; None where none is known yet."""
        return {start: sha256 for start, _, sha256 in self._chunks()}

    def digest(self, start: int) -> str | None:
        """The digest of one chunk's pixels and labels; None where none is known yet."""

        def check(start: Any, images: Any, sha256: Any) -> None:
            content.check_chunk(start, images, sha256, start)

        rows = list(self._checked("chunk", check, "WHERE start = ?", (start,)))
        return rows[0][2] if rows else None

    def _chunks(self) -> Iterator[tuple[Any, ...]]:
        ends = 0

        def check(start: Any, images: Any, sha256: Any) -> None:
            nonlocal ends
            ends = content.check_chunk(start, images, sha256, ends)

        return self._checked("chunk", check, "ORDER BY start")

    def add_chunks(self, chunks: Iterable[range]) -> None:
        """Add chunks; one that begins where another does is left out."""
        self._check = None
        self._add("chunk", ((chunk.start, len(chunk), None) for chunk in chunks))

    def add_digests(self, digests: Mapping[int, str]) -> None:
        """Keep the digests of chunks that have none, by start."""
        rows = ((sha256, sha256, start) for start, sha256 in digests.items())
        change = "UPDATE chunk SET sha256 = ?, checksum = checksum(start, images, ?) WHERE start = ? AND sha256 IS NULL"
        self._write(change, rows)

    # Table `tally`

    def keys(self) -> set[TallyKey]:
        """Keys of all tallies."""
        found: set[TallyKey] = set()
        check = self._tally_check()
        for key in self._rows(f"SELECT {', '.join(map(self._formatted, SUMMED['tally'][:5]))} FROM tally"):
            with self._named("tally", key):
                self._check_chunks(check, key)
                check.key(*key)
            sweep, layer, level, draw, start = key
            found.add((sweep, layer or None, level, draw, start))
        return found

    def tallies(self, sweep: str, layer: int | None, level: float) -> Iterator[Tally]:
        """The tallies of one cell, by draw and start."""
        where = f"WHERE sweep = ? AND layer = ? AND {self._formatted('level')} = ? ORDER BY draw, start"
        return self._tallies(where, (sweep, layer or _NO_LAYER, level))

    def all_tallies(self) -> Iterator[Tally]:
        """Every tally, ordered by its key."""
        return self._tallies(f"ORDER BY {', '.join(map(self._formatted, SUMMED['tally'][:5]))}")

    def tally(self, key: TallyKey) -> Tally | None:
        where = f"WHERE {_KEY.replace('level', self._formatted('level'))}"
        return next(iter(list(self._tallies(where, _key(key)))), None)

    def _tallies(self, rest: str, values: Sequence[object] = ()) -> Iterator[Tally]:
        check = self._tally_check()
        summed = not self._is_old

        def checked(*row: Any) -> None:
            self._check_chunks(check, row)
            check.tally(row)
            if not summed:
                content.check_hits(*row[6:9])

        return map(_tally, self._checked("tally", checked, rest, values))

    def _tally_check(self) -> TallyCheck:
        if self._check is None:
            self._check = TallyCheck.of(self.record("identity"), self._sizes())
        return self._check

    def _check_chunks(self, check: TallyCheck, key: Sequence[Any]) -> None:
        """Let the check know of chunks that another process has laid down since."""
        if isinstance(key[4], int) and key[4] not in check.sizes:
            check.sizes = self._sizes()

    def _sizes(self) -> dict[int, int]:
        return {chunk.start: len(chunk) for chunk in self.chunks()}

    def verify(self) -> int:
        """Read every row, as others do a part of them, and hold it against checksum and content; how many there are.

        Raises RunFileError that names the first row that is not what was kept there.
        """
        records = [self.record(name) for name in ("identity", "description")]
        check = "PRAGMA quick_check(1)"
        if (found := self._all(check)) != [("ok",)]:
            raise self._damaged(f"SQLite says: {shortened(str(found[0][0]), 200)}")
        more = 1 if self.realized() else 0
        return len(records) + more + len(self.runs()) + len(self.chunks()) + sum(1 for _ in self.all_tallies())

    def add_tallies(self, tallies: Iterable[Tally]) -> int:
        """Add tallies, and say how many; one that is there already stays as it is."""
        return self._add("tally", map(_row, tallies))

    # Tables `owner` and `claim`: the leases

    def owners(self) -> list[Owner]:
        found = []
        for row in self._all(f"SELECT {', '.join(_HOLDERS['owner'])} FROM owner"):
            with self._named("owner", row[:1]):
                found.append(content.check_owner(row))
        return found

    def keep_owner(self, owner: Owner) -> None:
        """Add an owner, or renew what is known of it."""
        self._write("INSERT OR REPLACE INTO owner VALUES (?,?,?,?,?)", [owner])

    def drop_owner(self, number: int) -> None:
        """Forget an owner and its leases."""
        self._write("DELETE FROM claim WHERE owner = ?", [(number,)])
        self._write("DELETE FROM owner WHERE number = ?", [(number,)])

    def drop_claims(self) -> None:
        """End the leases of owners that are not there."""
        self._write("DELETE FROM claim WHERE owner NOT IN (SELECT number FROM owner)", [()])

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
    def _errors(self, *, reading: bool = False) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            raise _run_file_error(self.path, error, reading=reading) from error

    def _damaged(self, what: str) -> RunFileError:
        return RunFileError(f"{self.path}: damaged: {what}; measure it again into another file with --out")

    @contextmanager
    def _named(self, table: str, names: Sequence[Any]) -> Iterator[None]:
        """Errors of the block, about what a row holds, name the table and the row."""
        try:
            yield
        except ValueError as error:
            row = ", ".join(shortened(str(name), 40) for name in names)
            raise self._damaged(f"in its table {table} the row of {row}: {error}") from error

    def _rows(self, query: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """Rows as they are read, one held at a time."""
        with self._errors():
            for row in self._connection.execute(query, values):  # noqa: UP028 yield from closes cursors, too late
                yield row

    @property
    def _is_old(self) -> bool:
        """Whether the file's format is an earlier one; another process may upgrade it, and none goes back."""
        self._is_current = self._is_current or self._number("PRAGMA user_version") >= _VERSION
        return not self._is_current

    def _formatted(self, column: str) -> str:
        """The name of a column in this file's format."""
        return "snr" if column == "level" and self._is_old else column

    def _checked(
        self, table: str, check: Callable[..., object], rest: str = "", values: Sequence[object] = ()
    ) -> Iterator[tuple[Any, ...]]:
        """Rows of a table, in the columns that its checksums are made of, each held against its checksum and `check`.

        `check` takes a row's columns and raises ValueError for what no onnxnoise writes; here it becomes a RunFileError. A tally
        that was found right is not checked again while it reads the same: a schedule reads all of them before each round.
        """
        old = self._is_old
        columns = [self._formatted(name) for name in SUMMED[table]]
        more = ["NULL" if old else "checksum", *([] if _NAMED_BY[table] else _PRIMARY[table])]
        for row in self._rows(f"SELECT {', '.join([*columns, *more])} FROM {table} {rest}", values):
            own, kept, number = row[: len(columns)], row[len(columns)], row[len(columns) + 1 :]
            mark = hash(row) if table == "tally" else None
            if mark in self._known:
                yield own
                continue
            with self._named(table, number or own[: _NAMED_BY[table]]):
                if not old and kept != checksum(*own):
                    raise ValueError("it is not what was kept there")
                check(*own)
            if mark is not None and len(self._known) < _MOST_KNOWN:
                self._known.add(mark)
            yield own

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
_UNREADABLE = "can't be read; check its permissions, or copy it to where you may read it"


def _run_file_error(path: Path, error: Exception, *, reading: bool = False) -> RunFileError:
    kind = getattr(error, "sqlite_errorname", "").removeprefix("SQLITE_").split("_")[0]
    if reading and kind in ("CANTOPEN", "READONLY", "IOERR"):
        return RunFileError(f"{path}: {_UNREADABLE}")
    return RunFileError(
        f"{path}: {_ADVICE.get(kind, f'damaged or not usable ({error}); name another file with --out')}"
    )


def _connected(path: Path, parameters: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{parameters}",
        uri=True,
        timeout=_PATIENCE,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.create_function("checksum", -1, checksum, deterministic=True)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST)
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def _readable(path: Path) -> sqlite3.Connection:
    """A connection that only reads. Where nothing may be written, neither the file nor what SQLite puts beside it is needed.

    Where this process may write, SQLite makes its two files beside the run file while it reads, and takes them away: so it sees
    what a run has measured until now. Elsewhere it reads the file as it lies there, unless a run left a part of it beside it.
    """
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        with suppress(sqlite3.OperationalError), _closed_on_error(_connected(path, "mode=rw")) as connection:
            connection.execute("SELECT count(*) FROM sqlite_schema")
            return connection
    beside = [path.with_name(path.name + end) for end in ("-wal", "-journal")]
    if not (left := [each.name for each in beside if _size(each)]):
        return _connected(path, "mode=ro&immutable=1")
    try:
        with _closed_on_error(_connected(path, "mode=ro")) as connection:
            connection.execute("SELECT count(*) FROM sqlite_schema")
            return connection
    except sqlite3.OperationalError as error:
        raise RunFileError(
            f"{path}: what was measured last is in {left[0]} beside it, which can't be read without writing here; copy both to "
            "a folder that you may write to"
        ) from error


@contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _place(path: Path) -> tuple[int, int] | None:
    """The file that a path leads to: device and number; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
