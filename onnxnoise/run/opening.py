"""Opens a run: its question, its run file with the chunks of images, and its schedule."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from math import ceil
from pathlib import Path

from onnxnoise.results.chance import largest_classes
from onnxnoise.results.question import Question, streams_of
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.run.chunking import chunk_images
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.jobs import Job, clean_labels, identity
from onnxnoise.run.loading import layer_info
from onnxnoise.run.naming import run_path
from onnxnoise.run.schedules import Chunked, Crossed, Schedule
from onnxnoise.run.unattached import without_noise
from onnxnoise.runtime import session
from onnxnoise.runtime.providers import find_provider
from onnxnoise.spec import BenchSpec

SHARD_MEMORY = 2 << 30
"""Bytes of memory that a shard's chunks are sized for without --memory: its machine's own memory must not decide."""


MOST_PREDICTED = 1000
"""The most images whose classes are predicted to know what chance is, where the clean model gives the labels."""


ScheduleOf = Callable[[Question, tuple[range, ...]], Schedule]
"""A function that makes a schedule from the question and the chunks of images."""

Cut = Callable[[int], int]
"""A function that tells how many images a new chunk gets, of so many in all."""


@dataclass(frozen=True)
class Run:
    """A run whose file is open. `todo` is the first round of jobs for tallies that the file lacks."""

    experiment: Experiment
    question: Question
    store: RunStore
    schedule: Schedule
    todo: tuple[Job, ...]


def open_run(
    experiment: Experiment,
    schedule_of: ScheduleOf | None = None,
    *,
    chunk_size: Callable[[], int] | None = None,
    folder: Path | None = None,
    cut: Cut | None = None,
) -> Run:
    """Open or make the run file; raises RunFileError where it can't be used or belongs to another run.

    `schedule_of` makes the schedule, by default that of the spec's design. `chunk_size` tells how many images a new chunk gets,
    by default as many as the memory here has room for; `cut` makes it fewer, instead of the spec's design. `folder` is where a
    run file of the usual name goes.
    """
    spec, network, images = experiment.spec, experiment.subject.network, experiment.count
    description = {
        "model": network.name,
        "dataset": experiment.images.name,
        "classes": experiment.images.classes,
        "layers": [asdict(layer_info(layer)) for layer in network.layers],
        "without_noise": asdict(without_noise(network)),
        "notices": [asdict(notice) for notice in (*network.notices, *experiment.notices())],
    }
    path = run_path(experiment, folder)
    if not path.exists():
        _ = experiment.blank_pass  # a model that doesn't run leaves no file behind
    store = RunStore.open(path, identity(experiment), description)
    try:
        size = chunk_size or experiment.chunk_size
        if cut is not None:
            size = partial(_cut, experiment, cut, size)
        elif spec.chunked:
            size = partial(chunk_images, experiment, images, partial(anywhere, experiment) if spec.shard else size)
        elif spec.shard:
            size = partial(shard_size, experiment, images)
        chunks = store.lay_down(images, size, there=len(experiment.images))
        question = Question(
            levels=spec.swept,
            sweeps=spec.sweeps,
            draws=spec.most_draws(len(chunks)),
            images=images,
            layers=tuple(layer.index for layer in experiment.subject.layers),
            metric=experiment.metric,
            target=spec.target,
            precision=spec.goal,
            streams=streams_of(store, spec.shard),
            collapsing=experiment.collapsing,
        )
        schedule = _schedule(spec, question, chunks, schedule_of)
        return Run(experiment, question, store, schedule, tuple(schedule.round(store)))
    except BaseException:
        store.close()
        raise


def _schedule(spec: BenchSpec, question: Question, chunks: Sequence[range], schedule_of: ScheduleOf | None) -> Schedule:
    if schedule_of is not None:
        return schedule_of(question, tuple(shard_of(chunks, spec)))
    if spec.chunked:
        return Chunked(question, tuple(chunks), spec.shard and spec.shard[0] - 1)
    return Crossed(question, tuple(shard_of(chunks, spec)))


def _cut(experiment: Experiment, cut: Cut, most: Callable[[], int]) -> int:
    """The images that `cut` gives a chunk, a whole number of fixed batches, no more than fit the memory."""
    fixed = experiment.subject.network.image.batch or 1
    return max(fixed, min(most(), cut(experiment.count)) // fixed * fixed)


def anywhere(experiment: Experiment) -> int:
    """The number of images that fit into the memory that a shard is measured for, on any machine."""
    spec = experiment.spec
    told = replace(spec, memory=spec.memory or SHARD_MEMORY)
    return replace(experiment, spec=told, provider=find_provider("cpu")).chunk_size()


def shard_size(experiment: Experiment, images: int) -> int:
    """The number of images in a chunk of a sharded run, chosen so that all shards have equally many chunks on any machine."""
    spec = experiment.spec
    _, shards = spec.shard or (1, 1)
    rounds = ceil(images / (shards * anywhere(experiment)))
    fixed = experiment.subject.network.image.batch or 1
    return ceil(images / (shards * rounds) / fixed) * fixed


def shard_of(chunks: Sequence[range], spec: BenchSpec) -> Sequence[range]:
    """The chunks that the spec asks for: all, or for shard i/n every n-th from the i-th on."""
    if spec.shard is None:
        return chunks
    number, count = spec.shard
    return chunks[number - 1 :: count]


def provenance(run: Run) -> dict[str, object]:
    """All that somebody needs to repeat the run, besides the digests."""
    experiment, question = run.experiment, run.question
    asked: dict[str, object] = {"levels": experiment.spec.swept}
    if experiment.spec.chunked:
        asked |= {"goal": question.precision, "most_draws": question.draws}
    return {
        "command": shlex.join([Path(sys.argv[0]).name.replace("__main__.py", "onnxnoise"), *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            **{name: version(name) for name in ("onnxnoise", "onnx", "onnx-ir", "numpy", "pillow")},
            "onnxruntime": session.VERSION,
            "python": platform.python_version(),
        },
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "spec": {**asdict(experiment.spec), "data": _told(experiment.spec.data), **asked},
        "provider_options": dict(experiment.provider.options),
        "placement": experiment.blank_pass.placement,
        "metric": experiment.metric,
        "labels": label_count(experiment),
    }


def label_count(experiment: Experiment) -> dict[str, object]:
    """The number of images asked for, and those of the five most frequent labels: what chance is.

    Labels of the clean model's own are counted on the first images alone.
    """
    labels = experiment.images.labels[: experiment.count]
    if experiment.spec.by_clean:
        labels = clean_labels(experiment.here, min(experiment.count, MOST_PREDICTED))
    return {"images": len(labels), "largest": largest_classes(labels.tolist())}


def _told(data: object) -> str | None:
    """The data as a run file tells it."""
    return None if data is None else str(data)
