"""One chunk measured: its images decoded, swept, and judged; what a run hands out, wherever it is done."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from threading import Event
from typing import Any

import numpy as np

from onnxnoise.data.fit import layout_of
from onnxnoise.data.sources.base import ImageSource
from onnxnoise.engine.sweep import ChunkSweep, Todo
from onnxnoise.records import CHUNKED, ImageChunk, Tally, TallyKey, Variant
from onnxnoise.run.experiment import Setup

_TOGETHER = 64
"""Images decoded before it is asked again whether they are still wanted."""

Step = Callable[[Tally], None]


@dataclass(frozen=True)
class Job:
    """Tallies to measure on one chunk, the range of its images' positions in the data."""

    chunk: range
    keys: tuple[TallyKey, ...]


@dataclass(frozen=True)
class Part:
    """Tallies that belong together in the run file, and the digest of the chunk's pixels and labels."""

    start: int
    images_sha256: str
    tallies: tuple[Tally, ...]


def identity(setup: Setup) -> dict[str, Any]:
    """What must be equal for tallies to belong together, as the run file keeps it."""
    spec, network = setup.spec, setup.subject.network
    return {
        "model": network.sha256,
        "data": setup.images.digest,
        "seed": spec.seed,
        "bn": spec.bn,
        "sigma_scope": spec.sigma_scope,
        "layers": [layer.index for layer in setup.subject.layers],
        "preprocessing": {**asdict(setup.card.input), "layout": layout_of(network.image, setup.card)},
        "output": network.logits,
        "provider": setup.provider.name,
        **({"design": CHUNKED, "images": setup.count} if spec.chunked else {}),
    }


def measure(setup: Setup, jobs: Iterable[Job], step: Step, threads: int | None = None) -> Iterator[Part]:
    """Each job's tallies, a part for each layer, in order; the next job is taken, and its chunk decoded, meanwhile.

    `step` is told of each tally; `threads` None: one for each core. Raises DataError for images that can't be read,
    ModelError for a model that does not run on them.
    """
    stop = Event()
    decoder = ThreadPoolExecutor(1, thread_name_prefix="onnxnoise-ahead")
    waiting: tuple[Job, Future[ImageChunk]] | None = None
    try:
        for job in jobs:
            ready, waiting = waiting, (job, decoder.submit(decoded, setup.images, job.chunk, threads, stop))
            if ready:
                yield from swept(setup, ready[1].result(), ready[0].keys, step, threads)
        if waiting:
            yield from swept(setup, waiting[1].result(), waiting[0].keys, step, threads)
    finally:
        stop.set()
        decoder.shutdown(cancel_futures=True)


def decoded(images: ImageSource, chunk: range, threads: int | None = None, stop: Event | None = None) -> ImageChunk:
    """The images of one chunk. An InterruptedError ends it soon after `stop` is set."""
    pieces = [chunk[i : i + _TOGETHER] for i in range(0, len(chunk), _TOGETHER)]
    pixels, labels = np.empty(0, np.uint8), np.empty(len(chunk), np.int64)
    for piece in images.chunks(pieces, threads=threads):
        if stop is not None and stop.is_set():
            raise InterruptedError
        if not pixels.size:
            pixels = np.empty((len(chunk), *piece.pixels.shape[1:]), np.uint8)
        at = slice(piece.start - chunk.start, piece.start - chunk.start + len(piece.labels))
        pixels[at], labels[at] = piece.pixels, piece.labels
    return ImageChunk(chunk.start, pixels, labels)


def swept(
    setup: Setup, chunk: ImageChunk, keys: Sequence[TallyKey], step: Step, threads: int | None = None
) -> Iterator[Part]:
    """What `keys` name, measured on a chunk: a part for each layer."""
    digest = _digest(chunk)
    for tallies in _swept(setup, chunk, keys, step, threads):
        yield Part(chunk.start, digest, tuple(tallies))


def _swept(
    setup: Setup, chunk: ImageChunk, keys: Sequence[TallyKey], step: Step, threads: int | None
) -> Iterator[list[Tally]]:
    todo: dict[str, dict[int | None, list[Variant]]] = {}
    for kind, layer, snr, draw, _ in keys:
        todo.setdefault(kind, {}).setdefault(layer, []).append(Variant(snr, draw))
    network, layers = setup.subject.network, setup.subject.layers
    batches = setup.batches(chunk.pixels)
    with ChunkSweep(
        network, setup.noise, setup.provider, batches, chunk.labels, chunk.start, threads=threads, step=step
    ) as sweep:
        if "clean" in todo:
            yield [sweep.clean()]
        yield from sweep.all(todo.get("all", {}).get(None, []), layers)
        yield from sweep.single(_by_layer(todo.get("single", {})))
        together = setup.together(len(chunk.labels))
        yield from sweep.cumulative(_by_layer(todo.get("cumulative", {})), layers, together=together)


def _by_layer(todo: dict[int | None, list[Variant]]) -> Todo:
    return {layer: variants for layer, variants in todo.items() if layer is not None}


def _digest(chunk: ImageChunk) -> str:
    digest = hashlib.sha256(chunk.pixels.data)
    digest.update(chunk.labels.data)
    return digest.hexdigest()
