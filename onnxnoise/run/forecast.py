"""A forecast of what a run will cost: sessions, passes over images, and the time, from measuring a small part of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from onnxnoise.engine.segments import Cutter
from onnxnoise.engine.sweep import ChunkSweep
from onnxnoise.records import Measured, TallyKey, Variant
from onnxnoise.results.as_json import measured_json
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.jobs import Job, decoded
from onnxnoise.run.naming import run_path
from onnxnoise.run.opening import Cut, Run, ScheduleOf, open_run
from onnxnoise.run.schedules import Chunked, jobs
from onnxnoise.spec import BenchSpec

SCHEMA = "onnxnoise/forecast/1"
_LAYERS = 8
"""The number of layers that are timed; each of the others is assumed to cost their average."""


@dataclass(frozen=True)
class Workload:
    """The work that is left: `passes` are images times cells times draws, `sessions` must be made by ONNX Runtime.

    `seconds` is the time that this machine is expected to take, without decoding images.
    """

    passes: int
    sessions: int
    seconds: float

    def times(self, factor: float) -> Workload:
        """The work done `factor` times."""
        return Workload(round(self.passes * factor), round(self.sessions * factor), self.seconds * factor)

    def plus(self, other: Workload) -> Workload:
        """The sum of two amounts of work."""
        return Workload(self.passes + other.passes, self.sessions + other.sessions, self.seconds + other.seconds)


@dataclass(frozen=True)
class Forecast(Measured):
    """The size of a run, and the work that is left. With a precision, `least` is the work if every cell is soon precise.

    `seconds_an_image` is the time of one clean pass over an image. `draws` is the most that a cell gets, `budget` is in seconds.
    """

    model: str
    dataset: str
    provider: str
    layers: int
    cells: int
    images: int
    chunks: int
    draws: int
    precision: float | None
    budget: float | None
    least: Workload
    most: Workload
    seconds_an_image: float


@runtime_checkable
class Deciding(Protocol):
    """A schedule that decides as it goes, and can tell the least and the most that it may come to."""

    @property
    def cells(self) -> int:
        """The cells that are measured."""

    @property
    def draws(self) -> int:
        """The most draws of a cell."""

    def ends(self, done: set[TallyKey]) -> tuple[Sequence[Job], Sequence[Job]]:
        """The jobs that are left, of the shortest and of the longest way to the end."""


def forecast(
    spec: BenchSpec, schedule_for: Callable[[Experiment], ScheduleOf] | None = None, cut: Cut | None = None
) -> Forecast:
    """Forecast the work that `bench` would do, from timing a small part of it; keeps nothing, and raises what `bench` raises.

    `schedule_for` and `cut` are those of `runner.measured_run`, for other work than the spec's cells.
    """
    with tempfile.TemporaryDirectory(prefix="onnxnoise-") as folder:
        experiment = Experiment.opened(spec)
        usual = run_path(experiment)
        scratch = None if usual.exists() else str(Path(folder) / "run.sqlite")
        schedule_of = schedule_for and schedule_for(experiment)
        there = replace(experiment, spec=replace(spec, out=scratch)) if scratch else experiment
        run = open_run(there, schedule_of, cut=cut)
        with run.store:
            done = run.store.done()
            chunks = [chunk for chunk in run.store.chunks() if chunk.start < experiment.count]
            decides = run.schedule if isinstance(run.schedule, Deciding) else None
            few, many = decides.ends(done) if decides else _jobs(run, done)
            costs = _Costs(experiment, chunks[0])
            return Forecast(
                noise=spec.setting,
                model=experiment.subject.network.name,
                dataset=experiment.images.name,
                provider=experiment.provider.name,
                layers=len(experiment.subject.layers),
                cells=decides.cells if decides else len(run.question.cells),
                images=experiment.count,
                chunks=len(chunks),
                draws=decides.draws if decides else run.question.draws,
                precision=None if decides else spec.goal,
                budget=spec.budget,
                least=costs.of(few),
                most=costs.of(many),
                seconds_an_image=costs.clean,
            )


def to_json(told: Forecast) -> str:
    """The forecast as one JSON document, schema `onnxnoise/forecast/1`."""
    return measured_json(SCHEMA, told)


def _jobs(run: Run, done: set[TallyKey]) -> tuple[Sequence[Job], Sequence[Job]]:
    """The jobs that are left: (the fewest possible, the most possible)."""
    schedule = run.schedule
    if not isinstance(schedule, Chunked):
        return run.todo, run.todo
    cells, question = run.question.cells, run.question
    least = {cell: schedule.draws(question.stopping(cell[0]).fewest) for cell in cells}
    most = dict.fromkeys(cells, schedule.draws(question.draws))
    return jobs(schedule.chunks, least, done), jobs(schedule.chunks, most, done)


class _Costs:
    """Seconds for each kind of work, timed on a few mini-batches of real images after a warm-up."""

    def __init__(self, experiment: Experiment, chunk: range) -> None:
        self.experiment = experiment
        network, layers = experiment.subject.network, experiment.subject.layers
        self.cutter = Cutter(network)
        lanes = experiment.provider.lanes()
        chunk = chunk[: min(len(chunk), 2 * lanes * experiment.batch_size(len(chunk)))]
        images = decoded(experiment.images, chunk)
        batches = experiment.batches(images.pixels)
        some = layers[:: -(-len(layers) // _LAYERS)] if layers else ()
        with ChunkSweep(network, experiment.noise, experiment.provider, batches, images.labels, 0) as sweep:
            sweep.clean()
            self.clean = _timed(lambda: [sweep.clean()]) / len(chunk)
            swept = experiment.spec.level
            variants = [Variant(swept.times(swept.defaults[0], factor), 0) for factor in (1.0, 2.0, 4.0)]
            indices = [layer.index for layer in some]
            self.all = _timed(lambda: sweep.all(variants, layers)) / (len(variants) * len(chunk))
            one, three = (_timed(partial(sweep.single, dict.fromkeys(indices, variants[:n]))) for n in (1, 3))
        each = (three - one) / 2
        self.layer = max(each, 0.0) / (max(1, len(some)) * len(chunk))
        self.rest = max(0.0, one - each - self.clean * len(chunk)) / max(1, len(some))

    def of(self, jobs: Iterable[Job]) -> Workload:
        """The cost of jobs."""
        starts = {layer.index: layer for layer in self.experiment.subject.layers}
        passes = sessions = 0
        seconds = 0.0
        for job in jobs:
            size, by_layer = len(job.chunk), [key for key in job.keys if key[1] is not None]
            whole = [key for key in job.keys if key[1] is None]
            used = {(key[0], key[1]) for key in by_layer}
            joins = {(sweep, self.cutter.join(starts[layer])) for sweep, layer in used if layer is not None}
            clean = sum(key[0] == "clean" for key in whole)
            passes += size * len(job.keys)
            sessions += len(job.keys) + len(used) + len(joins)
            seconds += size * (self.clean * (clean + bool(used)) + self.all * (len(whole) - clean))
            seconds += size * self.layer * len(by_layer) + self.rest * len(joins)
        return Workload(passes, sessions, seconds)


def _timed(passes: Callable[[], Iterable[object]]) -> float:
    """Seconds until all passes are done."""
    began = time.perf_counter()
    for _ in passes():
        pass
    return time.perf_counter() - began
