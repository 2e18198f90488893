"""A whole run: everything opened, what the run file lacks measured and kept, the result drawn from it."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np

from onnxnoise import session
from onnxnoise.checks import check_clean, layout_of
from onnxnoise.errors import DataError
from onnxnoise.plan import CLEAN, Crossed, Plan
from onnxnoise.records import Bits, Metric, Result, Tally
from onnxnoise.results import Question, summarize
from onnxnoise.setup import Setup
from onnxnoise.spec import BenchSpec
from onnxnoise.store import RunStore
from onnxnoise.subject import layer_info
from onnxnoise.work import Job, measure


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


@dataclass(frozen=True)
class Run:
    """A run with its file open: what is asked for, and the first round of what of it is still missing (`todo`)."""

    setup: Setup
    question: Question
    store: RunStore
    plan: Plan
    todo: tuple[Job, ...]


def bench(spec: BenchSpec, watcher: Watcher | None = None) -> Result:
    """Measure a noise profile, or what is missing of it in the run file, and return its result.

    Raises OnnxNoiseError's subclasses with what to do; a KeyboardInterrupt leaves everything measured so far in the run file.
    """
    run = open_run(Setup.opened(spec))
    with run.store:
        complete(run, watcher or Silent())
        result = summarize(run.store, run.question)
    assert result is not None, "a finished run has its clean pass"
    return result


def complete(run: Run, watcher: Watcher) -> None:
    """Measure what the run's plan asks for, round by round, and keep it in the run file; raises as `bench`."""
    watcher.started(run)
    try:
        if run.todo:
            run.store.begin(_provenance(run.setup))
            _measure(run, watcher)
    except DataError:
        run.store.discard()
        raise


def _measure(run: Run, watcher: Watcher) -> None:
    jobs: list[Job] = list(run.todo)
    unchecked = run.setup.spec.clean_check
    while jobs:
        watcher.planned(jobs)
        for part in measure(run.setup, jobs, watcher.measured):
            run.store.check_images(part.start, part.images_sha256)
            if unchecked:  # before it is kept: after a mistake in the card the file must not be in the way
                _check_clean(run, [tally for tally in part.tallies if tally.sweep == "clean"])
                unchecked = False
            run.store.append(part.tallies)
        jobs = run.plan.round(run.store)


def clean_hits(spec: BenchSpec) -> tuple[Metric, int, int]:
    """(metric, hits, images) of the clean model on the images of `spec`; raises as `Setup.opened`."""
    setup = Setup.opened(spec)
    count = min(len(setup.images), spec.limit or len(setup.images))
    size = setup.chunk_size()
    jobs = [Job(range(i, min(i + size, count)), ((*CLEAN, i),)) for i in range(0, count, size)]
    tallies = [tally for part in measure(setup, jobs, lambda _: None) for tally in part.tallies]
    return setup.metric, *_counted(tallies, setup.metric)


def open_run(setup: Setup, plan_of: Callable[[Question, tuple[range, ...]], Plan] = Crossed) -> Run:
    """Open or make the run file; raises RunFileError where it can't be used or belongs to another run.

    `plan_of` makes the plan from the question and the chunks of images.
    """
    spec, card, network = setup.spec, setup.card, setup.subject.network
    indices = tuple(layer.index for layer in setup.subject.layers)
    question = Question(
        snrs=spec.snrs,
        sweeps=spec.sweeps,
        draws=spec.draws,
        images=min(len(setup.images), spec.limit or len(setup.images)),
        layers=indices,
        metric=setup.metric,
        target=spec.target,
    )
    identity = {
        "model": network.sha256,
        "data": setup.images.digest,
        "seed": spec.seed,
        "bn": spec.bn,
        "sigma_scope": spec.sigma_scope,
        "layers": list(indices),
        "preprocessing": {**asdict(card.input), "layout": layout_of(network.image, card)},
        "output": network.logits,
        "provider": setup.provider.name,
    }
    description = {
        "model": network.name,
        "dataset": setup.images.name,
        "layers": [asdict(layer_info(layer)) for layer in network.layers],
        "notices": [asdict(notice) for notice in network.notices],
    }
    store = RunStore.open(Path(spec.out or f"{network.name}-{network.sha256[:8]}.sqlite"), identity, description)
    try:
        plan = plan_of(question, tuple(store.lay_down(question.images, setup.chunk_size)))
        return Run(setup, question, store, plan, tuple(plan.round(store)))
    except BaseException:
        store.close()
        raise


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
    }


def _check_clean(run: Run, clean: Iterable[Tally]) -> None:
    """Hold the clean passes kept so far, and new ones, against the card; raises DataError."""
    setup, metric = run.setup, run.question.metric
    hits, images = _counted([*run.store.tallies("clean"), *clean], metric)
    check_clean(setup.spec.model, setup.subject.network.image, setup.card, metric, hits, images)


def _counted(clean: Iterable[Tally], metric: Metric) -> tuple[int, int]:
    """(hits, images) of clean tallies."""
    hits = images = 0
    for tally in clean:
        packed = tally.top5 if metric == "top5" and tally.top5 else tally.top1
        bits: Bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=tally.images).view(np.bool_)
        hits, images = hits + int(np.count_nonzero(bits)), images + tally.images
    return hits, images
