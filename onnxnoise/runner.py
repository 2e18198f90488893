"""A whole run: everything opened, what the run file lacks measured chunk by chunk and kept, the result drawn from it."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from math import ceil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from onnxnoise import session
from onnxnoise.cards import Card
from onnxnoise.checks import check_clean, check_fit, layout_of
from onnxnoise.errors import DataError
from onnxnoise.images import ImageSource, open_images
from onnxnoise.images.preprocess import to_input
from onnxnoise.records import Bits, ImageChunk, Metric, Pixels, Result, Tally, Variant
from onnxnoise.results import Question, summarize
from onnxnoise.session import Provider
from onnxnoise.spec import BenchSpec
from onnxnoise.store import RunStore, TallyKey
from onnxnoise.subject import Subject, card_of, layer_info, open_model
from onnxnoise.sweep import ChunkSweep, NoiseSpec, Probe, probe

Array = npt.NDArray[Any]

_MEMORY = 2 << 30
_LARGEST_CHUNK = 1000
"""Images: beyond this a chunk costs memory and progress, and its sessions are long paid for."""

_BATCH_BYTES = 2 << 20
"""At the largest cut: a mini-batch's values should stay in a core's cache."""

_WORKING_BYTES = 600 << 20
"""Sessions' activations, libraries, and what is decoded ahead."""

_SMALLEST_BATCH, _LARGEST_BATCH = 4, 64


class Watcher(Protocol):
    """Who is told how a run goes."""

    def started(self, run: Run) -> None:
        """Everything is open and checked; nothing was measured in this process yet."""

    def measured(self, tally: Tally) -> None:
        """One pass over a chunk is done, clean ones included. Called in the thread that runs `bench`."""


class Silent:
    """A watcher that shows nothing."""

    def started(self, run: Run) -> None: ...
    def measured(self, tally: Tally) -> None: ...


