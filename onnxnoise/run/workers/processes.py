"""Worker processes on this machine: each has a GPU of its own, or its share of the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

from onnxnoise.errors import UsageError
from onnxnoise.machine import cores, memory
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.workers.base import ExecutorWorkers
from onnxnoise.run.workers.worker import perform
from onnxnoise.runtime import cuda
from onnxnoise.runtime.base import Provider


@contextmanager
def worker_processes(experiment: Experiment, workers: int, threads: int | None = None) -> Iterator[ExecutorWorkers]:
    """Start `workers` processes, each with its share of the memory, and one GPU or a share of the cores (`threads`).

    They end with the block, and with this process, however it ends. Raises UsageError for more workers than GPUs.
    """
    devices = _devices(experiment.provider, workers)
    threads = threads or max(1, cores().threads // workers)
    with _Starter(devices) as processes:
        yield ExecutorWorkers(
            experiment,
            processes.start,
            lambda: workers,
            f"{workers} worker processes" if workers > 1 else "1 worker process",
            memory=(experiment.spec.memory or memory().budget) // workers,
            perform=partial(perform, threads=threads),
        )


class _Starter:
    """Starts executors whose processes end when `_alive` is closed: this process holds the only copy of that end of a pipe."""

    def __init__(self, devices: list[str | None]) -> None:
        self._devices = devices
        self._context = multiprocessing.get_context("spawn")
        self._watched, self._alive = self._context.Pipe(duplex=False)
        self._started: list[Executor] = []

    def start(self) -> Executor:
        free = self._context.SimpleQueue()
        for device in self._devices:
            free.put(device)
        executor = _Quiet(len(self._devices), self._context, initializer=_begin, initargs=(self._watched, free))
        self._started.append(executor)
        return executor

    def __enter__(self) -> _Starter:
        return self

    def __exit__(self, *_: object) -> None:
        self._alive.close()
        for executor in self._started:
            executor.shutdown(cancel_futures=True)
        self._watched.close()


class _Quiet(ProcessPoolExecutor):
    """A pool whose processes never see Ctrl-C, not even while they start: the process that hands out the jobs ends them."""

    def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
        with _no_interrupt():
            return super().submit(*arguments, **named)


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Make the processes that are started in the block inherit a mask that blocks SIGINT."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(watched: Connection, free: Any) -> None:
    """Prepare a new worker process: it takes a device, and ends with the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    device = free.get()
    if device is not None:
        os.environ[cuda.VISIBLE_DEVICES] = device
    Thread(target=_end_with, args=(watched,), daemon=True).start()


def _end_with(watched: Connection) -> None:
    """End this process once the other end of the pipe is closed."""
    try:
        watched.recv()
    except (EOFError, OSError):
        os._exit(0)


def _devices(provider: Provider, workers: int) -> list[str | None]:
    """The device of each worker; None where the provider has none to hand out."""
    names = provider.devices()
    if names is None:
        return [None] * workers
    if workers > len(names):
        raise UsageError(
            f"--workers {workers}: {len(names)} CUDA {'device is' if len(names) == 1 else 'devices are'} visible here, and each "
            f"worker needs one of its own; use --workers {max(len(names), 1)}"
        )
    return list(names[:workers])
