"""Which process measures what in a run file that several share, so that nothing is measured twice."""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Self

from onnxnoise.errors import RunFileError
from onnxnoise.records import TallyKey
from onnxnoise.results.store import WHOLE, RunStore

if TYPE_CHECKING:
    from sqlite3 import Connection

_BEAT = 10.0
"""Seconds between two signs of life."""

_LEASE = 60.0
"""Seconds without one after which the claims of a process that can't be looked at here are nobody's."""

_POLL, _LONGEST = 0.1, 5.0
"""Seconds between two looks at what others do, and until a waiting process asks again what is left."""


class Claims:
    """What this process measures at the moment, written into the run file; use it in a `with` block.

    A claim ends when its tally is kept, at the end of the block, or with the process: on Linux another one sees at once
    that it is gone, elsewhere, or from another container, a minute after its last sign of life.
    """

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self.number = secrets.randbits(63)
        self._ended = Event()
        self._life = Thread(target=self._live, daemon=True, name="onnxnoise-claims")

    def __enter__(self) -> Self:
        self._show(self.store)
        self._life.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._life.join()
        with suppress(RunFileError), self.store.transaction() as connection:  # a full disk: they end with the process
            _drop(connection, self.number)

    def take(self, keys: Sequence[TallyKey]) -> tuple[TallyKey, ...]:
        """Those of `keys` that are neither measured nor claimed by a process that lives; they are this one's now."""
        with self.store.transaction() as connection:
            self._drop_dead(connection)
            where = "sweep = ? AND layer = ? AND snr = ? AND draw = ? AND start = ?"
            taken = f"SELECT 1 FROM tally WHERE {where} UNION ALL SELECT 1 FROM claim WHERE {where} AND owner <> ?"
            free = []
            for key in keys:
                row = (key[0], key[1] or WHOLE, *key[2:])
                if connection.execute(taken, (*row, *row, self.number)).fetchone() is None:
                    free.append((key, row))
            own = [(*row, self.number) for _, row in free]
            connection.executemany("INSERT OR REPLACE INTO claim VALUES (?,?,?,?,?,?)", own)
        return tuple(key for key, _ in free)

    def others(self) -> bool:
        """Whether another living process works on this run file."""
        with self.store.transaction() as connection:
            self._drop_dead(connection)
            return connection.execute("SELECT 1 FROM owner WHERE number <> ?", (self.number,)).fetchone() is not None

    def wait(self) -> None:
        """Until others have no more claims, or one of them is gone, or it is worth looking again at what is left."""
        began = time.monotonic()
        while time.monotonic() - began < _LONGEST:
            with self.store.transaction() as connection:
                dropped = self._drop_dead(connection)
                query = "SELECT 1 FROM claim WHERE owner <> ? LIMIT 1"
                if dropped or connection.execute(query, (self.number,)).fetchone() is None:
                    return
            time.sleep(_POLL)

    def _live(self) -> None:
        while not self._ended.wait(_BEAT):
            with (
                suppress(RunFileError),
                RunStore.existing(self.store.path) as store,
            ):  # a connection of this thread's own
                self._show(store)

    def _show(self, store: RunStore) -> None:
        me = (self.number, _place(), os.getpid(), _born(os.getpid()) or 0, time.time())
        with store.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO owner VALUES (?,?,?,?,?)", me)

    def _drop_dead(self, connection: Connection) -> int:
        owners = connection.execute("SELECT number, place, pid, born, seen FROM owner").fetchall()
        dead = [number for number, *rest in owners if number != self.number and not _lives(*rest)]
        for number in dead:
            _drop(connection, number)
        return len(dead)


def _drop(connection: Connection, number: int) -> None:
    connection.execute("DELETE FROM claim WHERE owner = ?", (number,))
    connection.execute("DELETE FROM owner WHERE number = ?", (number,))


def _lives(place: str, pid: int, born: int, seen: float) -> bool:
    if born and place == _place():
        return _born(pid) == born
    return abs(time.time() - seen) < _LEASE


@cache
def _place() -> str:
    """Where a process number means something: this boot of this machine, and this container."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return " ".join(parts)


def _born(pid: int) -> int | None:
    """When a process began, in the system's ticks; None where it is gone, or the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