@dataclass(frozen=True)
class Setup:
    """What a run needs besides its run file, opened and held against each other."""

    spec: BenchSpec
    subject: Subject
    card: Card
    images: ImageSource
    provider: Provider

    @classmethod
    def opened(cls, spec: BenchSpec) -> Setup:
        """Raises OnnxNoiseError's subclasses for whatever can't be used or does not fit together."""
        subject = open_model(spec.model, bn=spec.bn, layers=spec.layers, output=spec.output, card=spec.card)
        classifier = subject.classifier
        card = card_of(spec.model, classifier.path, spec.card, classifier.metadata)
        setup = cls(spec, subject, card, open_images(spec.data, card), session.find_provider(spec.provider))
        check_fit(spec.model, classifier.image, classifier.classes or setup.probe.classes, card, setup.images)
        return setup

    @property
    def metric(self) -> Metric:
        """What the tables show: the spec's, else the card's, else top-1."""
        return self.spec.metric or self.card.measured.metric or self.card.published.metric or "top1"

    def inputs(self, pixels: Pixels) -> Array:
        """The model's input for uint8 RGB pixels (n, height, width, 3)."""
        image = self.subject.network.image
        return to_input(pixels, self.card.input, layout_of(image, self.card), image.dtype)

    @cached_property
    def probe(self) -> Probe:
        """One pass over a blank mini-batch."""
        side, fixed = self.card.input.size, self.subject.network.image.batch
        return probe(self.subject.network, self.provider, self.inputs(np.zeros((fixed or 1, side, side, 3), np.uint8)))

    def batch_size(self, images: int) -> int:
        """Images in a mini-batch, so that the mini-batches of a chunk are about equal."""
        if self.subject.network.image.batch is not None:
            return self.subject.network.image.batch
        largest = min(max(_BATCH_BYTES // self.probe.cut_bytes, _SMALLEST_BATCH), _LARGEST_BATCH)
        return ceil(images / ceil(images / largest))

    def chunk_size(self) -> int:
        """Images whose pixels, inputs and values at the largest cut fit the memory that the model leaves."""
        weights = sum(value.nbytes for value in self.subject.network.constants.values())
        memory = _memory()
        left = max(memory - 2 * weights - _WORKING_BYTES, memory // 8)
        most = left // (self.probe.cut_bytes + self.probe.input_bytes + 6 * self.card.input.size**2)
        fixed = self.subject.network.image.batch or 1
        return max(fixed, min(_LARGEST_CHUNK, most) // fixed * fixed)


def _memory() -> int:
    """The default budget in bytes: 2 GiB, or half of the machine's memory where that is less."""
    try:
        return min(_MEMORY, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    except (AttributeError, ValueError):  # not a POSIX system
        return _MEMORY


@dataclass(frozen=True)
class Run:
    """A run with its file open: what is asked for, and what of it is still missing (`todo`, by chunk)."""

    setup: Setup
    question: Question
    store: RunStore
    todo: dict[range, list[TallyKey]]


def bench(spec: BenchSpec, watcher: Watcher | None = None) -> Result:
    """Measure a noise profile, or what is missing of it in the run file, and return its result.

    Raises OnnxNoiseError's subclasses with what to do; a KeyboardInterrupt leaves everything measured so far in the run file.
    """
    watcher = watcher or Silent()
    run = open_run(Setup.opened(spec))
    with run.store:
        watcher.started(run)
        try:
            if run.todo:
                run.store.begin(_provenance(run.setup))
                _measure(run, watcher)
        except DataError:
            run.store.discard()
            raise
        result = summarize(run.store, run.question)
    assert result is not None, "a finished run has its clean pass"
    return result


def open_card(model: str, card: str | None, output: str | None = None) -> tuple[Subject, Card]:
    """A model with the card that a run would use for it; raises as `Setup.opened`."""
    subject = open_model(model, output=output, card=card)
    return subject, card_of(model, subject.classifier.path, card, subject.classifier.metadata)


def clean_hits(spec: BenchSpec) -> tuple[Metric, int, int]:
    """(metric, hits, images) of the clean model on the images of `spec`; raises as `Setup.opened`."""
    setup = Setup.opened(spec)
    count = min(len(setup.images), spec.limit or len(setup.images))
    noise = NoiseSpec(spec.seed, spec.sigma_scope, spec.bn)
    size = setup.chunk_size()
    tallies = []
    for chunk in setup.images.chunks([range(i, min(i + size, count)) for i in range(0, count, size)]):
        batches = _batches(setup.inputs(chunk.pixels), setup.batch_size(len(chunk.labels)))
        with ChunkSweep(setup.subject.network, noise, setup.provider, batches, chunk.labels, chunk.start) as sweep:
            tallies.append(sweep.clean())
    return setup.metric, *_counted(tallies, setup.metric)


def open_run(setup: Setup) -> Run:
    """Open or make the run file; raises RunFileError where it can't be used or belongs to another run."""
    spec, card, network = setup.spec, setup.card, setup.subject.network
    indices = tuple(layer.index for layer in setup.subject.layers)
    question = Question(
        snrs=spec.snrs,
        sweeps=spec.sweeps,
        draws=spec.draws,
        images=min(len(setup.images), spec.limit or len(setup.images)),
        layers=indices,
        metric=setup.metric,
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
        done, todo = store.done(), {}
        for chunk in store.lay_down(question.images, setup.chunk_size):
            keys = [key for key in _keys(question, chunk.start) if key not in done]
            if keys:
                todo[chunk] = keys
    except BaseException:
        store.close()
        raise
    return Run(setup, question, store, todo)


def _keys(question: Question, start: int) -> list[TallyKey]:
    """All tallies that a chunk owes, in the order in which they are measured."""
    variants = [(snr, draw) for draw in range(question.draws) for snr in question.snrs]
    keys: list[TallyKey] = [("clean", None, float("inf"), 0, start)]
    if "all" in question.sweeps:
        keys += [("all", None, snr, draw, start) for snr, draw in variants]
    if "single" in question.sweeps:
        keys += [("single", layer, snr, draw, start) for layer in question.layers for snr, draw in variants]
    return keys


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


def _measure(run: Run, watcher: Watcher) -> None:
    setup, spec, store = run.setup, run.setup.spec, run.store
    network = setup.subject.network
    noise = NoiseSpec(spec.seed, spec.sigma_scope, spec.bn)
    ranges = list(run.todo)
    size = setup.batch_size(len(ranges[0]))
    for chunk, positions in zip(setup.images.chunks(ranges), ranges, strict=True):
        keys = run.todo[positions]
        store.check_images(chunk.start, _digest(chunk))
        batches = _batches(setup.inputs(chunk.pixels), size)
        with ChunkSweep(
            network, noise, setup.provider, batches, chunk.labels, chunk.start, step=watcher.measured
        ) as sweep:
            clean = sweep.clean() if keys[0][0] == "clean" else None
            if positions == ranges[0] and spec.clean_check:
                _check_clean(
                    run, clean
                )  # before it is kept: after a mistake in the card the file must not be in the way
            if clean is not None:
                store.append([clean])
            whole = [Variant(snr, draw) for kind, _, snr, draw, _ in keys if kind == "all"]
            for tallies in sweep.all(whole, setup.subject.layers):
                store.append(tallies)
            single: dict[int, list[Variant]] = {}
            for kind, layer, snr, draw, _ in keys:
                if kind == "single" and layer is not None:
                    single.setdefault(layer, []).append(Variant(snr, draw))
            for tallies in sweep.single(single):
                store.append(tallies)


def _digest(chunk: ImageChunk) -> str:
    digest = hashlib.sha256(chunk.pixels.data)
    digest.update(chunk.labels.data)
    return digest.hexdigest()


def _batches(inputs: Array, size: int) -> Sequence[Array]:
    """Mini-batches of one size; the last one is filled up with its last image."""
    batches = [inputs[i : i + size] for i in range(0, len(inputs), size)]
    lacking = size - len(batches[-1])
    if lacking:
        batches[-1] = np.concatenate([batches[-1], np.repeat(batches[-1][-1:], lacking, axis=0)])
    return batches


def _check_clean(run: Run, clean: Tally | None) -> None:
    """Hold the clean passes kept so far, and a new one, against the card; raises DataError."""
    setup, metric = run.setup, run.question.metric
    hits, images = _counted([*run.store.tallies("clean"), *([clean] if clean else [])], metric)
    check_clean(setup.spec.model, setup.subject.network.image, setup.card, metric, hits, images)


def _counted(clean: Iterable[Tally], metric: Metric) -> tuple[int, int]:
    """(hits, images) of clean tallies."""
    hits = images = 0
    for tally in clean:
        packed = tally.top5 if metric == "top5" and tally.top5 else tally.top1
        bits: Bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=tally.images).view(np.bool_)
        hits, images = hits + int(np.count_nonzero(bits)), images + tally.images
    return hits, images
