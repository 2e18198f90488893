"""A whole run: everything opened, what the run file lacks measured and kept, the result drawn from it."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from math import ceil, inf
from pathlib import Path
from typing import Protocol

from onnxnoise.data.fit import check_clean
from onnxnoise.errors import DataError, UsageError
from onnxnoise.records import Metric, Policy, Result, SigmaScope, Tally
from onnxnoise.results.leases import Claims
from onnxnoise.results.store import RunStore
from onnxnoise.results.summary import Question, summarize
from onnxnoise.run.experiment import Setup
from onnxnoise.run.jobs import Job, identity, measure
from onnxnoise.run.loading import layer_info
from onnxnoise.run.plans import CLEAN, Crossed, Nested, Plan
from onnxnoise.run.workers.base import Crew
from onnxnoise.run.workers.open_workers import hired
from onnxnoise.runtime import session
from onnxnoise.runtime.providers import find_provider
from onnxnoise.spec import BenchSpec
from onnxnoise.statistics.stopping import chunk_images

SHARD_MEMORY = 2 << 30
"""Bytes that a shard's chunks are made for where --memory says nothing: its machine's own memory must not decide."""

BUDGET_PRECISION = 0.01
"""What the chunks of a run with --budget and no --precision are made for."""


class Watcher(Protocol):
    """Who is told how a run goes."""

    def started(self, run: Run) -> None:
        """Everything is open and checked; nothing was measured in this process yet."""

    def planned(self, jobs: Sequence[Job]) -> None:
        """A round begins: what it will measure."""

    def measured(self, tally: Tally) -> None:
        """One pass over a chunk is done, clean ones included. Called in the thread that runs `bench`."""


class Silent:
    """A watcher that shows nothing."""

    def started(self, run: Run) -> None: ...
    def planned(self, jobs: Sequence[Job]) -> None: ...
    def measured(self, tally: Tally) -> None: ...


Watching = Callable[[], AbstractContextManager[Watcher]]
"""Makes a watcher for each run."""

PlanOf = Callable[[Question, tuple[range, ...]], Plan]
"""Makes a plan from the question and the chunks of images."""


def unwatched() -> AbstractContextManager[Watcher]:
    """A watcher that shows nothing."""
    return nullcontext(Silent())


def watched_by(watcher: Watcher | None) -> Watching:
    """One watcher, which its owner ends."""
    return lambda: nullcontext(watcher or Silent())


@dataclass(frozen=True)
class Run:
    """A run with its file open: what is asked for, and the first round of what of it is still missing (`todo`)."""

    setup: Setup
    question: Question
    store: RunStore
    plan: Plan
    todo: tuple[Job, ...]


def bench(spec: BenchSpec, watcher: Watcher | None = None, *, executor: Executor | None = None) -> Result:
    """Measure a noise profile, or what is missing of it in the run file, and return its result.

    `executor` measures if given: any concurrent.futures.Executor, its workers finding model and data under the same paths.
    Raises OnnxNoiseError's subclasses with what to do; a KeyboardInterrupt leaves everything measured so far in the run file.

    >>> spec = BenchSpec("resnet20-cifar10", snrs=(20.0,), sweeps=("all",), draws=2, limit=40, out="run.sqlite")
    >>> result = bench(spec)
    >>> (cell,) = result.cells
    >>> cell.sweep, cell.snr, [draw.images for draw in cell.draws]
    ('all', 20.0, [40, 40])
    >>> 0.8 < cell.normalized_top1.mean < 1.2
    True
    """
    if spec.shard is not None:
        raise UsageError("--shard: a shard has no result of its own; measure_shard measures one, merge joins them")
    with measured(spec, watched_by(watcher), executor=executor) as run:
        result = summarize(run.store, run.question)
    assert result is not None, "a finished run has its clean pass"
    return result


@dataclass(frozen=True)
class Shard:
    """What one of several runs that share the work has done: `number` of `count`, its share of the images, its run file."""

    number: int
    count: int
    images: int
    images_in_all: int
    path: Path
    bn: Policy
    sigma_scope: SigmaScope


def measure_shard(spec: BenchSpec, watcher: Watcher | None = None, *, executor: Executor | None = None) -> Shard:
    """Measure what is missing of one shard, as `bench` does for a whole; raises as `bench`."""
    if spec.shard is None:
        raise UsageError("--shard: which one? Write for example --shard 3/8")
    with measured(spec, watched_by(watcher), executor=executor) as run:
        chunks = shard_of(run.store.chunks(), spec)
        images = run.question.images
        done = sum(len(c) for c in chunks if c.start < images)
        return Shard(*spec.shard, done, images, run.store.path, spec.bn, spec.sigma_scope)


@contextmanager
def measured(
    spec: BenchSpec,
    watching: Watching = unwatched,
    *,
    executor: Executor | None = None,
    plan_for: Callable[[Setup], PlanOf] | None = None,
) -> Iterator[Run]:
    """A run that has all that its plan asked for; what its run file lacks is measured first.

    `plan_for` tells from what was opened how the plan is made; by default every cell of the spec. Raises as `bench`.
    """
    with hired(spec, executor) as crew:
        run = open_run(crew.setup, plan_for and plan_for(crew.setup), chunk_size=crew.chunk_size)
        with run.store:
            with watching() as watcher:
                watcher.started(run)
                if run.todo:
                    _measure(run, crew, watcher)
            yield run


def _measure(run: Run, crew: Crew, watcher: Watcher) -> None:
    jobs: Sequence[Job] = run.todo
    unchecked = run.setup.spec.clean_check
    end = time.monotonic() + (run.setup.spec.budget or inf)
    run.store.begin({**_provenance(run.setup), "measured_by": crew.members})
    with Claims(run.store) as claims:
        try:
            while jobs:
                watcher.planned(jobs)
                idle = True
                for part in crew.measure(_claimed(claims, crew.divided(jobs)), watcher.measured):
                    idle = False
                    run.store.check_images(part.start, part.images_sha256)
                    if unchecked:  # before it is kept: after a mistake in the card the file must not be in the way
                        unchecked = not _check_clean(run, [tally for tally in part.tallies if tally.sweep == "clean"])
                    run.store.append(part.tallies)
                    if time.monotonic() > end:
                        return
                jobs = run.plan.round(run.store)
                if jobs and idle:  # another process is at what is left
                    claims.wait()
                    if time.monotonic() > end:
                        return
        except DataError:
            if not claims.others():
                run.store.discard()
            raise


def _claimed(claims: Claims, jobs: Iterable[Job]) -> Iterator[Job]:
    for job in jobs:
        if keys := claims.take(job.keys):
            yield Job(job.chunk, keys)


def clean_hits(spec: BenchSpec) -> tuple[Metric, int, int]:
    """(metric, hits, images) of the clean model on the images of `spec`; raises as `Setup.opened`."""
    setup = Setup.opened(spec)
    count = setup.count
    size = setup.chunk_size()
    jobs = [Job(range(i, min(i + size, count)), ((*CLEAN, i),)) for i in range(0, count, size)]
    tallies = [tally for part in measure(setup, jobs, lambda _: None) for tally in part.tallies]
    return setup.metric, *_counted(tallies, setup.metric)


def open_run(
    setup: Setup,
    plan_of: PlanOf | None = None,
    *,
    chunk_size: Callable[[], int] | None = None,
) -> Run:
    """Open or make the run file; raises RunFileError where it can't be used or belongs to another run.

    `plan_of` makes the plan from the question and the chunks of images, by default as the spec asks. `chunk_size` tells the
    images of a new chunk; by default those that the memory here has room for.
    """
    spec, network = setup.spec, setup.subject.network
    indices = tuple(layer.index for layer in setup.subject.layers)
    question = Question(
        snrs=spec.snrs,
        sweeps=spec.sweeps,
        draws=spec.most_draws,
        images=setup.count,
        layers=indices,
        metric=setup.metric,
        target=spec.target,
        precision=spec.precision,
    )
    description = {
        "model": network.name,
        "dataset": setup.images.name,
        "layers": [asdict(layer_info(layer)) for layer in network.layers],
        "notices": [asdict(notice) for notice in (*network.notices, *setup.notices())],
    }
    store = RunStore.open(Path(spec.out or network.run_file), identity(setup), description)
    try:
        size = chunk_size or setup.chunk_size
        if spec.shard:
            size = partial(shard_size, setup, question.images)
        if spec.nested:
            size = partial(nested_size, setup, question.images, size)
        chunks = store.lay_down(question.images, size)
        plan = (plan_of or (Nested if spec.nested else Crossed))(question, tuple(shard_of(chunks, spec)))
        return Run(setup, question, store, plan, tuple(plan.round(store)))
    except BaseException:
        store.close()
        raise


def nested_size(setup: Setup, images: int, most: Callable[[], int]) -> int:
    """Images in a chunk of a nested run, as few as the precision asks for and at most what memory has room for."""
    fixed = setup.subject.network.image.batch or 1
    wanted = min(most(), chunk_images(images, setup.spec.precision or BUDGET_PRECISION))
    return max(fixed, wanted // fixed * fixed)


def shard_size(setup: Setup, images: int) -> int:
    """Images in a chunk, so that every shard has as many chunks: the same on every machine, whatever its memory and devices."""
    spec = setup.spec
    _, shards = spec.shard or (1, 1)
    anywhere = replace(spec, memory=spec.memory or SHARD_MEMORY)
    most = replace(setup, spec=anywhere, provider=find_provider("cpu")).chunk_size()
    rounds = ceil(images / (shards * most))
    fixed = setup.subject.network.image.batch or 1
    return ceil(images / (shards * rounds) / fixed) * fixed


def shard_of(chunks: Sequence[range], spec: BenchSpec) -> Sequence[range]:
    """The chunks that the spec asks for: all, or every n-th from the i-th on."""
    if spec.shard is None:
        return chunks
    number, count = spec.shard
    return chunks[number - 1 :: count]


def _provenance(setup: Setup) -> dict[str, object]:
    """What somebody needs to repeat the run, besides the digests."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            **{name: version(name) for name in ("onnxnoise", "onnx", "onnx-ir", "numpy", "pillow")},
            "onnxruntime": session.VERSION,
            "python": platform.python_version(),
        },
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "spec": asdict(setup.spec),
        "provider_options": dict(setup.provider.options),
        "placement": setup.probe.placement,
        "metric": setup.metric,
    }


def _check_clean(run: Run, clean: Iterable[Tally]) -> bool:
    """Hold the clean passes kept so far, and new ones, against the card; False where there are none. Raises DataError."""
    setup, metric = run.setup, run.question.metric
    hits, images = _counted([*run.store.tallies("clean"), *clean], metric)
    if images:
        check_clean(setup.spec.model, setup.subject.network.image, setup.card, metric, hits, images)
    return images > 0


def _counted(clean: Iterable[Tally], metric: Metric) -> tuple[int, int]:
    """(hits, images) of clean tallies."""
    hits = images = 0
    for tally in clean:
        hits, images = hits + tally.hits(metric), images + tally.images
    return hits, images
