"""One chunk of images through all layers and variants: a prefix is run once, clean, and only what follows again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from onnxnoise import session
from onnxnoise.batchnorm import LayerNoise
from onnxnoise.images.stream import usable_cores
from onnxnoise.network import Network
from onnxnoise.records import Bits, Labels, NoiseLayer, Policy, SigmaScope, Tally, Variant
from onnxnoise.rewrite import Cutter, Segment
from onnxnoise.session import Provider, Session, Value

Array = npt.NDArray[Any]
Cut = list[dict[str, Value]]
"""The values live at a cut, one dictionary for each mini-batch of the chunk."""

Collect = Callable[[], Tally]
"""Waits for a pass that is under way."""

_SLAB_BYTES = 64 << 20


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

    `labels` (images,) are the classes of the images without the padding, `start` the first one's position in the data.
    `step` is told of each tally. Use it in a `with` block, which ends its threads.
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
        self.step = step
        self.cutter = Cutter(network)
        self.images: Cut = [{network.image.name: session.to_device(batch, provider)} for batch in batches]
        # On CPUs a mini-batch to a core, each run on one thread, beats all cores on one mini-batch, and no result depends on them
        self.lanes = ThreadPoolExecutor((threads or usable_cores()) if provider.device == "cpu" else 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.lanes.shutdown(cancel_futures=True)

    def clean(self) -> Tally:
        """The noise-free pass."""
        whole = self._session(self.cutter.segment(0, self.cutter.end, session.types(self.images[0])), prepacked=True)
        return self._submitted([whole], self.images, "clean", None, Variant(float("inf"), 0), 0)()

    def single(self, todo: Mapping[int, Sequence[Variant]]) -> Iterator[list[Tally]]:
        """With noise in one layer at a time: for each layer index of `todo`, its variants' tallies."""
        cut, position, rest = self.images, 0, _Rest(self.cutter.end, None)
        for layer in self.network.layers:
            variants = todo.get(layer.index)
            if variants:
                cut = self._advanced(cut, position, layer.start)
                position = layer.start
                start = self.cutter.join(layer)
                if start != rest.start:
                    rest = _Rest(start, None)  # the old session gives its memory back before the new one takes its own
                    rest = self._rest(cut, layer, start)
                yield list(_one_ahead(self._single(layer, cut, rest, variants)))

    def all(self, variants: Sequence[Variant], layers: Sequence[NoiseLayer]) -> Iterator[list[Tally]]:
        """With noise in all `layers` at once: one list of one tally for each variant."""
        for tally in _one_ahead(self._all(variants, layers)):
            yield [tally]

    def _single(self, layer: NoiseLayer, cut: Cut, rest: _Rest, variants: Sequence[Variant]) -> Iterator[Collect]:
        types = session.types(cut[0])
        for draw in dict.fromkeys(variant.draw for variant in variants):
            drawn = self._drawn(layer, draw)
            for variant in variants:
                if variant.draw == draw:
                    noisy, negative = drawn.at(variant.snr)
                    piece = self._session(self.cutter.segment(layer.start, rest.start, types, replaced=noisy))
                    yield self._submitted([piece, rest.run], cut, "single", layer.index, variant, negative)

    def _all(self, variants: Sequence[Variant], layers: Sequence[NoiseLayer]) -> Iterator[Collect]:
        types = session.types(self.images[0])
        for variant in variants:
            noisy: dict[str, Array] = {}
            negative = 0
            for layer in layers:
                values, below = self._drawn(layer, variant.draw).at(variant.snr)
                noisy |= values
                negative += below
            whole = self._session(self.cutter.segment(0, self.cutter.end, types, replaced=noisy))
            yield self._submitted([whole], self.images, "all", None, variant, negative)

    def _rest(self, cut: Cut, layer: NoiseLayer, start: int) -> _Rest:
        """The clean graph from the next convolution or dense layer on, shared by the variants of all layers up to there.

        Only the piece before it is noisy and gets a session for each variant: of a few nodes, whole with its batch norm and
        activation, its weights constant, so that ONNX Runtime fuses and lays it out as it would in the whole graph.
        """
        if start == self.cutter.end:
            return _Rest(start, None)
        step = self.cutter.segment(layer.start, start, session.types(cut[0]))
        types = session.types({**cut[0], **self._session(step).run(cut[0])})
        return _Rest(start, self._session(self.cutter.segment(start, self.cutter.end, types), prepacked=True))

    def _drawn(self, layer: NoiseLayer, draw: int) -> LayerNoise:
        spec = self.noise
        return LayerNoise.drawn(
            layer, self.network.constants, seed=spec.seed, draw=draw, scope=spec.scope, policy=spec.policy
        )

    def _session(self, segment: Segment, *, prepacked: bool = False) -> Session:
        return Session(segment.stub, segment.references, self.provider, prepacked=prepacked)

    def _advanced(self, cut: Cut, start: int, stop: int) -> Cut:
        """The clean values at a later cut. Each mini-batch's old values go as its new ones come."""
        segment = self.cutter.segment(start, stop, session.types(cut[0])) if start < stop else None
        if segment is None or not segment.outputs:
            return cut
        live = set(self.cutter.live(stop))
        step = self._session(segment)

        def advance(i: int, into: Mapping[str, Value] | None) -> dict[str, Value]:
            values = cut[i]
            if cut is not self.images:
                cut[i] = {}
            return {name: value for name, value in {**values, **step.run(values, into)}.items() if name in live}

        first = advance(0, None)
        room = _Room({name: first[name] for name in step.outputs}, self.provider)
        return [first, *self.lanes.map(advance, range(1, len(cut)), room.of(len(cut) - 1))]

    def _submitted(
        self, runs: Sequence[Session | None], cut: Cut, sweep: str, layer: int | None, variant: Variant, negative: int
    ) -> Collect:
        """Start a pass of the chunk through sessions that follow each other; the returned function waits for its tally."""

        def logits_of(values: dict[str, Value]) -> npt.NDArray[np.float32]:
            for run in runs:
                if run is not None:
                    values = {**values, **run.run(values)}
            logits = session.to_host(values[self.network.logits])
            return logits.reshape(logits.shape[0], -1)

        rows = [self.lanes.submit(logits_of, values) for values in cut]

        def collect() -> Tally:
            logits = np.concatenate([row.result() for row in rows])[: len(self.labels)]
            top1, top5, nonfinite = (np.packbits(bits).tobytes() for bits in judge(logits, self.labels))
            images = len(self.labels)
            tally = Tally(sweep, layer, variant.snr, variant.draw, self.start, images, top1, top5, nonfinite, negative)
            self.step(tally)
            return tally

        return collect


