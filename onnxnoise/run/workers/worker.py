"""A worker process, which measures jobs: it opens model, card and images once and checks that they are the run's."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

from onnxnoise.errors import DataError, ModelError, OnnxNoiseError, UsageError
from onnxnoise.results.run_file.store import difference
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.jobs import Job, Step, TallyGroup, decoded, identity, swept
from onnxnoise.spec import BenchSpec
from onnxnoise.words import PYTHON

_OPEN, _TURN = Lock(), Lock()
_opened: dict[Order, Experiment] = {}


@dataclass(frozen=True)
class Order:
    """The order to a worker: all that it must know about a run besides its jobs, as paths and digests without any array.

    `identity` is the run file's, as JSON; `host` and `release` are the machine that hands out the jobs and its onnxnoise.
    """

    spec: BenchSpec
    identity: str
    host: str
    release: str

    @classmethod
    def of(cls, experiment: Experiment) -> Order:
        """The order for an experiment; paths are made absolute, since a worker may have another working folder."""
        spec = experiment.spec
        there = replace(
            spec,
            model=_absolute(spec.model),
            noise=spec.setting.located if spec.setting.files else spec.noise,
            card=spec.card and _absolute(spec.card),
            data=spec.data and _absolute(str(spec.data)),
            labels=spec.labels if spec.by_clean else spec.labels and _absolute(spec.labels),
            noise_map=spec.noise_map and _absolute(spec.noise_map),
            provider=experiment.provider.name,
            out=None,
            workers=None,
            cluster=None,
            resources=(),
            shard=None,
        )
        return cls(there, json.dumps(identity(experiment)), platform.node(), version("onnxnoise"))


def perform(order: Order, job: Job, threads: int | None = None, step: Step = lambda _: None) -> list[TallyGroup]:
    """Measure a job in this process, as `jobs.measure` does.

    Several threads may call it: one job is measured at a time, while another one's images are decoded. `threads` None: one for
    each core. Raises ModelError or DataError where this machine has other files than the run's.
    """
    experiment = opened(order)
    chunk = decoded(experiment.images, job.chunk, threads)
    with _TURN:
        return list(swept(experiment, chunk, job.keys, step, threads))


def opened(order: Order) -> Experiment:
    """Model, card and images of a run, opened once in a process."""
    with _OPEN:
        if order not in _opened:
            _opened.clear()
            _opened[order] = _checked(order)
        return _opened[order]


def _checked(order: Order) -> Experiment:
    where = "" if platform.node() == order.host else f"on {platform.node()}: "
    if version("onnxnoise") != order.release:
        raise UsageError(
            f"{where}onnxnoise {version('onnxnoise')} is installed there, but {order.release} hands out the work; "
            "install the same on both"
        )
    asked = json.loads(order.identity)
    try:
        experiment = Experiment.opened(order.spec, kept=asked)
    except OnnxNoiseError as error:
        raise type(error)(f"{where}{error}") from error
    here = identity(experiment)
    named = {"model": experiment.subject.network.name, "dataset": experiment.images.name}
    if differing := difference(here, asked, named, named):
        raise _other(order.spec, where, *differing)
    return experiment


def _other(spec: BenchSpec, where: str, name: str, there: str, wanted: str) -> OnnxNoiseError:
    file: Mapping[str, Any] = {
        "model": spec.model,
        "data": spec.data or "the bundled images",
        "noise map sha256": spec.noise_map,
    }
    kind = ModelError if name == "model" else DataError
    return kind(
        f"{where}{file.get(name, spec.model)}: the {name} of this worker is not the run's ({there} there, {wanted} wanted); "
        "every machine needs the same files under the same paths"
    )


def _absolute(name: str) -> str:
    """A path as other processes find it; the name of something bundled stays."""
    if name.startswith(PYTHON):
        return f"{PYTHON}{Path(name.removeprefix(PYTHON)).absolute()}"
    return str(Path(name).absolute()) if Path(name).exists() or "{" in name else name
