"""From the run file's tallies to counts, estimates and the result that is printed and written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

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
    Policy,
    Result,
    SigmaScope,
    Sweep,
    Tally,
)
from onnxnoise.results import caveats
from onnxnoise.results.store import RunStore
from onnxnoise.results.tallies import Hits, Meeting, by_chunk, by_draw, draw_hits, meetings, number, number_or_none
from onnxnoise.spec import METRICS
from onnxnoise.statistics.clustered import Chunks, estimate_chunks, estimate_chunks_accuracy, estimate_layers
from onnxnoise.statistics.estimates import LayerSum, count, estimate, estimate_accuracy
from onnxnoise.statistics.stopping import Looks, half_width

SCHEMA = "onnxnoise/result/1"
LAYERS_SCHEMA = "onnxnoise/layers/1"
FEW_DRAWS = caveats.FEW_DRAWS


@dataclass(frozen=True)
class Question:
    """Which part of a run file is asked for; `layers` are the indices of the `single` and `cumulative` sweeps.

    `target` is the share of the clean accuracy that a draw must keep to count in a yield. In a nested run `draws` is the most
    that a cell may have, and `precision` the half-width of `sampled` at which it stops; None: at the most.
    """

    snrs: tuple[float, ...]
    sweeps: tuple[Sweep, ...]
    draws: int
    images: int
    layers: tuple[int, ...]
    metric: Metric
    target: float = 0.95
    precision: float | None = None

    @property
    def looks(self) -> Looks:
        """When a cell of a nested run has draws enough."""
        return Looks(self.precision or 0.0, self.draws)

    @property
    def planned(self) -> int:
        """Passes over all images: one for each draw of each cell."""
        cells = sum(1 if sweep == "all" else len(self.layers) for sweep in self.sweeps)
        return len(self.snrs) * self.draws * cells


CellKey = tuple[Sweep, int | None, float]
"""(sweep, layer, snr)."""


@dataclass(frozen=True)
class _Part:
    """What a run file holds of a question; `planned` counts passes."""

    clean: CleanHits
    cells: list[Cell]
    averages: list[Average]
    planned: int


def summarize(store: RunStore, question: Question) -> Result | None:
    """The result of what is complete in `store`; None before the clean pass is. Cells that lack draws or images are left out.

    In a nested run, where each chunk of images meets draws of its own, it is the result of what is there. One cell's hits are
    held at a time, and their sum over layers. Raises RunFileError if the file can't be read.
    """
    identity, description = store.identity, store.description
    nested = is_nested(identity)
    part = _nested(store, question) if nested else _crossed(store, question)
    if part is None:
        return None
    cells = sorted(part.cells, key=lambda cell: (question.sweeps.index(cell.sweep), cell.layer or 0))
    precision = question.precision if nested else None
    return Result(
        model={"name": description["model"], "sha256": identity["model"]},
        provider=identity["provider"],
        dataset={"name": description["dataset"], "images": question.images, "sha256": identity["data"]},
        seed=identity["seed"],
        bn=identity["bn"],
        sigma_scope=identity["sigma_scope"],
        metric=question.metric,
        clean=part.clean,
        layers=tuple(layer_info(each) for each in description["layers"]),
        selected=question.layers,
        cells=tuple(cells),
        a_avr=tuple(part.averages),
        warnings=(
            *(Notice(**each) for each in description["notices"]),
            *caveats.notices(
                identity["bn"], part.clean, cells, draws=question.draws, precision=precision, nested=nested
            ),
        ),
        runs=tuple(store.runs()),
        measured=sum(len(cell.draws) for cell in cells),
        planned=part.planned,
        design="nested" if nested else "crossed",
        target=question.target,
        precision=precision,
    )


def is_nested(identity: Mapping[str, Any]) -> bool:
    """Of a run file: whether each chunk of images meets draws of its own."""
    return bool(identity.get("design", "crossed") == "nested")


def _layers(question: Question, sweep: Sweep) -> tuple[int | None, ...]:
    return (None,) if sweep == "all" else question.layers


def _crossed(store: RunStore, question: Question) -> _Part | None:
    """Every draw meets every image."""
    chunks = [chunk for chunk in store.chunks() if chunk.start < question.images]
    clean = by_draw(store.tallies("clean"), chunks, question.images).get(0)
    if clean is None:
        return None
    cells: list[Cell] = []
    averages: list[Average] = []
    for sweep, snr in product(question.sweeps, question.snrs):
        layers = _layers(question, sweep)
        totals = [LayerSum(getattr(clean, metric)) for metric in METRICS]
        for layer in layers:
            complete = by_draw(store.tallies(sweep, layer, snr), chunks, question.images)
            draws = {draw: hits for draw, hits in complete.items() if draw < question.draws}
            if len(draws) == question.draws:
                stacks = [np.array([getattr(hits, metric) for hits in draws.values()]) for metric in METRICS]
                hits = tuple(draw_hits(draw, each, clean) for draw, each in draws.items())
                cells.append(_crossed_cell((sweep, layer, snr), hits, clean, stacks, question.target))
                if sweep == "single":
                    for total, stack in zip(totals, stacks, strict=True):
                        total.add(stack)
        if sweep == "single" and layers and totals[0].layers == len(layers):
            top1, top5 = (estimate(total.sums(), question.target) if total.clean.any() else None for total in totals)
            if top1 is not None:
                averages.append(Average(sweep, snr, len(layers), top1, top5))
    counts = CleanHits(clean.top1.size, number(clean.top1), number_or_none(clean.top5), number(clean.nonfinite))
    return _Part(counts, cells, averages, question.planned)


def _crossed_cell(key: CellKey, hits: tuple[DrawHits, ...], clean: Hits, stacks: Sequence[Bits], target: float) -> Cell:
    sums = [
        count([stack], getattr(clean, metric)) if stack.size else None
        for stack, metric in zip(stacks, METRICS, strict=True)
    ]
    top1, top5 = (estimate(each, target) if each and each.clean else None for each in sums)
    all1, all5 = (estimate_accuracy(each, target) if each else None for each in sums)
    return Cell(*key, hits, top1, top5, all1, all5)


def _nested(store: RunStore, question: Question) -> _Part | None:
    """Each chunk of images meets draws of its own; cells differ in how many chunks they have."""
    clean = _clean_chunks(store, question)
    if not clean:
        return None
    looks = question.looks
    cells: list[Cell] = []
    averages: list[Average] = []
    planned = 0
    for sweep, snr in product(question.sweeps, question.snrs):
        single: list[list[Meeting]] = []
        for layer in _layers(question, sweep):
            met = _met(store, (sweep, layer, snr), clean, question)
            planned += max(_wanted(met, looks, question.metric) or 0, len(met))
            if met:
                cells.append(_nested_cell((sweep, layer, snr), met, question))
                if sweep == "single":
                    single.append(met)
        if single and len(single) == len(question.layers):
            top1, top5 = (_average(single, metric) for metric in METRICS)
            if top1 is not None:
                averages.append(Average(sweep, snr, len(single), top1, top5))
    return _Part(_clean_counts(clean, question.images), cells, averages, planned)


def next_draws(store: RunStore, question: Question) -> dict[CellKey, int]:
    """Of a nested run: how many draws each cell must have before it is looked at again; cells that have enough are absent.

    It depends on the tallies alone, so any process that goes on with the run file decides the same.
    """
    clean = _clean_chunks(store, question)
    wanted: dict[CellKey, int] = {}
    for sweep, snr in product(question.sweeps, question.snrs):
        for layer in _layers(question, sweep):
            draws = _wanted(_met(store, (sweep, layer, snr), clean, question), question.looks, question.metric)
            if draws is not None:
                wanted[sweep, layer, snr] = draws
    return wanted


def _clean_chunks(store: RunStore, question: Question) -> dict[int, Tally]:
    return {tally.start: tally for tally in store.tallies("clean") if tally.start < question.images}


def _clean_counts(clean: Mapping[int, Tally], images: int) -> CleanHits:
    own = [meeting.hits for meeting in meetings(clean.values(), clean, images)]
    top5 = [hits.top5_hits for hits in own if hits.top5_hits is not None]
    return CleanHits(
        sum(hits.images for hits in own),
        sum(hits.top1_hits for hits in own),
        sum(top5) if top5 else None,
        sum(hits.nonfinite for hits in own),
    )


def _met(store: RunStore, key: CellKey, clean: Mapping[int, Tally], question: Question) -> list[Meeting]:
    tallies = (tally for tally in store.tallies(*key) if tally.draw < question.draws)
    return meetings(tallies, clean, question.images)


def _wanted(met: Sequence[Meeting], looks: Looks, metric: Metric) -> int | None:
    """As `Looks.next`, for a cell of which `met` are the draws that are there; a gap in their numbers ends them."""
    drawn = {meeting.hits.draw for meeting in met}
    together = next(draw for draw in range(len(drawn) + 1) if draw not in drawn)
    return looks.next(
        together, lambda draws: _half_width([meeting for meeting in met if meeting.hits.draw < draws], metric)
    )


def _half_width(met: Sequence[Meeting], metric: Metric) -> float:
    found = _normalized(by_chunk(met, metric))
    return half_width(found) if found else math.inf


def _normalized(chunks: Chunks) -> Estimate | None:
    return estimate_chunks(chunks) if any(chunk.clean for chunk in chunks.values()) else None


def _nested_cell(key: CellKey, met: Sequence[Meeting], question: Question) -> Cell:
    chunks = [by_chunk(met, metric) if metric == "top1" or met[0].top5 else None for metric in METRICS]
    top1, top5 = (_normalized(each) if each else None for each in chunks)
    all1, all5 = (estimate_chunks_accuracy(each) if each else None for each in chunks)
    shown = top5 if question.metric == "top5" and all5 else top1
    precise = None
    if question.precision is not None:
        precise = shown is not None and half_width(shown) <= question.precision
    return Cell(*key, tuple(meeting.hits for meeting in met), top1, top5, all1, all5, precise)


def _average(single: Sequence[Sequence[Meeting]], metric: Metric) -> Estimate | None:
    """None without a top-5, or where a layer's chunks have no clean hit."""
    if metric == "top5" and any(meeting.top5 is None for met in single for meeting in met[:1]):
        return None
    layers = [by_chunk(met, metric) for met in single]
    if not all(any(chunk.clean for chunk in chunks.values()) for chunks in layers):
        return None
    return estimate_layers(layers)