class _Room:
    """Where the values of a cut are kept in host memory: in slabs that the system gets back when their last mini-batch goes.

    Values in the allocator's own small pieces would leave it in possession of several times what is alive.
    """

    def __init__(self, like: Mapping[str, Value], provider: Provider) -> None:
        self.like = {name: session.to_host(value) for name, value in like.items()}
        self.provider = provider

    def of(self, batches: int) -> Iterator[Mapping[str, Value] | None]:
        """For each mini-batch, a value to write each output to; None on a device, which has an allocator of its own."""
        if self.provider.device != "cpu":
            yield from [None] * batches
            return
        together = max(1, _SLAB_BYTES // max(1, min(array.nbytes for array in self.like.values())))
        for start in range(0, batches, together):
            count = min(together, batches - start)
            slabs = {name: np.empty((count, *array.shape), array.dtype) for name, array in self.like.items()}
            for i in range(count):
                yield {name: session.to_device(slab[i], self.provider) for name, slab in slabs.items()}


@dataclass(frozen=True)
class _Rest:
    """The nodes from `start` to the end, ready to run; None where nothing is left."""

    start: int
    run: Session | None


def _one_ahead(passes: Iterator[Collect]) -> Iterator[Tally]:
    """Tallies in order, the next pass started before one is waited for, so that no core idles in between."""
    last: Collect | None = None
    for each in passes:
        if last is not None:
            yield last()
        last = each
    if last is not None:
        yield last()


@dataclass(frozen=True)
class Probe:
    """What one pass shows: bytes an image takes at the largest cut and as the model's input, and the number of logits."""

    cut_bytes: int
    input_bytes: int
    classes: int


def probe(network: Network, provider: Provider, batch: Array) -> Probe:
    """Run one mini-batch of the model's inputs with every cut's values as outputs. Raises ModelError if it does not run."""
    cutter = Cutter(network)
    starts = sorted({layer.start for layer in network.layers})
    image = {network.image.name: session.to_device(batch, provider)}
    names = dict.fromkeys(
        [network.logits, *(name for start in starts for name in cutter.live(start) if name not in image)]
    )
    whole = cutter.segment(0, cutter.end, session.types(image), outputs=tuple(names))
    values = Session(whole.stub, whole.references, provider).run(image)
    sizes = {name: value.tensor_size_in_bytes() for name, value in {**image, **values}.items()}
    largest = max(sum(sizes[name] for name in cutter.live(start)) for start in starts)
    logits = session.to_host(values[network.logits])
    return Probe(max(1, largest // len(batch)), batch[0].nbytes, logits.size // len(batch))
