"""Watchers, which are told how a run goes while it goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from onnxnoise.records import Tally
from onnxnoise.run.jobs import Job
from onnxnoise.run.opening import Run


class Watcher(Protocol):
    """The interface of a watcher, whose methods are called as a run goes on."""

    def started(self, run: Run) -> None:
        """The run is open and checked; this process has measured nothing yet."""

    def planned(self, jobs: Sequence[Job]) -> None:
        """A round begins, which will measure these jobs."""

    def measured(self, tally: Tally) -> None:
        """One pass over a chunk is done, a noisy or a clean one. Called in the thread that runs `bench`."""


class Silent:
    """A watcher that shows nothing."""

    def started(self, run: Run) -> None: ...
    def planned(self, jobs: Sequence[Job]) -> None: ...
    def measured(self, tally: Tally) -> None: ...


class Printed:
    """A watcher that prints a line on standard error when a run begins, and at each tenth of its passes."""

    def __init__(self) -> None:
        self._done = self._planned = self._tenths = 0

    def started(self, run: Run) -> None:
        said = "measuring" if run.todo else "complete"
        print(f"{run.experiment.subject.network.name}: {said}, kept in {run.store.path}", file=sys.stderr, flush=True)

    def planned(self, jobs: Sequence[Job]) -> None:
        self._planned = self._done + sum(len(job.chunk) * len(job.keys) for job in jobs)

    def measured(self, tally: Tally) -> None:
        self._done += tally.images
        tenths = 10 * self._done // max(1, self._planned)
        if tenths > self._tenths:
            self._tenths = tenths
            print(f"{10 * tenths} % of {self._planned:,} images passed", file=sys.stderr, flush=True)


Watching = Callable[[], AbstractContextManager[Watcher]]
"""A function that makes a watcher for a run, as a context manager; its block ends when the run does."""


def unwatched() -> AbstractContextManager[Watcher]:
    """A context manager with a watcher that shows nothing."""
    return nullcontext(Silent())


def watched_by(watcher: Watcher | None) -> Watching:
    """A function that gives every run the same watcher, which its owner ends; None stands for one that shows nothing."""
    return lambda: nullcontext(watcher or Silent())
