"""Watchers, which are told how a run goes while it goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from onnxnoise.records import Tally
from onnxnoise.run.jobs import Job
from onnxnoise.run.opening import Run


class Watcher(Protocol):
    """Somebody who is told how a run goes."""

    def started(self, run: Run) -> None:
        """Everything is open and checked; nothing was measured in this process yet."""

    def planned(self, jobs: Sequence[Job]) -> None:
        """A round begins, which will measure these jobs."""

    def measured(self, tally: Tally) -> None:
        """One pass over a chunk is done, clean ones included. Called in the thread that runs `bench`."""


class Silent:
    """A watcher that shows nothing."""

    def started(self, run: Run) -> None: ...
    def planned(self, jobs: Sequence[Job]) -> None: ...
    def measured(self, tally: Tally) -> None: ...


Watching = Callable[[], AbstractContextManager[Watcher]]
"""Makes a watcher for a run; the block ends when the run does."""


def unwatched() -> AbstractContextManager[Watcher]:
    """Makes a watcher that shows nothing."""
    return nullcontext(Silent())


def watched_by(watcher: Watcher | None) -> Watching:
    """Gives every run the same watcher, which its owner ends; None shows nothing."""
    return lambda: nullcontext(watcher or Silent())
