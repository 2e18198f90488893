"""From the run file's tallies to counts, estimates and the result that is printed and written (DESIGN 3.5, 3.6)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby, product
from typing import Any

import numpy as np

from onnxnoise.estimates import count, estimate
from onnxnoise.records import (
    Average,
    Bits,
    Cell,
    CleanHits,
    DrawHits,
    Estimate,
    InitializerInfo,
    LayerInfo,
    Metric,
    Notice,
    Result,
    Sweep,
    Tally,
)
from onnxnoise.store import RunStore

SCHEMA = "onnxnoise/result/1"
FEW_DRAWS = 10
_METRICS: tuple[Metric, Metric] = ("top1", "top5")


@dataclass(frozen=True)
class Question:
    """Which part of a run file is asked for; `layers` are the indices of the `single` sweep."""

    snrs: tuple[float, ...]
    sweeps: tuple[Sweep, ...]
    draws: int
    images: int
    layers: tuple[int, ...]
    metric: Metric

    @property
    def planned(self) -> int:
        """Passes over all images: one for each draw of each cell."""
        cells = sum(1 if sweep == "all" else len(self.layers) for sweep in self.sweeps)
        return len(self.snrs) * self.draws * cells


@dataclass(frozen=True)
class _Hits:
    """Hit bits over the images asked for, in order: top1 and nonfinite (images,), top5 the same or (0,)."""

    top1: Bits
    top5: Bits
    nonfinite: Bits
    negative_variances: int


_Draws = dict[int, _Hits]


def summarize(store: RunStore, question: Question) -> Result | None:
    """The result of what is complete in `store`; None before the clean pass is. Cells that lack draws or images are left out.

    Raises RunFileError if the file can't be read, ValueError without a clean hit.
    """
    identity, description = store.identity, store.description
    chunks = [chunk for chunk in store.chunks() if chunk.start < question.images]
    cleaned = _by_draw(store.tallies("clean"), chunks, question.images)
    if 0 not in cleaned:
        return None
    clean = cleaned[0]
    summary = _Summary(clean)
    for sweep, snr in product(question.sweeps, question.snrs):
        wanted = [None] if sweep == "all" else question.layers
        complete = (
            (layer, draws)
            for layer, draws in _by_layer(store, sweep, snr, chunks, question)
            if layer in wanted and len(draws) == question.draws
        )
        summary.add(sweep, snr, complete, len(wanted))
    cells = sorted(summary.cells, key=lambda c: (question.sweeps.index(c.sweep), c.layer or 0))
    return Result(
        model={"name": description["model"], "sha256": identity["model"]},
        provider=identity["provider"],
        dataset={"name": description["dataset"], "images": question.images, "sha256": identity["data"]},
        seed=identity["seed"],
        bn=identity["bn"],
        sigma_scope=identity["sigma_scope"],
        metric=question.metric,
        clean=CleanHits(clean.top1.size, _hits(clean.top1), _or_none(clean.top5), _hits(clean.nonfinite)),
        layers=tuple(layer_info(each) for each in description["layers"]),
        cells=tuple(cells),
        a_avr=tuple(summary.averages),
        warnings=(*(Notice(**each) for each in description["notices"]), *_warnings(identity["bn"], cells, question)),
        run=description["run"],
        measured=sum(len(cell.draws) for cell in cells),
        planned=question.planned,
    )


def layer_info(fields: dict[str, Any]) -> LayerInfo:
    """A layer as the run file keeps it."""
    initializers = tuple(
        InitializerInfo(each["name"], tuple(each["shape"]), each["sigma_w"]) for each in fields["initializers"]
    )
    return LayerInfo(**{**fields, "initializers": initializers})


def _by_layer(
    store: RunStore, sweep: Sweep, snr: float, chunks: Sequence[range], question: Question
) -> Iterator[tuple[int | None, _Draws]]:
    for layer, tallies in groupby(store.tallies(sweep, snr), key=lambda tally: tally.layer):
        asked = (tally for tally in tallies if tally.draw < question.draws)
        yield layer, _by_draw(asked, chunks, question.images)


def _by_draw(tallies: Iterator[Tally], chunks: Sequence[range], images: int) -> _Draws:
    """The draws that have every chunk; `tallies` come sorted by draw and start."""
    complete = {}
    for draw, group in groupby(tallies, key=lambda tally: tally.draw):
        parts = [tally for tally in group if tally.start < images]
        if [range(t.start, t.start + t.images) for t in parts] == list(chunks):
            top1, top5, nonfinite = (_joined(parts, name, images) for name in ("top1", "top5", "nonfinite"))
            complete[draw] = _Hits(top1, top5, nonfinite, parts[0].negative_variances)
    return complete


def _joined(tallies: Sequence[Tally], name: str, images: int) -> Bits:
    parts = []
    for tally in tallies:
        packed = np.frombuffer(getattr(tally, name), np.uint8)
        parts.append(np.unpackbits(packed, count=tally.images if packed.size else 0).view(np.bool_))
    return np.concatenate(parts)[:images]


def _hits(bits: Bits) -> int:
    return int(np.count_nonzero(bits))


def _or_none(bits: Bits) -> int | None:
    return _hits(bits) if bits.size else None


def _stacked(draws: _Draws, metric: Metric) -> Bits:
    return np.stack([getattr(draws[draw], metric) for draw in sorted(draws)])


@dataclass
class _Summary:
    """Cells and averages while the run file is read."""

    clean: _Hits
    cells: list[Cell] = field(default_factory=list)
    averages: list[Average] = field(default_factory=list)

    def add(self, sweep: Sweep, snr: float, complete: Iterator[tuple[int | None, _Draws]], wanted: int) -> None:
        layers = []
        for layer, draws in complete:
            self.cells.append(self._cell(sweep, layer, snr, draws))
            layers.append({metric: np.packbits(_stacked(draws, metric), axis=1) for metric in _METRICS})
        if sweep == "single" and layers and len(layers) == wanted:
            top1 = self._estimate((self._bits(each["top1"]) for each in layers), "top1")
            top5 = self._estimate((self._bits(each["top5"]) for each in layers), "top5")
            if top1 is not None:
                self.averages.append(Average(sweep, snr, wanted, top1, top5))

    def _bits(self, packed: np.ndarray[Any, np.dtype[np.uint8]]) -> Bits:
        return np.unpackbits(packed, axis=1, count=self.clean.top1.size).view(np.bool_)

    def _estimate(self, layers: Iterator[Bits], metric: Metric) -> Estimate | None:
        reference: Bits = getattr(self.clean, metric)
        if not reference.size:
            return None
        sums = count(layers, reference)
        return estimate(sums) if sums.clean else None

    def _cell(self, sweep: Sweep, layer: int | None, snr: float, draws: _Draws) -> Cell:
        top1 = self._estimate(iter([_stacked(draws, "top1")]), "top1")
        if top1 is None:
            raise ValueError("no clean hit: the normalized accuracy is not defined")
        hits = tuple(
            DrawHits(
                draw=draw,
                images=each.top1.size,
                clean_top1_hits=_hits(self.clean.top1),
                clean_top5_hits=_or_none(self.clean.top5),
                top1_hits=_hits(each.top1),
                top5_hits=_or_none(each.top5),
                nonfinite=_hits(each.nonfinite),
                negative_variances=each.negative_variances,
            )
            for draw, each in sorted(draws.items())
        )
        return Cell(sweep, layer, snr, hits, top1, self._estimate(iter([_stacked(draws, "top5")]), "top5"))


def _warnings(bn: str, cells: Sequence[Cell], question: Question) -> Iterator[Notice]:
    if question.draws == 1:
        yield Notice(
            "one_draw", "one draw: no intervals, since nothing shows how much chips differ; use --draws 10 or more"
        )
    elif question.draws < FEW_DRAWS:
        yield Notice(
            "few_draws", f"few draws ({question.draws}): the intervals are rough; use --draws {FEW_DRAWS} or more"
        )
    negative = [(c.layer, d.draw, d.negative_variances) for c in cells if c.sweep == "single" for d in c.draws]
    layers = {layer for layer, _, channels in negative if channels}
    if layers:
        draws = {(layer, draw) for layer, draw, channels in negative if channels}
        channels = max(channels for _, _, channels in negative)
        done = "kept, so its outputs are NaN and every image a miss" if bn == "raw" else "stored as 0"
        yield Notice(
            "negative_variances",
            f"noise made a batch-norm variance negative in {len(layers)} layers ({len(draws)} layer-draw pairs, up to "
            f"{channels} channels at once); such a variance is {done} (--bn {bn}). --bn affine perturbs scale and shift instead",
        )
    nonfinite = sum(draw.nonfinite for cell in cells for draw in cell.draws)
    if nonfinite:
        yield Notice("nonfinite", f"{nonfinite:,} noisy outputs were not finite; each counts as a miss")


def to_json(result: Result) -> str:
    """The result as one JSON document, schema `onnxnoise/result/1`; an infinite SNR is written 1e999, which reads back so."""
    text = json.dumps({"schema": SCHEMA, **asdict(result)}, indent=1, ensure_ascii=False)
    return text.replace(": Infinity", ": 1e999") + "\n"
