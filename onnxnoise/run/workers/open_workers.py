"""Chooses the workers of a run: this process, an executor's workers, processes of this machine or a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial

from onnxnoise.errors import UsageError
from onnxnoise.machine import cores
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.workers.base import ExecutorWorkers, ThisProcess, Workers
from onnxnoise.run.workers.dask import dask_workers
from onnxnoise.run.workers.processes import worker_processes
from onnxnoise.run.workers.worker import perform
from onnxnoise.spec import BenchSpec, OwnData

_MANY = 16
"""Assumed number of workers when an executor doesn't say."""


@contextmanager
def open_workers(spec: BenchSpec, executor: Executor | None = None) -> Iterator[Workers]:
    """Yield the workers that the spec asks for, with the experiment opened; they end with the block.

    The workers of an `executor` take their place. It may be any that takes picklable functions and arguments, and it stays
    open. Raises what `Experiment.opened`, `worker_processes` and `dask_workers` raise.
    """
    if executor is not None:
        if isinstance(spec.data, OwnData):
            raise UsageError(
                "executor: the data is in this process alone; save it as an .npz, or give python:FILE.py:NAME"
            )
        own, size = executor, getattr(executor, "_max_workers", _MANY)
        threads = max(1, cores().threads // size) if isinstance(executor, ProcessPoolExecutor) else None
        name = f"workers of a {type(executor).__name__}"
        yield ExecutorWorkers(
            Experiment.opened(spec), lambda: own, lambda: size, name, perform=partial(perform, threads=threads)
        )
    elif spec.cluster is not None:
        with dask_workers(spec) as workers:
            yield workers
    elif spec.workers is not None:
        with worker_processes(Experiment.opened(spec), spec.workers) as workers:
            yield workers
    else:
        yield ThisProcess(Experiment.opened(spec))
