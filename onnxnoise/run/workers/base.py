"""Who measures the jobs of a run: this process alone, or the workers of a concurrent.futures.Executor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import groupby
from math import ceil
from typing import Protocol

from onnxnoise.errors import ProviderError
from onnxnoise.records import TallyKey
from onnxnoise.run.experiment import Setup
from onnxnoise.run.jobs import Job, Part, Step, measure
from onnxnoise.run.workers.worker import Order, perform

_MOST = 64.0
"""Passes over a chunk in one job for a worker: enough to pay for decoding and the clean prefix, few to lose with a worker."""

_PIECES = 4
"""Jobs for each worker, at least: so that all end at about the same time."""

_LIVES = 3
"""How often workers may die without anything being measured in between."""

Perform = Callable[[Order, Job], list[Part]]


class Crew(Protocol):
    """Measures jobs. `setup` is the run's, `members` says for the record who they are."""

    setup: Setup
    members: str

    def chunk_size(self) -> int:
        """Images whose values fit the memory that a member has."""

    def divided(self, jobs: Sequence[Job]) -> list[Job]:
        """The same tallies in jobs of the right size, the first one cheap where what it shows is worth knowing early."""

    def measure(self, jobs: Iterable[Job], step: Step) -> Iterator[Part]:
        """The tallies of `jobs`, in any order, each job taken when it can soon be measured. `step` is told of each tally.

        Raises what `work.measure` raises, and ProviderError where there is nobody to measure.
        """


class Alone:
    """The process of the run, its chunks one after the other."""

    members = "this process"

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def chunk_size(self) -> int:
        return self.setup.chunk_size()

    def divided(self, jobs: Sequence[Job]) -> list[Job]:
        return list(jobs)

    def measure(self, jobs: Iterable[Job], step: Step) -> Iterator[Part]:
        return measure(self.setup, jobs, step)


class Workers:
    """The workers of an executor; jobs go to them as keys, and tallies come back.

    `start` gives the executor, a new one after its workers have died (BrokenExecutor); `size` counts the workers, each of
    which may use `memory` bytes (default: the run's). The first job is waited for before others are handed out: what is
    wrong with files or machines shows there.
    """

    def __init__(
        self,
        setup: Setup,
        start: Callable[[], Executor],
        size: Callable[[], int],
        members: str,
        *,
        memory: int | None = None,
        perform: Perform = perform,
    ) -> None:
        self.setup, self.members, self.size = setup, members, size
        self._share = setup if memory is None else replace(setup, spec=replace(setup.spec, memory=memory))
        self.order = Order.of(self._share)
        self._start, self._perform = start, perform
        self._executor: Executor | None = None
        self._deaths, self._proven = 0, False

    def chunk_size(self) -> int:
        return self._share.chunk_size()

    def divided(self, jobs: Sequence[Job]) -> list[Job]:
        layers = max((layer.index for layer in self.setup.subject.layers), default=1)
        return divided(jobs, layers, self.size(), self.setup.spec.level.order)

    def measure(self, jobs: Iterable[Job], step: Step) -> Iterator[Part]:
        waiting, again = iter(jobs), list[Job]()
        pending: dict[Future[list[Part]], tuple[Job, Executor]] = {}
        try:
            while True:
                while len(pending) < (2 * self.size() if self._proven else 1):
                    job = again.pop() if again else next(waiting, None)
                    if job is None:
                        break
                    executor = self._executor = self._executor or self._start()
                    with self._bearing_deaths(job, executor, again):
                        pending[executor.submit(self._perform, self.order, job)] = job, executor
                if not pending and not again:
                    return
                for future in self._finished(pending):
                    job, executor = pending.pop(future)
                    parts: list[Part] = []
                    with self._bearing_deaths(job, executor, again):
                        parts = future.result()
                        self._deaths, self._proven = 0, True
                    for part in parts:
                        for tally in part.tallies:
                            step(tally)
                        yield part
        finally:
            for future in pending:
                future.cancel()

    def _finished(self, pending: Iterable[Future[list[Part]]]) -> set[Future[list[Part]]]:
        return wait(pending, return_when=FIRST_COMPLETED).done

    @contextmanager
    def _bearing_deaths(self, job: Job, executor: Executor, again: list[Job]) -> Iterator[None]:
        """A job whose executor lost a worker is to be done again: everything that it was given fails in the same way."""
        try:
            yield
        except BrokenExecutor as error:
            again.append(job)
            if executor is self._executor:
                executor.shutdown(wait=False)
                self._executor, self._deaths = None, self._deaths + 1
            if self._deaths >= _LIVES:
                raise ProviderError(
                    f"worker processes died {_LIVES} times before they had measured anything (out of memory, or killed?); "
                    "what was measured so far is kept: try fewer --workers, or less --memory"
                ) from error


def divided(jobs: Sequence[Job], layers: int, workers: int, noise: Callable[[float], float]) -> list[Job]:
    """The same keys in jobs of about equal cost: at most 64 passes over the chunk, and at least four jobs for each worker.

    A pass with noise from layer L of `layers` on costs what is left of the network. The first chunk's clean pass comes first,
    alone; `noise` is a key that sorts levels, the least noise first. A cumulative sweep is cut between variants, since each
    carries its own noisy values from layer to layer.
    """
    total = sum(_cost(key, layers) for job in jobs for key in job.keys)
    most = max(1.0, min(_MOST, total / (_PIECES * workers)))
    pieces: list[Job] = []
    for job in jobs:
        keys = sorted(job.keys, key=partial(_place, noise=noise))
        if not pieces and keys[0][0] == "clean":
            pieces.append(Job(job.chunk, (keys.pop(0),)))
        cost = sum(_cost(key, layers) for key in keys)
        share = cost / max(1, ceil(cost / most))
        spent = 0.0
        numbered: list[tuple[int, TallyKey]] = []
        for key in keys:
            numbered.append((int(spent / share), key))
            spent += _cost(key, layers)
        for _, group in groupby(numbered, key=lambda each: each[0]):
            pieces.append(Job(job.chunk, tuple(key for _, key in group)))
    return pieces


def _place(key: TallyKey, noise: Callable[[float], float]) -> tuple[int, int, float, int]:
    """Where a key comes in the order of measuring: clean, all, single by layer, cumulative by variant."""
    sweep, layer, level, draw, _ = key
    if sweep == "cumulative":
        return 3, draw, noise(level), layer or 0
    return ("clean", "all", "single").index(sweep), layer or 0, noise(level), draw


def _cost(key: TallyKey, layers: int) -> float:
    return 1.0 if key[1] is None else 1.0 - (key[1] - 1) / max(layers, key[1])
