"""Sweeps, which run one chunk of images through all layers and variants; values that variants share are computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, repeat
from math import inf
from typing import Any, Self
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from onnxnoise.engine.device_noise import Device
from onnxnoise.engine.draws import KEPT_BYTES, KEPT_ON_DEVICE, Draws
from onnxnoise.engine.hits import judge
from onnxnoise.engine.layer_noise import Host
from onnxnoise.engine.pieces import Noisy, Pieces
from onnxnoise.engine.recalibration import Recalibration
from onnxnoise.engine.values import Cut, Piece, Values, lanes, only, room
from onnxnoise.model.network import Network
from onnxnoise.records import Labels, NoiseLayer, NoiseSetting, Tally, Variant
from onnxnoise.runtime import session
from onnxnoise.runtime.base import Provider
from onnxnoise.runtime.session import Runs, Value

Array = npt.NDArray[Any]
Todo = Mapping[int, Sequence[Variant]]
"""The variants to measure, by layer index."""

_GRACE = 5.0
"""Seconds for the nodes that ONNX Runtime is in when a sweep is broken off."""


@dataclass(frozen=True)
class _Output:
    """The output of a mini-batch: logits (images, classes), and the values behind the first piece where they are kept."""

    logits: npt.NDArray[np.float32]
    values: Values


@dataclass(frozen=True)
class _Started:
    """A pass of the chunk that is under way: `collect` waits for its tally, `last` ends a list of tallies kept together.

    `behind` has the values behind its first piece, where they are kept.
    """

    collect: Callable[[], Tally]
    last: bool
    behind: Cut


@dataclass
class _Prefix:
    """One variant's noisy prefix: the values at `position`, which it has reached, and negative variances by layer index."""

    cut: Cut
    position: int = 0
    negative: dict[int, int] = field(default_factory=dict)


