"""A whole run, which measures and keeps the tallies that the run file lacks, then makes the result from the file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Self

from onnxnoise.data.fit import check_clean
from onnxnoise.errors import DataError, Interrupted, ModelError, UsageError
from onnxnoise.records import Measured, Result, Tally
from onnxnoise.results.probes import levels_asked
from onnxnoise.results.run_file.leases import Leases
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.results.summary import summarize
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.jobs import Job, measure
from onnxnoise.run.opening import Cut, Run, ScheduleOf, open_run, provenance, shard_of
from onnxnoise.run.probing import prove
from onnxnoise.run.realizing import keep_realized
from onnxnoise.run.schedules import CLEAN
from onnxnoise.run.watching import Printed, Watcher, Watching, unwatched, watched_by
from onnxnoise.run.workers.base import Workers
from onnxnoise.run.workers.open_workers import open_workers
from onnxnoise.spec import BenchSpec
from onnxnoise.text import counted
from onnxnoise.words import Metric

_TOGETHER = 0.1
"""Seconds within which tallies are kept together, once keeping them has taken more than _SHARE of a run's time."""

_SHARE = 0.05


def bench(
    spec: BenchSpec, watcher: Watcher | None = None, *, executor: Executor | None = None, progress: bool = False
) -> Result:
    """Measure a noise profile, or the part of it that its run file lacks, and return its result.

    With `progress`, a few lines on standard error say how far it is, where no `watcher` is given. `executor` measures
    if given: any concurrent.futures.Executor whose workers find model and data under the same paths.
    Raises OnnxNoiseError's subclasses, whose messages say what to do; a KeyboardInterrupt leaves all tallies so far in the run
    file.

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
    watcher = watcher or (Printed() if progress else None)
    with measured_run(spec, watched_by(watcher), executor=executor) as run:
        result = summarize(run.store, run.question)
    assert result is not None, "a finished run has its clean pass"
    return result


@dataclass(frozen=True)
class Shard(Measured):
    """The state of shard `number` of `count`, which has measured `images` of `images_in_all`; its run file is `path`."""

    number: int
    count: int
    images: int
    images_in_all: int
    path: Path


def measure_shard(spec: BenchSpec, watcher: Watcher | None = None, *, executor: Executor | None = None) -> Shard:
    """Measure the part of one shard that its run file lacks, as `bench` does for a whole run; raises what `bench` raises."""
    if spec.shard is None:
        raise UsageError("--shard: which one? Write for example --shard 3/8")
    with measured_run(spec, watched_by(watcher), executor=executor) as run:
        images, digests = run.question.images, run.store.digests()
        chunks = [chunk for chunk in shard_of(run.store.chunks(), spec) if digests[chunk.start] is not None]
        done = sum(len(chunk) for chunk in chunks if chunk.start < images)
        return Shard(spec.setting, *spec.shard, done, images, run.store.path)


@contextmanager
def measured_run(
    spec: BenchSpec,
    watching: Watching = unwatched,
    *,
    executor: Executor | None = None,
    schedule_for: Callable[[Experiment], ScheduleOf] | None = None,
    folder: Path | None = None,
    cut: Cut | None = None,
) -> Iterator[Run]:
    """Open a run, measure the tallies that its schedule asks for and its file lacks, then yield the run.

    `schedule_for` tells how the schedule of an experiment is made; by default it asks for every cell of the spec. `folder` is
    where a run file of the usual name goes, `cut` tells how many images a new chunk gets. Raises what `bench` raises.
    """
    said = "nothing new was measured: the same command goes on with what its run file has, if there is one"
    try:
        with open_workers(spec, executor) as workers:
            schedule_of = schedule_for and schedule_for(workers.experiment)
            run = open_run(workers.experiment, schedule_of, chunk_size=workers.chunk_size, folder=folder, cut=cut)
            with run.store:
                try:
                    with watching() as watcher:
                        watcher.started(run)
                        if run.todo:
                            _measure(run, workers, watcher)
                        elif not _is_known(run):
                            run.store.begin(provenance(run))
                    keep_realized(run.experiment, run.store, run.question.levels)
                    yield run
                except KeyboardInterrupt:
                    said = _kept(run.store) or "nothing was measured yet: the same command starts anew"
                    raise
                run.store.check_place()
    except KeyboardInterrupt as error:
        raise Interrupted(said) from error


def _kept(store: RunStore) -> str | None:
    """A sentence on the tallies that a stopped run has kept; None where there are none yet.

    Raises RunFileError, which names what was rescued, if the run file is gone.
    """
    store.check_place()
    if not (count := len(store.done())):
        return None
    return f"what was measured is kept in {store.path} ({counted(count, 'tally', 'tallies')}): the same command goes on"


class _Keeper:
    """Keeps tallies in the run file: at once, unless a run of small passes would wait for the disk most of its time.

    Then those of a tenth of a second are kept together. So minutes of a worker never wait for the next one's. At the end of
    its `with` block all are kept.
    """

    def __init__(self, store: RunStore) -> None:
        self._store, self._waiting, self._last = store, list[Tally](), -inf
        self._began, self._spent = time.monotonic(), 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.keep()

    def add(self, tallies: Iterable[Tally]) -> None:
        """Keep tallies that belong together, all of them or none."""
        self._waiting += tallies
        now = time.monotonic()
        if now - self._last > _TOGETHER or self._spent < _SHARE * (now - self._began):
            self.keep()

    def keep(self) -> None:
        """Keep what waits."""
        if not self._waiting:
            return
        now = time.monotonic()
        self._store.append(self._waiting)  # where Ctrl-C comes in between, they still wait
        self._waiting, self._last = [], time.monotonic()
        self._spent += self._last - now


def _is_known(run: Run) -> bool:
    """Whether some command in the run file's records asked for all levels of this one: what a search tried wasn't asked for."""
    asked = {*run.experiment.spec.swept}
    return any(asked <= {*levels_asked(record.get("spec", {}))} for record in run.store.runs())


def _measure(run: Run, workers: Workers, watcher: Watcher) -> None:
    jobs: Sequence[Job] = run.todo
    unchecked = run.experiment.spec.clean_check and not run.experiment.spec.by_clean
    end = time.monotonic() + (run.experiment.spec.budget or inf)
    run.store.begin({**provenance(run), "measured_by": workers.members})
    with Leases(run.store) as leases, _Keeper(run.store) as keeper:
        try:
            prove(run.experiment)
            while jobs:
                watcher.planned(jobs)
                idle = True
                for group in workers.measure(_leased(leases, workers.divided(jobs)), watcher.measured):
                    idle = False
                    run.store.check_images(group.start, group.images_sha256)
                    if unchecked:  # before it is kept: after a mistake in the card the file must not be in the way
                        unchecked = not _check_clean(run, [tally for tally in group.tallies if tally.sweep == "clean"])
                    keeper.add(group.tallies)
                    if time.monotonic() > end:
                        return
                keeper.keep()
                jobs = run.schedule.round(run.store)
                if jobs and idle:  # another process measures what is left
                    leases.wait()
                    if time.monotonic() > end:
                        return
        except (DataError, ModelError):
            keeper.keep()
            if not leases.others():
                run.store.discard()
            raise


def _leased(leases: Leases, jobs: Iterable[Job]) -> Iterator[Job]:
    for job in jobs:
        if keys := leases.take(job.keys):
            yield Job(job.chunk, keys)


def clean_hits(spec: BenchSpec) -> tuple[Metric, int, int]:
    """(metric, hits, images) of the clean model on the images of `spec`; raises what `Experiment.opened` raises."""
    experiment = Experiment.opened(replace(spec, allow_unattached=True))
    count = experiment.count
    size = experiment.chunk_size()
    jobs = [Job(range(i, min(i + size, count)), ((*CLEAN, i),)) for i in range(0, count, size)]
    tallies = [tally for group in measure(experiment, jobs, lambda _: None) for tally in group.tallies]
    return experiment.metric, *_counted(tallies, experiment.metric)


def _check_clean(run: Run, clean: Iterable[Tally]) -> bool:
    """Hold the clean passes kept so far, and new ones, against the card; False where there are none. Raises DataError."""
    experiment, metric = run.experiment, run.question.metric
    hits, images = _counted([*run.store.tallies("clean"), *clean], metric)
    if images:
        check_clean(experiment.spec.model, experiment.subject.network.image, experiment.card, metric, hits, images)
    return images > 0


def _counted(clean: Iterable[Tally], metric: Metric) -> tuple[int, int]:
    """(hits, images) of clean tallies."""
    hits = images = 0
    for tally in clean:
        hits, images = hits + tally.hits(metric), images + tally.images
    return hits, images
