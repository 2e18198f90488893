"""Workers of a Dask cluster that is there already (the only distributed)."""

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

from onnxnoise.engine.values import Probe
from onnxnoise.errors import ProviderError, UsageError
from onnxnoise.records import Notice, Tally
from onnxnoise.run.experiment import Setup
from onnxnoise.run.jobs import Job, Part
from onnxnoise.run.workers.base import Workers
from onnxnoise.run.workers.worker import Order, perform
from onnxnoise.runtime.base import Provider
from onnxnoise.runtime.providers import find_provider
from onnxnoise.spec import BenchSpec

MEMORY = 2 << 30
"""Bytes for a worker where --memory says nothing: this machine's own memory says nothing about theirs."""

_CONNECT, _NOBODY = 10.0, 60.0
"""Seconds to wait for the scheduler, and for a worker to be there."""

_LOOK = 1.0
"""Seconds between two looks at who is there."""


@contextmanager
def cluster(spec: BenchSpec) -> Iterator[Workers]:
    """The workers of the scheduler at `spec.cluster`, each task taking `spec.resources` of its worker.

    The execution provider is the workers': this machine needs none but the CPU. Raises ProviderError where no scheduler or no
    worker answers, UsageError where Dask is not installed.
    """
    try:
        import distributed  # noqa: PLC0415
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
            team = _Team(client, address, spec.resources)
            provider = _found(address, team, executor.submit(find_provider, spec.provider))
            here = Setup.opened(replace(spec, provider="cpu"))
            setup = _Elsewhere(spec, here.subject, here.card, here.images, provider, here)
            yield _Cluster(setup, lambda: executor, team)
        finally:
            executor.shutdown(wait=False)


def _found(address: str, team: _Team, asked: Future[Provider]) -> Provider:
    """The workers' execution provider; what a worker lacks is not this machine's."""
    try:
        return team.first(asked)
    except ProviderError as error:
        said = str(error)
        raise ProviderError(said if said.startswith("--cluster") else f"a worker of {address}: {said}") from error


async def _answered(address: str) -> None:
    """A client that can't connect is not rid of without noise, so this tries first."""
    import distributed.comm  # noqa: PLC0415

    dask: Any = distributed
    comm = await dask.comm.connect(address, timeout=_CONNECT, **dask.Security().get_connection_args("client"))
    await comm.close()


@dataclass(frozen=True)
class _Elsewhere(Setup):
    """A run that is measured on other machines: here only its graph is looked at, on the CPU."""

    here: Setup

    @cached_property
    def probe(self) -> Probe:
        return self.here.probe

    def notices(self) -> Iterator[Notice]:
        return iter(())


class _Team:
    """Who is there: asked for at most once a second."""

    def __init__(self, client: Any, address: str, resources: Iterable[tuple[str, float]]) -> None:
        self.client, self.address = client, address
        self.wanted = " ".join(f"{name}={amount:g}" for name, amount in resources)
        self._size, self._asked, self._seen = 0, 0.0, time.monotonic()

    def size(self) -> int:
        """The number of workers; raises ProviderError where for a minute there was none, or no scheduler."""
        now = time.monotonic()
        if now - self._asked > _LOOK:
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
        """What the first task says; with resources that no worker has it would wait for ever."""
        began = time.monotonic()
        while not wait([future], timeout=_LOOK).done:
            self.size()
            if time.monotonic() - began > _NOBODY:
                has = f" with {self.wanted}; start workers with `--resources '{self.wanted}'`" if self.wanted else ""
                raise ProviderError(f"--cluster: no worker of {self.address} takes a task{has}")
        with _told(self.address):
            return future.result()


class _Cluster(Workers):
    def __init__(self, setup: Setup, start: Any, team: _Team) -> None:
        super().__init__(
            setup,
            start,
            team.size,
            f"{team.size()} Dask workers",
            memory=setup.spec.memory or MEMORY,
            perform=_perform,
        )
        self.team = team

    def _finished(self, pending: Iterable[Future[list[Part]]]) -> set[Future[list[Part]]]:
        while not (done := wait(pending, timeout=_LOOK, return_when=FIRST_COMPLETED).done):
            self.team.size()
        return done

    @contextmanager
    def _bearing_deaths(self, *_: object) -> Iterator[None]:
        """Dask itself gives a dead worker's tasks to others."""
        with _told(self.team.address):
            yield


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Dask's own errors, for the person who must act."""
    from distributed import KilledWorker  # noqa: PLC0415

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


def _perform(order: Order, job: Job) -> list[Part]:
    """On a worker: with the threads that it was given, and no further than somebody waits for it."""
    from distributed import get_worker  # noqa: PLC0415

    worker = get_worker()
    key = worker.get_current_task()

    def step(_: Tally) -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise InterruptedError("nobody waits for this any more")

    return perform(order, job, threads=worker.state.nthreads, step=step)