class ChunkSweep:
    """All measurements on one chunk: `batches` are the model's inputs, mini-batches of one size, the last one padded.

    `labels` (images,) are the classes of the images without the padding, `start` the first one's position in the data.
    `step` is called with each tally. Use it in a `with` block, which ends all passes under way. `lifted` makes the noisy
    constants inputs of sessions that all variants share (default: on a device); `pieces` are those that other chunks use too.
    With `recalibration` a noisy pass goes through the whole graph, the batch norms' statistics recomputed for its chip.
    """

    def __init__(
        self,
        network: Network,
        noise: NoiseSetting,
        provider: Provider,
        batches: Sequence[Array],
        labels: Labels,
        start: int,
        *,
        threads: int | None = None,
        step: Callable[[Tally], None] = lambda _: None,
        lifted: bool | None = None,
        pieces: Pieces | None = None,
        recalibration: Recalibration | None = None,
    ) -> None:
        self.network, self.provider, self.labels, self.start, self.step = network, provider, labels, start, step
        self.pieces = pieces or Pieces(network, provider, lifted=lifted)
        self.recalibration = recalibration
        self.draws = (
            Draws(network, noise, Device(provider), KEPT_ON_DEVICE)
            if self.pieces.lifted
            else Draws(network, noise, Host(), KEPT_BYTES)
        )
        self.cutter = self.pieces.cutter
        self.images: Cut = [_held({network.image.name: session.to_device(batch, provider)}) for batch in batches]
        self.lanes = lanes(provider.lanes(threads))
        self._under_way: WeakSet[Future[Any]] = WeakSet()
        self._runs = Runs()
        self._types = self.pieces.types_of(self.images[0]())
        self._rest = _Rest(-1, [])
        self._outputs: Sequence[Future[_Output]] = ()
        self._labelled: _Started | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for future in self._under_way:
            future.cancel()
        running = [future for future in self._under_way if not future.done()]
        if running:
            self._runs.stop()
        wait(running, _GRACE)

    def take_clean_labels(self) -> Labels:
        """Make the clean model's own top-1 the labels (images,) of all passes after; ties go to the lowest class."""
        self._labelled = self._clean()
        logits = np.concatenate([output.result().logits for output in self._outputs])[: len(self.labels)]
        self.labels = logits.argmax(axis=1)
        return self.labels

    def clean(self) -> Tally:
        """Run the chunk without noise; the first time after `take_clean_labels` its pass is judged instead."""
        started, self._labelled = self._labelled or self._clean(), None
        return started.collect()

    def single(self, todo: Todo) -> Iterator[list[Tally]]:
        """Measure noise in one layer at a time; yields the tallies of the variants of each layer index of `todo`."""
        return self._told(self._single(todo))

    def cumulative(
        self, todo: Todo, layers: Sequence[NoiseLayer], *, together: int | None = None
    ) -> Iterator[list[Tally]]:
        """Measure noise in all of `layers` up to one; yields the tallies of the variants of each layer index of `todo`.

        `together` variants at a time (default: all) go through the layers, each with noisy values of its own at one cut.
        """
        variants = list(dict.fromkeys(variant for each in todo.values() for variant in each))
        size = together or max(1, len(variants))
        for i in range(0, len(variants), size):
            group = set(variants[i : i + size])
            some = {index: [variant for variant in each if variant in group] for index, each in todo.items()}
            yield from self._told(self._cumulative(some, layers))

    def all(self, variants: Sequence[Variant], layers: Sequence[NoiseLayer]) -> Iterator[list[Tally]]:
        """Measure noise in all `layers` at once; yields a list of one tally for each variant."""
        return self._told(self._all(variants, layers))

    def _clean(self) -> _Started:
        """Start the pass without noise."""
        whole = self._piece(0, self.cutter.end, prepacked=True)
        return self._started("clean", None, Variant(float("inf"), 0), 0, self.images, [whole])

    def _recalibrated(
        self,
        recalibration: Recalibration,
        sweep: str,
        layer: int | None,
        layers: Sequence[NoiseLayer],
        todo: Sequence[Variant],
    ) -> Iterator[_Started]:
        """Start the passes of chips with noise in all of `layers`, each with its own batch norms."""
        variants = _by_draw(todo)
        for variant in variants:
            noisy, negative = self._noise(layers, variant)
            key = sweep, layer, variant
            noisy = {**noisy, **recalibration.statistics(key, noisy, self.lanes)}
            whole = self._piece(0, self.cutter.end, noisy)
            last = sweep == "all" or variant is variants[-1]
            yield self._started(sweep, layer, variant, sum(negative.values()), self.images, [whole], last=last)

    def _single(self, todo: Todo) -> Iterator[_Started]:
        if self.recalibration is not None:
            for layer in self.network.layers:
                yield from self._recalibrated(
                    self.recalibration, "single", layer.index, [layer], todo.get(layer.index, ())
                )
            return
        cut, position = self.images, 0
        for layer in self.network.layers:
            variants = _by_draw(todo.get(layer.index, ()))
            if not variants:
                continue
            cut, position = self._onward(cut, position, layer.start), layer.start
            join = self.cutter.join(layer)
            self._make_rest(join, cut, position)
            for variant in variants:
                noisy, negative = self._noise([layer], variant)
                piece = self._piece(position, join, noisy)
                yield self._started(
                    "single",
                    layer.index,
                    variant,
                    sum(negative.values()),
                    cut,
                    [piece, *self._rest.pieces],
                    last=variant is variants[-1],
                )

    def _cumulative(self, todo: Todo, layers: Sequence[NoiseLayer]) -> Iterator[_Started]:
        """Start the passes of each variant from its noisy values, which wait where a convolution or dense layer starts.

        The piece from there to the next such start has the noise of all layers up to the one measured. When that is the last
        layer inside the piece, the outputs of the piece are the noisy values that wait next.
        """
        if self.recalibration is not None:
            for at, layer in enumerate(layers):
                upto = layers[: at + 1]
                yield from self._recalibrated(
                    self.recalibration, "cumulative", layer.index, upto, todo.get(layer.index, ())
                )
            return
        prefixes = {variant: _Prefix(self.images) for variants in todo.values() for variant in variants}
        wanted = [layer.index for layer in layers if todo.get(layer.index)]
        for at, layer in enumerate(layers):
            variants = _by_draw(todo.get(layer.index, ()))
            if not variants:
                continue
            wait_at, join = self.cutter.stage(layer.start), self.cutter.join(layer)
            noisy_layers = layers[: at + 1]
            moves = layer.index != wanted[-1] and layers[at + 1].start >= join
            for variant in variants:
                prefix = prefixes[variant]
                if prefix.position < wait_at:
                    noisy = self._counted_noise(prefix, noisy_layers, variant, wait_at)
                    prefix.cut = self._onward(prefix.cut, prefix.position, wait_at, noisy)
                    prefix.position = wait_at
                self._make_rest(join, prefix.cut, prefix.position)
                piece = self._piece(prefix.position, join, self._counted_noise(prefix, noisy_layers, variant, join))
                started = self._started(
                    "cumulative",
                    layer.index,
                    variant,
                    sum(prefix.negative.values()),
                    prefix.cut,
                    [piece, *self._rest.pieces],
                    last=variant is variants[-1],
                    keep=join if moves else None,
                )
                if moves:
                    prefix.cut, prefix.position = started.behind, join
                yield started

    def _all(self, variants: Sequence[Variant], layers: Sequence[NoiseLayer]) -> Iterator[_Started]:
        if self.recalibration is not None:
            yield from self._recalibrated(self.recalibration, "all", None, layers, variants)
            return
        for variant in _by_draw(variants):
            noisy, negative = self._noise(layers, variant)
            whole = self._piece(0, self.cutter.end, noisy)
            started = self._started("all", None, variant, sum(negative.values()), self.images, [whole])
            del whole, noisy  # before the next are made
            yield started

    def _noise(self, layers: Sequence[NoiseLayer], variant: Variant) -> tuple[Noisy, dict[int, int]]:
        """(noisy constants by name, how many variances the noise made negative by layer index)."""
        noisy: dict[str, Array | Value] = {}
        negative: dict[int, int] = {}
        for layer in layers:
            values, negative[layer.index] = self.draws.of(layer, variant.draw).at(variant.level)
            noisy |= values
        return noisy, negative

    def _counted_noise(self, prefix: _Prefix, layers: Sequence[NoiseLayer], variant: Variant, stop: int) -> Noisy:
        """The noise that a variant meets between its noisy values and `stop`."""
        noisy, negative = self._noise(self.cutter.inside(layers, prefix.position, stop), variant)
        prefix.negative |= negative
        return noisy

    def _piece(self, start: int, stop: int, noisy: Noisy | None = None, *, prepacked: bool = False) -> Piece:
        """The piece of nodes [start, stop), with some constants noisy, ready to run."""
        types = self._types[start]
        if noisy:
            return self.pieces.noisy(start, stop, types, noisy)
        return self.pieces.clean(start, stop, types, prepacked=prepacked)

    def _told(self, passes: Iterator[_Started]) -> Iterator[list[Tally]]:
        """Tallies in order, those that belong together in one list. Only one pass of a large network is in memory at a time."""
        together: list[Tally] = []
        for each in passes if self.pieces.large else _one_ahead(passes):
            together.append(each.collect())
            if each.last:
                yield together
                together = []

    def _submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future = self.lanes.submit(work, *arguments)
        self._under_way.add(future)
        return future

    def _make_rest(self, start: int, cut: Cut, position: int) -> None:
        """Make the clean rest of the graph, from `start` on, which the variants of all layers that join there share.

        `cut` has values at an earlier `position`, from which those at `start` are made once to know their types.
        """
        if self._rest.start == start:
            return
        self._rest = _Rest(start, [])
        if start < self.cutter.end:
            if start not in self._types:
                self._learn(start, self._piece(position, start), cut)
            if self.pieces.large:
                wait(self._outputs)  # the old session gives its memory back before the new one takes its own
            self._rest = _Rest(start, [self._piece(start, self.cutter.end, prepacked=True)])

    def _learn(self, position: int, piece: Piece, cut: Cut) -> None:
        """Remember the types of the values at `position`, which `piece` makes from `cut`."""
        if position not in self._types:
            values = cut[0]()
            made = piece.session.run_within(inf, {**values, **piece.noise})
            self._types[position] = session.types(only({**values, **made}, self.cutter.live(position)))

    def _onward(self, cut: Cut, start: int, stop: int, noisy: Noisy | None = None) -> Cut:
        """The values at the later cut `stop`, made from those at `start`; a mini-batch's old values go as its new ones come."""
        if start == stop:
            return cut
        piece, names = self._piece(start, stop, noisy), self.cutter.live(stop)
        self._learn(stop, piece, cut)

        def onward(values: Callable[[], Values], into: Values | None) -> Values:
            return only(piece.run(values(), into, self._runs), names)

        return [
            self._submit(onward, values, into).result
            for values, into in zip(cut, self._room(piece, stop, len(cut)), strict=True)
        ]

    def _room(self, piece: Piece, stop: int, batches: int) -> Iterator[Values | None]:
        return room({name: self._types[stop][name] for name in piece.session.outputs}, batches, self.provider)

    def _started(
        self,
        sweep: str,
        layer: int | None,
        variant: Variant,
        negative: int,
        cut: Cut,
        pieces: Sequence[Piece],
        *,
        last: bool = True,
        keep: int | None = None,
    ) -> _Started:
        """Start a pass of the chunk through pieces that follow each other; `keep`: the cut behind the first whose values stay."""
        names = () if keep is None else self.cutter.live(keep)

        def output(values: Callable[[], Values], into: Values | None) -> _Output:
            now = pieces[0].run(values(), into, self._runs)
            kept = only(now, names)
            for piece in pieces[1:]:
                now = piece.run(now, runs=self._runs)
            logits = session.to_host(now[self.network.logits])
            return _Output(logits.reshape(logits.shape[0], -1), kept)

        intos = repeat(None) if keep is None else self._room(pieces[0], keep, len(cut))
        outputs = self._outputs = [self._submit(output, values, into) for values, into in zip(cut, intos, strict=False)]

        def collect() -> Tally:
            logits = np.concatenate([output.result().logits for output in outputs])[: len(self.labels)]
            top1, top5, nonfinite = (np.packbits(bits).tobytes() for bits in judge(logits, self.labels))
            images = len(self.labels)
            tally = Tally(
                sweep, layer, variant.level, variant.draw, self.start, images, top1, top5, nonfinite, negative
            )
            self.step(tally)
            return tally

        return _Started(collect, last, [partial(_kept, output) for output in outputs])


@dataclass(frozen=True)
class _Rest:
    """The clean nodes from `start` to the end, ready to run; no piece where none are left."""

    start: int
    pieces: list[Piece]


def _held(values: Values) -> Callable[[], Values]:
    return lambda: values


def _kept(output: Future[_Output]) -> Values:
    return output.result().values


def _by_draw(variants: Sequence[Variant]) -> list[Variant]:
    """The variants sorted by draw, since those of one draw share its normals."""
    return sorted(variants, key=lambda variant: variant.draw)


def _one_ahead(passes: Iterator[_Started]) -> Iterator[_Started]:
    """Yield each pass after the next one has started, so that no core idles in between."""
    before: _Started | None = None
    for each in chain(passes, [None]):
        if before is not None:
            yield before
        before = each
