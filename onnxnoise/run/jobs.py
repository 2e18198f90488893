"""Measures a job: the images of one chunk are decoded and swept, in the same way in every process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnoise.data.dealing import DealtImages
from onnxnoise.data.fit import layout_of
from onnxnoise.data.sources.base import ImageSource
from onnxnoise.engine.sweep import ChunkSweep, Todo
from onnxnoise.records import CHUNKED, DEALT, ImageChunk, Labels, Tally, TallyKey, Variant
from onnxnoise.run.experiment import Experiment
from onnxnoise.runtime.attended import attended

_PIECE = 64
"""The number of images decoded at a time; in between, the decoder checks whether it should stop."""

_PATIENCE = 2.0
"""Seconds in which the decoder should have stopped. Where a user's code gives the images it may sleep, or never end."""

Step = Callable[[Tally], None]


@dataclass(frozen=True)
class Job:
    """Tallies to measure on one chunk, the range of its images' positions in the data."""

    chunk: range
    keys: tuple[TallyKey, ...]


@dataclass(frozen=True)
class TallyGroup:
    """Tallies of one chunk that are kept together or not at all. `start` is the position of the chunk's first image.

    `images_sha256` is the digest of the chunk's pixels and labels.
    """

    start: int
    images_sha256: str
    tallies: tuple[Tally, ...]


def identity(experiment: Experiment) -> dict[str, Any]:
    """The properties that tallies must share to belong together, as the run file keeps them."""
    spec, network = experiment.spec, experiment.subject.network
    return {
        "model": network.sha256,
        "data": experiment.images.digest,
        **spec.setting.flat(),
        "layers": [layer.index for layer in experiment.subject.layers],
        "preprocessing": {**experiment.card.input.identity(), "layout": layout_of(network.image, experiment.card)},
        "output": network.logits,
        "provider": experiment.provider.name,
        **({"labels": "clean"} if spec.by_clean else {}),
        **({"design": CHUNKED, "images": experiment.count} if spec.chunked else {}),
        **({"order": DEALT} if isinstance(experiment.images, DealtImages) else {}),
    }


def measure(
    experiment: Experiment, jobs: Iterable[Job], step: Step, threads: int | None = None
) -> Iterator[TallyGroup]:
    """Yield each job's tallies in order, one group for each layer; meanwhile the next job is taken and its chunk decoded.

    `step` is called with each tally; `threads` None: one for each core. Raises DataError for images that can't be read,
    ModelError for a model that does not run on them.
    """
    stop = Event()
    waiting: tuple[Job, Future[ImageChunk]] | None = None

    def ahead(job: Job, before: Future[ImageChunk] | None) -> Future[ImageChunk]:
        """The images of a job, decoded after those of the one before in a thread that nobody must wait for."""

        def call() -> ImageChunk:
            wait([before] if before else [])
            return decoded(experiment.images, job.chunk, threads, stop)

        return attended(call)

    try:
        for job in jobs:
            ready, waiting = waiting, (job, ahead(job, waiting and waiting[1]))
            if ready:
                yield from swept(experiment, ready[1].result(), ready[0].keys, step, threads)
        if waiting:
            yield from swept(experiment, waiting[1].result(), waiting[0].keys, step, threads)
    finally:
        stop.set()
        wait([waiting[1]] if waiting else [], _PATIENCE)


def decoded(images: ImageSource, chunk: range, threads: int | None = None, stop: Event | None = None) -> ImageChunk:
    """The images of one chunk, decoded. Raises InterruptedError soon after `stop` is set."""
    pieces = [chunk[i : i + _PIECE] for i in range(0, len(chunk), _PIECE)]
    pixels: npt.NDArray[Any] = np.empty(0, np.uint8)
    labels = np.empty(len(chunk), np.int64)
    for piece in images.chunks(pieces, threads=threads):
        if stop is not None and stop.is_set():
            raise InterruptedError
        if not pixels.size:
            pixels = np.empty((len(chunk), *piece.pixels.shape[1:]), piece.pixels.dtype)
        at = slice(piece.start - chunk.start, piece.start - chunk.start + len(piece.labels))
        pixels[at], labels[at] = piece.pixels, piece.labels
    return ImageChunk(chunk.start, pixels, labels)


def swept(
    experiment: Experiment, chunk: ImageChunk, keys: Sequence[TallyKey], step: Step, threads: int | None = None
) -> Iterator[TallyGroup]:
    """The tallies that `keys` name, measured on a chunk, in one group for each layer."""
    digest = _digest(chunk)
    for tallies in _swept(experiment, chunk, keys, step, threads):
        yield TallyGroup(chunk.start, digest, tuple(tallies))


def _swept(
    experiment: Experiment, chunk: ImageChunk, keys: Sequence[TallyKey], step: Step, threads: int | None
) -> Iterator[list[Tally]]:
    todo: dict[str, dict[int | None, list[Variant]]] = {}
    for kind, layer, level, draw, _ in keys:
        todo.setdefault(kind, {}).setdefault(layer, []).append(Variant(level, draw))
    network, layers = experiment.subject.network, experiment.subject.layers
    batches = experiment.batches(chunk.pixels)
    with ChunkSweep(
        network,
        experiment.noise,
        experiment.provider,
        batches,
        chunk.labels,
        chunk.start,
        threads=threads,
        step=step,
        pieces=experiment.pieces,
        recalibration=experiment.recalibration,
    ) as sweep:
        if experiment.spec.by_clean:
            sweep.take_clean_labels()
        if "clean" in todo:
            yield [sweep.clean()]
        yield from sweep.all(todo.get("all", {}).get(None, []), layers)
        yield from sweep.single(_by_layer(todo.get("single", {})))
        together = experiment.together(len(chunk.labels))
        yield from sweep.cumulative(_by_layer(todo.get("cumulative", {})), layers, together=together)


def clean_labels(experiment: Experiment, images: int) -> Labels:
    """The clean model's own top-1 (images,) of the first images."""
    chunk = decoded(experiment.images, range(images))
    network, batches = experiment.subject.network, experiment.batches(chunk.pixels)
    with ChunkSweep(
        network, experiment.noise, experiment.provider, batches, chunk.labels, 0, pieces=experiment.pieces
    ) as sweep:
        return sweep.take_clean_labels()


def _by_layer(todo: dict[int | None, list[Variant]]) -> Todo:
    return {layer: variants for layer, variants in todo.items() if layer is not None}


def _digest(chunk: ImageChunk) -> str:
    digest = hashlib.sha256(chunk.pixels.data)
    digest.update(chunk.labels.data)
    return digest.hexdigest()
