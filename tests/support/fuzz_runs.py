"""Run files edited at random, by whoever knows their format, and what no command may do with one."""

from __future__ import annotations

import json
import random
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from onnxnoise.results.run_file import database
from support.command import Outcome, onnxnoise
from support.runfiles import RunFile

RULES = '[[rule]]\nname = "rule"\nsnr = 10\nmin = 0.5\n[[rule]]\nname = "mean"\nsnr = 10\nsweep = "single"\nmax_drop = 0.9\n'
TABLES = {
    "record": ("name", "json"),
    "run": ("number", "json"),
    "chunk": ("start", "images", "sha256"),
    "tally": database.SUMMED["tally"],
    "owner": ("number", "place", "pid", "born", "seen"),
}
VALUES: tuple[Any, ...] = (
    *(
        None,
        "",
        "x",
        "\x00",
        "\udcff".encode("utf-8", "surrogatepass"),
        b"",
        b"\xff",
        b"\xff" * 5000,
        "NaN",
        "1" * 5000,
    ),
    *(0, 1, -1, 2, 7, 99, 1 << 31, (1 << 63) - 1, -(1 << 63), 0.5, -0.0, 5e-324, 1e308, float("inf"), -float("inf")),
    *("all", "clean", "single", "cumulative", "{}", "[]", "null", "[" * 5000, '{"a":' * 5000, "'", "💥" * 99),
)
JSON_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        "",
        "x",
        "nested",
        "top5",
        "a" * 5000,
        "\x00\x1b[31m",
        "\udcff",
        "gaussian",
        "relative",
        "all",
    ),
    *(0, -1, 1, 3, 99, 1 << 40, 10**400, 0.5, 1e-320, float("nan"), float("inf"), -float("inf")),
    *([], {}, [[]], [0], [1, 1], [3, 2, 1], ["x"], [None], [10**30], [1e-320], {"": 0}, {"a": {"b": [1]}}),
)
STATEMENTS = (
    *(
        "DELETE FROM chunk",
        "DELETE FROM tally",
        "DELETE FROM record",
        "DELETE FROM run",
        "DELETE FROM tally WHERE draw = 0",
    ),
    *(
        "DELETE FROM tally WHERE sweep = 'clean'",
        "DELETE FROM chunk WHERE start > 0",
        "DELETE FROM tally WHERE layer = 2",
    ),
    *("DROP TABLE chunk", "DROP TABLE tally", "DROP TABLE owner", "DROP TABLE claim", "DROP TABLE run"),
    *(
        "ALTER TABLE tally DROP COLUMN nonfinite",
        "ALTER TABLE tally RENAME COLUMN level TO snr",
        "ALTER TABLE run ADD COLUMN x",
    ),
    *("PRAGMA user_version = 0", "PRAGMA user_version = 1", "PRAGMA user_version = 2", "PRAGMA user_version = -5"),
    *("PRAGMA application_id = 7", "CREATE TABLE other (x)", "CREATE INDEX fast ON tally (draw)"),
    "CREATE TRIGGER t BEFORE INSERT ON tally BEGIN SELECT RAISE(ABORT, 'no'); END",
    "ALTER TABLE chunk RENAME TO c; CREATE VIEW chunk AS WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 8 FROM n)"
    " SELECT i AS start, 8 AS images, NULL AS sha256, 0 AS checksum FROM n",
    "UPDATE tally SET level = level / 1e200",
    "UPDATE tally SET top5 = x'' WHERE draw = 1",
    "UPDATE tally SET top1 = top1 || x'00'",
    "UPDATE tally SET draw = draw + 1000000000 WHERE sweep <> 'clean'",
    "UPDATE chunk SET images = 1 << 39 WHERE start = (SELECT max(start) FROM chunk)",
    "INSERT OR REPLACE INTO chunk VALUES (3, 9, NULL, NULL)",
    "INSERT INTO claim VALUES ('all', 0, 10.0, 99, 0, 5)",
    "INSERT INTO claim SELECT sweep, layer, level, draw, start, 5 FROM tally; DELETE FROM tally WHERE draw > 0",
)


ASKED = {"snrs": [10.0, 2.5], "sweeps": ["single", "all"], "draws": 3, "limit": None, "metric": None, "shard": None}


def small(path: Path) -> Path:
    """A small run file to start from."""
    return RunFile(path, snrs=(10.0, 2.5), sweeps=("single", "all"), asked=ASKED).path


