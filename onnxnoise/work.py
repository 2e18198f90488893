"""One chunk measured: its images decoded, swept, and judged; what a run hands out, wherever it is done."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from onnxnoise.records import ImageChunk, Tally, TallyKey, Variant
from onnxnoise.setup import Setup
from onnxnoise.sweep import ChunkSweep


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


def measure(setup: Setup, jobs: Sequence[Job], step: Callable[[Tally], None]) -> Iterator[Part]:
    """Each job's tallies, a part for each layer, in order; the next chunk is decoded meanwhile. `step` is told of each tally.

    Raises DataError for images that can't be read, ModelError for a model that does not run on them.
    """
    for chunk, job in zip(setup.images.chunks([job.chunk for job in jobs]), jobs, strict=True):
        digest = _digest(chunk)
        for tallies in _swept(setup, chunk, job.keys, step):
            yield Part(chunk.start, digest, tuple(tallies))


def _swept(
    setup: Setup, chunk: ImageChunk, keys: Sequence[TallyKey], step: Callable[[Tally], None]
) -> Iterator[list[Tally]]:
    todo: dict[str, dict[int | None, list[Variant]]] = {}
    for kind, layer, snr, draw, _ in keys:
        todo.setdefault(kind, {}).setdefault(layer, []).append(Variant(snr, draw))
    network, layers = setup.subject.network, setup.subject.layers
    batches = setup.batches(chunk.pixels)
    with ChunkSweep(network, setup.noise, setup.provider, batches, chunk.labels, chunk.start, step=step) as sweep:
        if "clean" in todo:
            yield [sweep.clean()]
        yield from sweep.all(todo.get("all", {}).get(None, []), layers)
        yield from sweep.single(_by_layer(todo.get("single", {})))


def _by_layer(todo: dict[int | None, list[Variant]]) -> dict[int, list[Variant]]:
    return {layer: variants for layer, variants in todo.items() if layer is not None}


def _digest(chunk: ImageChunk) -> str:
    digest = hashlib.sha256(chunk.pixels.data)
    digest.update(chunk.labels.data)
    return digest.hexdigest()
