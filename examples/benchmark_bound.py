"""Every sweep against the time that ONNX Runtime needs for the passes it can't avoid, and its memory over many chunks."""

from __future__ import annotations

import argparse
import ctypes
import gc
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from onnxnoise.engine.pieces import Pieces
from onnxnoise.engine.segments import Cutter
from onnxnoise.engine.sweep import ChunkSweep
from onnxnoise.model.network import Network
from onnxnoise.records import Labels, NoiseLayer, NoiseSetting, Tally, Variant
from onnxnoise.run.experiment import Experiment
from onnxnoise.runtime import session
from onnxnoise.runtime.session import Session, Value
from onnxnoise.spec import BenchSpec

_GROWTH_CHUNKS, _GROWTH_IMAGES = 200, 16


@dataclass(frozen=True)
class Subject:
    """A model with one chunk of images in mini-batches, and what to measure on it: every Nth layer, one draw of each SNR."""

    experiment: Experiment
    network: Network
    inputs: Any
    batches: list[Any]
    labels: Labels
    layers: Sequence[NoiseLayer]
    variants: list[Variant]

    @classmethod
    def opened(cls, options: argparse.Namespace, images: int | None = None) -> Subject:
        snrs = tuple(map(float, options.snr.split(",")))
        experiment = Experiment.opened(BenchSpec(options.model, options.card, options.data, snrs))
        count = min(len(experiment.images), images or options.images)
        (chunk,) = experiment.images.chunks([range(count)])
        return cls(
            experiment,
            experiment.subject.network,
            experiment.inputs(chunk.pixels),
            experiment.batches(chunk.pixels),
            chunk.labels,
            experiment.subject.layers[:: options.every],
            [Variant(snr, 0) for snr in snrs],
        )

    def chunk_sweep(self, pieces: Pieces | None = None) -> ChunkSweep:
        provider = self.experiment.provider
        return ChunkSweep(self.network, NoiseSetting(), provider, self.batches, self.labels, 0, pieces=pieces)

    def todo(self) -> dict[int, list[Variant]]:
        return {layer.index: self.variants for layer in self.layers}


def next_layer(lists: Iterator[list[Tally]], engine: ChunkSweep) -> list[Tally]:
    """A layer's tallies, its time and no other's: the next layer's first pass, which is under way by then, is waited for.

    So each layer has one pass of the next one in its time, the first one more, the last one fewer.
    """
    tallies = next(lists)
    wait(engine._outputs)
    return tallies


