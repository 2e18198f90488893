"""Who measures a run: this process, an executor's workers, a pool of processes or a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial

from onnxnoise.machine import cores
from onnxnoise.run.experiment import Setup
from onnxnoise.run.workers.base import Alone, Crew, Workers
from onnxnoise.run.workers.dask import cluster
from onnxnoise.run.workers.processes import pool
from onnxnoise.run.workers.worker import perform
from onnxnoise.spec import BenchSpec

_MANY = 16
"""Workers of an executor that does not tell."""


@contextmanager
def hired(spec: BenchSpec, executor: Executor | None = None) -> Iterator[Crew]:
    """Everything opened, and who measures, until the end of the block; raises as `Setup.opened`, `pool` and `cluster`.

    An `executor` of the caller's own stays open. It may be any that takes picklable functions and arguments.
    """
    if executor is not None:
        own, size = executor, getattr(executor, "_max_workers", _MANY)
        threads = max(1, cores().threads // size) if isinstance(executor, ProcessPoolExecutor) else None
        name = f"workers of a {type(executor).__name__}"
        yield Workers(Setup.opened(spec), lambda: own, lambda: size, name, perform=partial(perform, threads=threads))
    elif spec.cluster is not None:
        with cluster(spec) as crew:
            yield crew
    elif spec.workers is not None:
        with pool(Setup.opened(spec), spec.workers) as crew:
            yield crew
    else:
        yield Alone(Setup.opened(spec))
