"""What a draw costs besides its image passes, and `all` against patch-and-reload where draws are few or many."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import onnxruntime as ort
from benchmark_bound import CleanPasses, Clock, Subject
from benchmark_rivals import ReloadLoop

from onnxnoise.engine.hits import judge
from onnxnoise.engine.pieces import Pieces
from onnxnoise.records import Variant

_SNR = 10.0
_LOOP_BATCH = 100
"""Images in a mini-batch of the loop: its best size or close to it."""


def draw(options: argparse.Namespace) -> None:
    """The cost of a draw in image passes, then one draw on many images and many draws on a chunk of 50 against the loop."""
    for draws, images in ((1, options.images), (options.draws, 50)):
        _against_the_loop(Subject.opened(options, images), draws)
    _cost(Subject.opened(options, 50), options.draws)


def _cost(subject: Subject, draws: int) -> None:
    """Processor time of a draw's noise and of all that makes it ready to run, over `draws` draws and the sessions they share."""
    clock, layers = Clock(), subject.experiment.subject.layers
    with subject.chunk_sweep() as engine:
        clean = CleanPasses(subject, engine)
        whole = clean.ready(0, clean.cutter.end, clean.images)
        for each in range(draws):
            with clock.of("draws"):
                noisy, _ = engine._noise(layers, Variant(_SNR, each))
                engine._piece(0, engine.cutter.end, noisy)
            if each % 10 == 0:
                with clock.of("passes"):
                    clean.run(whole, clean.images)
    padded = len(subject.batches) * len(subject.batches[0])
    one, image = clock.processor["draws"] / draws, clock.processor["passes"] / (-(-draws // 10) * padded)
    print(
        f"draw: {subject.network.name}, {draws} draws: {1000 * one:.1f} ms of processor time each, the worth of "
        f"{one / image:.1f} image passes of {1000 * image:.2f} ms"
    )


def _against_the_loop(subject: Subject, draws: int) -> None:
    """`all` in time of wall and processor, noise included on both sides, and the images whose hits differ."""
    experiment, network, labels = subject.experiment, subject.network, subject.labels
    pieces = Pieces(network, experiment.provider)
    batches = [subject.inputs[i : i + _LOOP_BATCH] for i in range(0, len(labels), _LOOP_BATCH)]
    loop = ReloadLoop(experiment.subject.classifier.path, network.image.name, batches)
    clock, differ = Clock(), 0
    for each in range(draws):
        with clock.of("engine"), subject.chunk_sweep(pieces) as engine:
            ((tally,),) = engine.all([Variant(_SNR, each)], experiment.subject.layers)
        with clock.of("loop"):
            noisy = _noise(subject, each)
            with clock.of("loop without noise"):
                logits = loop(noisy)
        ours = np.unpackbits(np.frombuffer(tally.top1, np.uint8))[: len(labels)].view(bool)
        differ += int((ours != judge(logits, labels)[0]).sum())
    print(f"all: {network.name}, {draws} draws x {len(labels)} images, onnxruntime {ort.__version__}")
    for kind, spent in (("processor", clock.processor), ("wall", clock.wall)):
        own = spent["engine"]
        print(
            f"  {kind:<9} time: this engine {own:.2f} s; patch, reload, whole graph {spent['loop']:.2f} s: "
            f"{spent['loop'] / own:.2f}x, without making its noise {spent['loop without noise'] / own:.2f}x"
        )
    print(f"  images whose hit differs: {differ} of {draws * len(labels):,}")


def _noise(subject: Subject, draw: int) -> dict[str, Any]:
    """The noisy initializers by name in the file, as a person writes the definition down."""
    made = {}
    for layer in subject.experiment.subject.layers:
        for tensor in layer.tensors:
            sequence = np.random.SeedSequence(entropy=40, spawn_key=(draw, layer.index, tensor.role))
            normals = np.random.Generator(np.random.Philox(sequence)).standard_normal(tensor.shape, dtype=np.float32)
            clean = subject.network.constants[tensor.value]
            normals = normals.swapaxes(-1, -2) if tensor.transposed else normals
            noisy = clean + np.float32(tensor.sigma_w / _SNR) * normals.reshape(clean.shape)
            floored = layer.kind == "batchnorm" and tensor.role == 3
            made[tensor.name] = np.maximum(noisy, np.float32(0)) if floored else noisy
    return made
