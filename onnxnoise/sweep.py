"""One chunk of images through all layers and variants: each prefix is run once, clean, and only suffixes are noisy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnoise import session
from onnxnoise.batchnorm import LayerNoise
from onnxnoise.network import Network
from onnxnoise.records import Bits, Labels, NoiseLayer, Policy, SigmaScope, Tally, Variant
from onnxnoise.rewrite import Cutter, Segment
from onnxnoise.session import Provider, Session, Value

Array = npt.NDArray[Any]
Cut = list[dict[str, Value]]
"""The values live at a cut, one dictionary for each mini-batch of the chunk."""


@dataclass(frozen=True)
class NoiseSpec:
    """What a draw's number means: seed, scope of sigma, batch-norm policy."""

    seed: int
    scope: SigmaScope
    policy: Policy


def judge(logits: npt.NDArray[np.floating], labels: Labels) -> tuple[Bits, Bits, Bits]:
    """(top-1 hits, top-5 hits, rows that are not all finite), each (images,), of logits (images, classes).

    Ties go to the lowest index; a row that is not all finite is never a hit. With five classes or fewer top-5 has no bits.
    """
    own = logits[np.arange(len(labels)), labels][:, None]
    lower = np.arange(logits.shape[1])[None, :] < labels[:, None]
    with np.errstate(invalid="ignore"):
        rank = (logits > own).sum(axis=1) + ((logits == own) & lower).sum(axis=1)
    nonfinite = ~np.isfinite(logits).all(axis=1)
    top5 = (rank < 5) & ~nonfinite if logits.shape[1] > 5 else np.zeros(0, bool)
    return (rank == 0) & ~nonfinite, top5, nonfinite


