"""Workers measure the jobs of a run: this process alone, or those of a concurrent.futures.Executor."""

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
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.jobs import Job, Step, TallyGroup, measure
from onnxnoise.run.workers.worker import Order, perform

_MOST = 64.0
"""The most passes over a chunk in a job: enough to make up for decoding and the clean prefix, few for a worker to lose."""

_PIECES = 4
"""The fewest jobs for each worker, so that all end at about the same time."""

_LIVES = 3
"""The number of times that workers may die without any tally measured in between."""

Perform = Callable[[Order, Job], list[TallyGroup]]


class Workers(Protocol):
    """The workers that measure the jobs of a run. `experiment` is the run's; `members` describes them for the run file."""

    experiment: Experiment
    members: str

    def chunk_size(self) -> int:
        """The number of images whose values fit into the memory that each worker has."""

    def divided(self, jobs: Sequence[Job]) -> list[Job]:
        """The tallies of `jobs` in jobs of the right size; the first job is cheap where it may show early what is wrong."""

    def measure(self, jobs: Iterable[Job], step: Step) -> Iterator[TallyGroup]:
        """Yield the tallies of `jobs`, in any order; a job is taken when it can soon be measured. `step` is called with each.

        Raises what `jobs.measure` raises, and ProviderError where there is no worker.
        """


class ThisProcess:
    """The process of the run itself, which measures chunk after chunk."""

    members = "this process"

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment

    def chunk_size(self) -> int:
        return self.experiment.chunk_size()

    def divided(self, jobs: Sequence[Job]) -> list[Job]:
        return list(jobs)

    def measure(self, jobs: Iterable[Job], step: Step) -> Iterator[TallyGroup]:
        return measure(self.experiment, jobs, step)


class ExecutorWorkers:
    """The workers of an executor; jobs go to them as keys, and tallies come back.

    `start` gives the executor, a new one after its workers have died (BrokenExecutor); `size` counts the workers, each of
    which may use `memory` bytes (default: the run's). The first job is finished before others are handed out: it shows whatever
    is wrong with files or machines.
    """

    def __init__(
        self,
        experiment: Experiment,
        start: Callable[[], Executor],
        size: Callable[[], int],
        members: str,
        *,
        memory: int | None = None,
        perform: Perform = perform,
    ) -> None:
        self.experiment, self.members, self.size = experiment, members, size
        self._share = (
            experiment if memory is None else replace(experiment, spec=replace(experiment.spec, memory=memory))
        )
        self.order = Order.of(self._share)
        self._start, self._perform = start, perform
        self._executor: Executor | None = None
        self._deaths, self._proven = 0, False

    def chunk_size(self) -> int:
        return self._share.chunk_size()

    def divided(self, jobs: Sequence[Job]) -> list[Job]:
        layers = max((layer.index for layer in self.experiment.subject.layers), default=1)
        return divided(jobs, layers, self.size(), self.experiment.spec.level.order)

    def measure(self, jobs: Iterable[Job], step: Step) -> Iterator[TallyGroup]:
        waiting, again = iter(jobs), list[Job]()
        pending: dict[Future[list[TallyGroup]], tuple[Job, Executor]] = {}
        try:
            while True:
                while len(pending) < (2 * self.size() if self._proven else 1):
                    job = again.pop() if again else next(waiting, None)
                    if job is None:
                        break
                    executor = self._executor = self._executor or self._start()
                    with self._surviving_deaths(job, executor, again):
                        pending[executor.submit(self._perform, self.order, job)] = job, executor
                if not pending and not again:
                    return
                for future in self._finished(pending):
                    job, executor = pending.pop(future)
                    groups: list[TallyGroup] = []
                    with self._surviving_deaths(job, executor, again):
                        groups = future.result()
                        self._deaths, self._proven = 0, True
                    for group in groups:
                        for tally in group.tallies:
                            step(tally)
                        yield group
        finally:
            for future in pending:
                future.cancel()

    def _finished(self, pending: Iterable[Future[list[TallyGroup]]]) -> set[Future[list[TallyGroup]]]:
        return wait(pending, return_when=FIRST_COMPLETED).done

    @contextmanager
    def _surviving_deaths(self, job: Job, executor: Executor, again: list[Job]) -> Iterator[None]:
        """Schedule the job again if its executor has lost a worker, as every job given to such an executor fails alike."""
        try:
            yield
        except BrokenExecutor as error:
            again.append(job)
            if executor is self._executor:
                executor.shutdown(wait=False)
                self._executor, self._deaths = None, self._deaths + 1
            if self._deaths >= _LIVES:
                raise ProviderError(
                    f"worker processes died {_LIVES} times before they had measured anything (out of memory, killed, or "
                    'started by a script of Python without `if __name__ == "__main__":`?); what was measured so far is kept: try '
                    "fewer --workers, or less --memory"
                ) from error


def divided(jobs: Sequence[Job], layers: int, workers: int, noise: Callable[[float], float]) -> list[Job]:
    """The tallies of `jobs` in jobs of about equal cost: at most 64 passes over a chunk each, and at least four a worker.

    A pass with noise from layer L of `layers` on costs as much as the rest of the network. The first chunk's clean pass comes
    first, alone; `noise` is a key that sorts levels, the least noise first. A cumulative sweep is cut between variants, since
    each carries its own noisy values from layer to layer.
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
    """A key's place in the order of measuring: clean, all, single by layer, cumulative by variant."""
    sweep, layer, level, draw, _ = key
    if sweep == "cumulative":
        return 3, draw, noise(level), layer or 0
    return ("clean", "all", "single").index(sweep), layer or 0, noise(level), draw


def _cost(key: TallyKey, layers: int) -> float:
    """The cost of a key's pass, in passes through the whole network."""
    return 1.0 if key[1] is None else 1.0 - (key[1] - 1) / max(layers, key[1])