def mutated(source: Path, target: Path, seed: int) -> str:
    """Copy a run file and change the copy, by `seed`; what was done. Mostly its checksums are made to fit again."""
    chance = random.Random(seed)
    shutil.copyfile(source, target)
    kind = chance.choices((_value, _json, _statement, _bytes), (4, 5, 2, 1))[0]
    with suppress(sqlite3.Error):  # what SQLite itself refuses is no case
        return f"seed {seed}: {kind(target, chance)}"
    return f"seed {seed}: nothing"


def _value(path: Path, chance: random.Random) -> str:
    table = chance.choice(list(TABLES))
    column, value = chance.choice(TABLES[table]), chance.choice(VALUES)
    rows = chance.choice(("", f"WHERE {TABLES[table][0]} = (SELECT {TABLES[table][0]} FROM {table} LIMIT 1)"))
    with _editing(path, chance) as connection:
        connection.execute("INSERT OR IGNORE INTO owner VALUES (5, 'x', 1, 1, 1e12)")
        connection.execute(f"UPDATE OR IGNORE {table} SET {column} = ? {rows}", (value,))
    return f"{table}.{column} = {value!r} {rows}"[:200]


def _json(path: Path, chance: random.Random) -> str:
    table, name = chance.choice((("record", "identity"), ("record", "description"), ("run", 1)))
    key = TABLES[table][0]
    with _editing(path, chance) as connection:
        ((text,),) = connection.execute(f"SELECT json FROM {table} WHERE {key} = ?", (name,)).fetchall()
        record = json.loads(text)
        where: Any = record
        done = ""
        while True:
            keys = list(where) if isinstance(where, dict) else list(range(len(where)))
            step = chance.choice(keys)
            done += f"/{step}"
            if not (isinstance(where[step], dict | list) and where[step] and chance.random() < 0.7):
                break
            where = where[step]
        if chance.random() < 0.2:
            del where[step]
        elif chance.random() < 0.1 and isinstance(where, dict):
            where["unknown"] = chance.choice(JSON_VALUES)
        else:
            where[step] = chance.choice(JSON_VALUES)
            done += f" = {where[step]!r}"
        connection.execute(f"UPDATE {table} SET json = ? WHERE {key} = ?", (json.dumps(record), name))
    return f"{table} {name} {done}"[:200]


def _statement(path: Path, chance: random.Random) -> str:
    statements = chance.choice(STATEMENTS)
    with _editing(path, chance) as connection:
        for statement in statements.split(";") if "TRIGGER" not in statements else [statements]:
            connection.execute(statement)
    return statements[:200]


def _bytes(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 1, 20, 400))):
        content[chance.randrange(len(content))] = chance.randrange(256)
    path.write_bytes(content[: chance.choice((len(content), len(content), chance.randrange(len(content))))])
    return "bytes"


@contextmanager
def _editing(path: Path, chance: random.Random) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection, connection:
        yield connection
        if chance.random() < 0.9:
            connection.create_function("checksum", -1, database.checksum)
            for table, columns in database.SUMMED.items():
                with suppress(sqlite3.Error):
                    connection.execute(f"UPDATE {table} SET checksum = checksum({', '.join(columns)})")


class _TooLong(BaseException):
    pass


def wrong(
    mutant: Path, good: Path, folder: Path, seconds: float = 30.0, bench: Callable[[], Outcome] | None = None
) -> str | None:
    """What is wrong with how the commands take a run file; None where each shows it, or says in a line why it can't.

    `good` is the file before it was changed; `bench`, where it is given, goes on with the changed one.
    """
    rules, joined = folder / "rules.toml", folder / "joined.sqlite"
    rules.write_text(RULES)
    commands: list[tuple[str, Callable[[], Outcome]]] = [
        ("report", lambda: onnxnoise("report", mutant, "-o", folder / "page.csv", "--rows", "draws")),
        ("gate", lambda: onnxnoise("gate", mutant, "--rules", rules)),
        ("compare", lambda: onnxnoise("compare", good, mutant, "--json", "-")),
        ("merge", lambda: onnxnoise("merge", mutant, good, "-o", joined)),
        *([("bench", bench)] if bench else []),
    ]
    for name, run in commands:
        joined.unlink(missing_ok=True)
        try:
            with _at_most(seconds):
                outcome = run()
        except _TooLong:
            return f"{name} takes longer than {seconds:g} s"
        if outcome.code not in (0, 1, 2, 3, 5) or "Traceback" in outcome.err:
            return f"{name} exits with {outcome.code}: {outcome.err[-300:]}"
        if (
            outcome.code in (2, 3)
            and len([line for line in outcome.err.splitlines() if line.startswith("error: ")]) != 1
        ):
            return f"{name} says no reason: {outcome.err[-300:]}"
    return None


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
