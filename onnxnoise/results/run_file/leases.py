"""Leases in a run file that several processes share: each takes the tallies it measures, so that none is measured twice."""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self

from onnxnoise.errors import RunFileError
from onnxnoise.records import TallyKey
from onnxnoise.results.run_file.content import Owner
from onnxnoise.results.run_file.database import Database
from onnxnoise.results.run_file.store import RunStore

_BEAT = 10.0
"""Seconds between two signs of life of a process."""

_EXPIRY = 60.0
"""Seconds after its last sign of life until the leases of a process end, where nobody here can see whether it lives."""

_POLL, _LONGEST = 0.1, 5.0
"""Seconds between two looks at the others' leases, and until a waiting process asks again for tallies that are left."""


class Leases:
    """The tallies that this process is measuring, written into the run file; use it in a `with` block.

    A lease ends when its tally is kept, at the end of the block, or with the process. On Linux another process sees at once
    that this one is gone; elsewhere, or from another container, a minute after its last sign of life.
    """

    def __init__(self, store: RunStore) -> None:
        self._database = store.database
        self._number = secrets.randbits(63)
        self._ended = Event()
        self._life = Thread(target=self._live, daemon=True, name="onnxnoise-leases")

    def __enter__(self) -> Self:
        self._show(self._database)
        self._life.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._life.join()
        with suppress(RunFileError), self._database.transaction():  # a full disk: they end with the process
            self._database.drop_owner(self._number)

    def take(self, keys: Sequence[TallyKey]) -> tuple[TallyKey, ...]:
        """Lease those of `keys` that are neither measured nor leased to another living process, and return them."""
        with self._database.transaction():
            self._drop_dead()
            return self._database.lease(keys, self._number)

    def others(self) -> bool:
        """Whether another living process works on this run file."""
        with self._database.transaction():
            self._drop_dead()
            return any(owner.number != self._number for owner in self._database.owners())

    def wait(self) -> None:
        """Wait until others have no more leases, or one of them is gone, or it is time to look again for tallies to lease."""
        began = time.monotonic()
        while time.monotonic() - began < _LONGEST:
            with self._database.transaction():
                if self._drop_dead() or not self._database.others_hold(self._number):
                    return
            time.sleep(_POLL)

    def _live(self) -> None:
        while not self._ended.wait(_BEAT):
            with suppress(RunFileError), closing(Database(self._database.path, "rw")) as own:  # this thread's own
                if self._database.is_there:
                    self._show(own)

    def _show(self, database: Database) -> None:
        """Write into the run file that this process lives."""
        pid = os.getpid()
        with database.transaction():
            database.keep_owner(Owner(self._number, _place(), pid, _born(pid) or 0, time.time()))

    def _drop_dead(self) -> bool:
        """End the leases of processes that are gone; return whether there were any."""
        dead = [owner.number for owner in self._database.owners() if owner.number != self._number and not _lives(owner)]
        for number in dead:
            self._database.drop_owner(number)
        self._database.drop_claims()
        return bool(dead)


def _lives(owner: Owner) -> bool:
    if owner.born and owner.place == _place():
        return _born(owner.pid) == owner.born
    return abs(time.time() - owner.seen) < _EXPIRY


@cache
def _place() -> str:
    """The place in which a process number means something: this boot of this machine, and this container."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return " ".join(parts)


def _born(pid: int) -> int | None:
    """The time at which a process began, in the system's clock ticks; None if it is gone, or the system doesn't tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
