"""Workers of a Dask cluster that runs already (the only file that imports distributed)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from onnxnoise.engine.values import BlankPass
from onnxnoise.errors import ProviderError, UsageError
from onnxnoise.records import Notice, Tally
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.jobs import Job, TallyGroup
from onnxnoise.run.workers.base import ExecutorWorkers
from onnxnoise.run.workers.worker import Order, perform
from onnxnoise.runtime.base import Provider
from onnxnoise.runtime.providers import find_provider
from onnxnoise.spec import BenchSpec

MEMORY = 2 << 30
"""Bytes of memory for a worker without --memory: this machine's memory tells nothing about a worker's."""

_CONNECT, _NOBODY = 10.0, 60.0
"""Seconds to wait for the scheduler, and for a first worker."""

_RECOUNT = 1.0
"""Seconds between two counts of the workers."""


@contextmanager
def dask_workers(spec: BenchSpec) -> Iterator[ExecutorWorkers]:
    """The workers of the scheduler at `spec.cluster`, each task taking `spec.resources` of its worker.

    The execution provider is that of the workers; this machine needs none but the CPU. Raises ProviderError where no scheduler
    or no worker answers, UsageError where Dask is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        raise UsageError("--cluster needs Dask: pip install 'onnxnoise[cluster]', here and on the workers") from error
    dask: Any = distributed
    for name in ("distributed", "distributed.client"):  # a lost worker is the run's to handle, and to tell
        logging.getLogger(name).setLevel(logging.CRITICAL)
    address = str(spec.cluster)
    try:
        asyncio.run(_answered(address))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ProviderError(
            f"--cluster: no Dask scheduler answers at {address} ({error or type(error).__name__}); start one with "
            f"`dask scheduler`, and workers with `dask worker {address}`"
        ) from error
    client = dask.Client(address, timeout=_CONNECT, set_as_default=False, name="onnxnoise")
    with client:
        executor = client.get_executor(pure=False, resources=dict(spec.resources) or None)
        try:
            scheduler = _Scheduler(client, address, spec.resources)
            provider = _found(address, scheduler, executor.submit(find_provider, spec.provider))
            here = Experiment.opened(replace(spec, provider="cpu"))
            experiment = _Elsewhere(spec, here.subject, here.card, here.images, provider, here)
            yield _DaskWorkers(experiment, lambda: executor, scheduler)
        finally:
            executor.shutdown(wait=False)


def _found(address: str, scheduler: _Scheduler, asked: Future[Provider]) -> Provider:
    """The workers' execution provider; the error of a worker that has none says that it is a worker's."""
    try:
        return scheduler.first(asked)
    except ProviderError as error:
        said = str(error)
        raise ProviderError(said if said.startswith("--cluster") else f"a worker of {address}: {said}") from error


async def _answered(address: str) -> None:
    """Try to connect, since a client that can't would go on complaining after it is closed."""
    import distributed.comm

    dask: Any = distributed
    comm = await dask.comm.connect(address, timeout=_CONNECT, **dask.Security().get_connection_args("client"))
    await comm.close()


@dataclass(frozen=True)
class _Elsewhere(Experiment):
    """An experiment that is measured on other machines; this machine only looks at its graph, on the CPU (`at_home`)."""

    at_home: Experiment

    @property
    def here(self) -> Experiment:
        return self.at_home

    @cached_property
    def blank_pass(self) -> BlankPass:
        return self.here.blank_pass

    def notices(self) -> Iterator[Notice]:
        return iter(())


class _Scheduler:
    """The cluster's workers, counted at most once a second."""

    def __init__(self, client: Any, address: str, resources: Iterable[tuple[str, float]]) -> None:
        self.client, self.address = client, address
        self.wanted = " ".join(f"{name}={amount:g}" for name, amount in resources)
        self._size, self._asked, self._seen = 0, 0.0, time.monotonic()

    def size(self) -> int:
        """The number of workers; raises ProviderError after a minute without a worker or a scheduler."""
        now = time.monotonic()
        if now - self._asked > _RECOUNT:
            self._asked = now
            self._size = len(self.client.nthreads()) if self.client.status == "running" else 0
            if self._size:
                self._seen = now
            elif now - self._seen > _NOBODY:
                raise ProviderError(
                    f"--cluster: the scheduler at {self.address} has no workers; start some with `dask worker {self.address}`, "
                    "then run the same command: what was measured so far is kept"
                )
        return max(1, self._size)

    def first(self, future: Future[Provider]) -> Provider:
        """The first task's result; raises ProviderError where no worker takes it for a minute (none may have the resources)."""
        began = time.monotonic()
        while not wait([future], timeout=_RECOUNT).done:
            self.size()
            if time.monotonic() - began > _NOBODY:
                has = f" with {self.wanted}; start workers with `--resources '{self.wanted}'`" if self.wanted else ""
                raise ProviderError(f"--cluster: no worker of {self.address} takes a task{has}")
        with _told(self.address):
            return future.result()


class _DaskWorkers(ExecutorWorkers):
    def __init__(self, experiment: Experiment, start: Any, scheduler: _Scheduler) -> None:
        super().__init__(
            experiment,
            start,
            scheduler.size,
            f"{scheduler.size()} Dask workers",
            memory=experiment.spec.memory or MEMORY,
            perform=_perform,
        )
        self.scheduler = scheduler

    def _finished(self, pending: Iterable[Future[list[TallyGroup]]]) -> set[Future[list[TallyGroup]]]:
        while not (done := wait(pending, timeout=_RECOUNT, return_when=FIRST_COMPLETED).done):
            self.scheduler.size()
        return done

    @contextmanager
    def _surviving_deaths(self, *_: object) -> Iterator[None]:
        """Do nothing, since Dask itself gives a dead worker's tasks to others."""
        with _told(self.scheduler.address):
            yield


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Turn Dask's own errors in the block into errors for the person who must act."""
    from distributed import KilledWorker

    try:
        yield
    except KilledWorker as error:
        raise ProviderError(
            f"--cluster: workers of {address} died again and again while they measured (out of memory?); what was measured so "
            "far is kept: give workers more memory, or the run less --memory"
        ) from error
    except CancelledError as error:
        raise ProviderError(
            f"--cluster: the scheduler at {address} is gone, or has dropped the work; what was measured so far is kept: the "
            "same command goes on from there"
        ) from error
    except ModuleNotFoundError as error:
        raise ProviderError(
            f"--cluster: a worker of {address} lacks the Python package {error.name}; install onnxnoise[cluster] where the "
            "workers run"
        ) from error


def _perform(order: Order, job: Job) -> list[TallyGroup]:
    """Measure a job on a Dask worker, with the worker's threads, and only as long as somebody waits for the result."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def step(_: Tally) -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise InterruptedError("nobody waits for this any more")

    return perform(order, job, threads=worker.state.nthreads, step=step)