class ChunkSweep:
    """All measurements on one chunk: `batches` are the model's inputs, mini-batches of one size, the last one padded.

    `labels` (images,) are the classes of the images without the padding. `step` is called after each variant.
    """

    def __init__(
        self,
        network: Network,
        noise: NoiseSpec,
        provider: Provider,
        batches: Sequence[Array],
        labels: Labels,
        start: int,
        *,
        threads: int | None = None,
        step: Callable[[Tally], None] = lambda _: None,
    ) -> None:
        self.network, self.noise, self.provider, self.labels, self.start = network, noise, provider, labels, start
        self.threads, self.step = threads, step
        self.cutter = Cutter(network)
        self.references = session.by_reference(
            {name: value for name, value in network.constants.items() if value.dtype == np.float32}
        )
        self.images: Cut = [{network.image.name: session.to_device(batch, provider)} for batch in batches]

    def clean(self) -> Tally:
        """The noise-free pass."""
        whole = self._session(self.cutter.segment(0, self.cutter.end, self._types(self.images)))
        return self._tally("clean", None, Variant(float("inf"), 0), self._logits(whole, self.images, {}), 0)

    def single(self, todo: Mapping[int, Sequence[Variant]]) -> Iterator[list[Tally]]:
        """With noise in one layer at a time: for each layer index of `todo`, its variants' tallies."""
        cut, position = self.images, 0
        for layer in self.network.layers:
            variants = todo.get(layer.index)
            if not variants:
                continue
            cut = self._advanced(cut, position, layer.start)
            position = layer.start
            yield list(self._variants(layer, cut, variants))

    def all(self, variants: Sequence[Variant], layers: Sequence[NoiseLayer]) -> Iterator[list[Tally]]:
        """With noise in all `layers` at once: one list of one tally for each variant."""
        types = self._types(self.images)
        for variant in variants:
            noisy: dict[str, Array] = {}
            negative = 0
            for layer in layers:
                values, below = self._drawn(layer, variant.draw).at(variant.snr)
                noisy |= values
                negative += below
            segment = self.cutter.segment(0, self.cutter.end, types, replaced=noisy)
            logits = self._logits(self._session(segment, noisy), self.images, {})
            yield [self._tally("all", None, variant, logits, negative)]

    def _variants(self, layer: NoiseLayer, cut: Cut, variants: Sequence[Variant]) -> Iterator[Tally]:
        names = [tensor.value for tensor in layer.tensors]
        suffix = self._session(self.cutter.segment(layer.start, self.cutter.end, self._types(cut), lifted=names))
        for draw in dict.fromkeys(variant.draw for variant in variants):
            drawn = self._drawn(layer, draw)
            for variant in variants:
                if variant.draw == draw:
                    values, negative = drawn.at(variant.snr)
                    feeds = {name: session.to_device(value, self.provider) for name, value in values.items()}
                    yield self._tally("single", layer.index, variant, self._logits(suffix, cut, feeds), negative)

    def _drawn(self, layer: NoiseLayer, draw: int) -> LayerNoise:
        spec = self.noise
        return LayerNoise.drawn(
            layer, self.network.constants, seed=spec.seed, draw=draw, scope=spec.scope, policy=spec.policy
        )

    def _session(self, segment: Segment, replaced: Mapping[str, Array] | None = None) -> Session:
        changed = session.by_reference(
            {name: (replaced or {})[name] for name in segment.references if name in (replaced or {})}
        )
        weights = {name: changed[name] if name in changed else self._reference(name) for name in segment.references}
        return Session(segment.stub, weights, self.provider, threads=self.threads)

    def _reference(self, name: str) -> Value:
        if name not in self.references:
            self.references |= session.by_reference({name: self.network.constants[name]})
        return self.references[name]

    def _types(self, cut: Cut) -> dict[str, tuple[int, tuple[int, ...]]]:
        return session.types(cut[0])

    def _advanced(self, cut: Cut, start: int, stop: int) -> Cut:
        """The clean values at a later cut. Each mini-batch's old values go as its new ones come."""
        if start == stop:
            return cut
        segment = self.cutter.segment(start, stop, self._types(cut))
        live = set(self.cutter.live(stop))
        if not segment.outputs:
            return cut
        step = self._session(segment)
        advanced: Cut = []
        for i in range(len(cut)):
            values = cut[i]
            if cut is not self.images:
                cut[i] = {}
            made = dict(
                zip(segment.outputs, step.run({n: v for n, v in values.items() if n in step.inputs}), strict=True)
            )
            advanced.append({name: value for name, value in {**values, **made}.items() if name in live})
        return advanced

    def _logits(self, run: Session, cut: Cut, feeds: Mapping[str, Value]) -> npt.NDArray[np.float32]:
        rows = []
        for values in cut:
            (logits,) = run.run({**{n: v for n, v in values.items() if n in run.inputs}, **feeds})
            array = session.to_host(logits)
            rows.append(array.reshape(array.shape[0], -1))
        return np.concatenate(rows)[: len(self.labels)]

    def _tally(
        self, sweep: str, layer: int | None, variant: Variant, logits: npt.NDArray[np.float32], negative: int
    ) -> Tally:
        top1, top5, nonfinite = (np.packbits(bits).tobytes() for bits in judge(logits, self.labels))
        tally = Tally(
            sweep, layer, variant.snr, variant.draw, self.start, len(self.labels), top1, top5, nonfinite, negative
        )
        self.step(tally)
        return tally


def probe(network: Network, provider: Provider, batch: Array) -> int:
    """Bytes an image of the values live at the largest cut, found by running one batch."""
    cutter = Cutter(network)
    starts = sorted({layer.start for layer in network.layers})
    image = {network.image.name: session.to_device(batch, provider)}
    names = dict.fromkeys(name for start in starts for name in cutter.live(start) if name not in image)
    whole = cutter.segment(0, cutter.end, session.types(image), outputs=tuple(names) or None)
    weights = session.by_reference({name: network.constants[name] for name in whole.references})
    run = Session(whole.stub, weights, provider)
    sizes = {network.image.name: batch.nbytes}
    for name, value in zip(run.outputs, run.run(image), strict=True):
        sizes[name] = value.tensor_size_in_bytes()
    return max(1, *(sum(sizes[name] for name in cutter.live(start)) // len(batch) for start in starts))