def layer_info(fields: dict[str, Any]) -> LayerInfo:
    """A layer as the run file keeps it."""
    initializers = tuple(
        InitializerInfo(each["name"], tuple(each["shape"]), each["sigma_w"]) for each in fields["initializers"]
    )
    return LayerInfo(**{**fields, "initializers": initializers})


def to_json(result: Result) -> str:
    """The result as one JSON document, schema `onnxnoise/result/1`."""
    return strict_json({"schema": SCHEMA, **asdict(result)})


def layers_json(
    model: Mapping[str, str],
    bn: Policy,
    sigma_scope: SigmaScope,
    layers: Sequence[LayerInfo],
    notices: Sequence[Notice],
) -> str:
    """A model's noise layers as one JSON document, in the result's form."""
    return strict_json(
        {
            "schema": LAYERS_SCHEMA,
            "model": dict(model),
            "bn": bn,
            "sigma_scope": sigma_scope,
            "layers": [asdict(layer) for layer in layers],
            "warnings": [asdict(notice) for notice in notices],
        }
    )


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|Infinity')


def strict_json(content: dict[str, Any]) -> str:
    """Strict JSON in ASCII; an infinite SNR is written 1e999, which every reader takes for infinite or its largest number."""
    text = json.dumps(content, indent=1)
    return _TOKEN.sub(lambda token: "1e999" if token[0] == "Infinity" else token[0], text) + "\n"