class Clock:
    """Seconds by name: of the wall, and of this process's processors, which other programs disturb less."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.processor: dict[str, float] = {}

    @contextmanager
    def of(self, *names: str) -> Iterator[None]:
        wall, processor = time.perf_counter(), time.process_time()
        yield
        for name in names:
            self.wall[name] = self.wall.get(name, 0) + time.perf_counter() - wall
            self.processor[name] = self.processor.get(name, 0) + time.process_time() - processor


class CleanPasses:
    """Passes that no sweep can do without, on its mini-batches and cores, by sessions that were made and warmed up before."""

    def __init__(self, subject: Subject, engine: ChunkSweep) -> None:
        self.network, self.provider, self.lanes = subject.network, subject.experiment.provider, engine.lanes
        self.cutter = Cutter(subject.network)
        image = subject.network.image.name
        self.images = [{image: session.to_device(batch, self.provider)} for batch in subject.batches]
        self.cut, self.position = self.images, 0

    def ready(self, start: int, stop: int, cut: Sequence[Mapping[str, Value]]) -> Session:
        segment = self.cutter.segment(start, stop, session.types(cut[0]))
        made = Session(segment.stub, segment.references, self.provider, prepacked=True)
        made.run(cut[0])
        return made

    def run(self, ready: Session, cut: Sequence[Mapping[str, Value]]) -> list[dict[str, Value]]:
        return list(self.lanes.map(ready.run, cut))

    def move(self, made: Sequence[Mapping[str, Value]], position: int) -> None:
        live = self.cutter.live(position)
        self.cut = [{name: {**old, **new}[name] for name in live} for old, new in zip(self.cut, made, strict=True)]
        self.position = position


def bound(options: argparse.Namespace) -> None:
    """`single`, `cumulative` and `all` in turn with the clean passes, layer by layer.

    The bound of `single` is, for each layer, the clean values brought from the cut before to the layer's, once, and the
    graph from there on, once for each variant. That of `cumulative` has both once for each variant; that of `all` is the
    whole graph.
    """
    subject, clock = Subject.opened(options), Clock()
    variants, layers = subject.variants, subject.layers
    with subject.chunk_sweep() as one, subject.chunk_sweep() as other:
        single, cumulative = (
            one.single(subject.todo()),
            other.cumulative(subject.todo(), subject.experiment.subject.layers),
        )
        clean = CleanPasses(subject, one)
        for layer in layers:
            with clock.of("single"):
                next_layer(single, one)
            with clock.of("cumulative"):
                next_layer(cumulative, other)
            if layer.start > clean.position:
                step = clean.ready(clean.position, layer.start, clean.cut)
                with clock.of("single's bound", "cumulative's bound"):
                    made = clean.run(step, clean.cut)
                for _ in variants[1:]:
                    with clock.of("cumulative's bound"):
                        made = clean.run(step, clean.cut)
                clean.move(made, layer.start)
            suffix = clean.ready(layer.start, clean.cutter.end, clean.cut)
            for _ in variants:
                with clock.of("single's bound", "cumulative's bound"):
                    clean.run(suffix, clean.cut)
        every = one.all(variants, subject.experiment.subject.layers)
        whole = clean.ready(0, clean.cutter.end, clean.images)
        for _ in variants:
            with clock.of("all"):
                next_layer(every, one)
            with clock.of("all's bound"):
                clean.run(whole, clean.images)
    print(
        f"bound: {subject.network.name}, {len(layers)} layers x {len(variants)} SNRs x 1 draw x {len(subject.labels)} images, "
        f"batch {len(subject.batches[0])}, {subject.experiment.provider.name}, onnxruntime {ort.__version__}"
    )
    for name in ("single", "cumulative", "all"):
        needed, least = clock.wall[name], clock.wall[f"{name}'s bound"]
        share = clock.processor[f"{name}'s bound"] / clock.processor[name]
        print(
            f"  {name:<11} {needed:8.1f} s, clean passes alone {least:8.1f} s: {least / needed:.3f} of the bound "
            f"({share:.3f} by processor time)"
        )


def growth(options: argparse.Namespace) -> None:
    """Resident memory over many small chunks, each through all three sweeps in this process."""
    options = argparse.Namespace(**{**vars(options), "every": max(options.every, 8)})
    subject = Subject.opened(options, _GROWTH_IMAGES)
    print(
        f"growth: {subject.network.name}, chunks of {len(subject.labels)} images through {len(subject.layers)} layers"
    )
    for chunk in range(1, _GROWTH_CHUNKS + 1):
        with subject.chunk_sweep() as engine:
            engine.clean()
            for sweep in (
                engine.all(subject.variants, subject.layers),
                engine.single(subject.todo()),
                engine.cumulative(subject.todo(), subject.layers),
            ):
                for _ in sweep:
                    pass
        if chunk in (1, 20, 100, _GROWTH_CHUNKS):
            gc.collect()
            held = resident()
            print(f"  after {chunk:3} chunks: {held / 2**20:7.1f} MiB resident, {trimmed() / 2**20:.1f} in use")


def trimmed() -> int:
    """Bytes resident once the C library has given back what is free (glibc): a leak would stay."""
    ctypes.CDLL(None).malloc_trim(0)
    return resident()


def resident() -> int:
    """Bytes of this process in memory now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
