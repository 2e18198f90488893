"""The answer of a chunked run, in which each chunk of images meets draws of its own, and the draws that each cell needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product

from onnxnoise.records import Average, Cell, CleanHits, Estimate, Tally
from onnxnoise.results.question import Answer, CellKey, Question
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.results.tallies import Meeting, by_chunk, meetings
from onnxnoise.statistics.clustered import Chunks, estimate_chunks, estimate_chunks_accuracy, estimate_layers
from onnxnoise.statistics.stopping import half_width
from onnxnoise.words import METRICS, Metric


def answer_chunked(store: RunStore, question: Question) -> Answer | None:
    """The answer from all tallies that are there; cells differ in their draws and chunks. None before a chunk's clean pass."""
    clean = _clean_chunks(store, question)
    if not clean:
        return None
    cells: list[Cell] = []
    averages: list[Average] = []
    planned = 0
    for sweep, level in product(question.sweeps, question.levels):
        single: list[list[Meeting]] = []
        for layer in question.layers_of(sweep):
            met = _met(store, (sweep, layer, level), clean, question)
            planned += max(_wanted(met, question) or 0, len(met))
            if met:
                cells.append(_cell((sweep, layer, level), met, question))
                if sweep == "single":
                    single.append(met)
        if single and len(single) == len(question.layers):
            top1, top5 = (_average(single, metric) for metric in METRICS)
            if top1 is not None:
                averages.append(Average(sweep, level, len(single), top1, top5))
    return Answer(_clean_counts(clean, question.images), cells, averages, planned)


def next_draws(store: RunStore, question: Question) -> dict[CellKey, int]:
    """The number of draws that each cell must have before it is looked at again; cells that have enough are absent.

    The numbers depend on the tallies alone, so any process that goes on with the run file decides the same.
    """
    clean = _clean_chunks(store, question)
    wanted: dict[CellKey, int] = {}
    for sweep, level in product(question.sweeps, question.levels):
        for layer in question.layers_of(sweep):
            draws = _wanted(_met(store, (sweep, layer, level), clean, question), question)
            if draws is not None:
                wanted[sweep, layer, level] = draws
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


def _wanted(met: Sequence[Meeting], question: Question) -> int | None:
    """The answer of `StoppingRule.next` for a cell whose draws so far are `met`; draws after a missing number don't count."""
    drawn = {meeting.hits.draw for meeting in met}
    together = next(draw for draw in range(len(drawn) + 1) if draw not in drawn)
    return question.stopping.next(
        together, lambda draws: _half_width([each for each in met if each.hits.draw < draws], question.metric)
    )


def _half_width(met: Sequence[Meeting], metric: Metric) -> float:
    found = _normalized(by_chunk(met, metric))
    return half_width(found) if found else math.inf


def _normalized(chunks: Chunks) -> Estimate | None:
    return estimate_chunks(chunks) if any(chunk.clean for chunk in chunks.values()) else None


def _cell(key: CellKey, met: Sequence[Meeting], question: Question) -> Cell:
    chunks = [by_chunk(met, metric) if metric == "top1" or met[0].top5 else None for metric in METRICS]
    top1, top5 = (_normalized(each) if each else None for each in chunks)
    all1, all5 = (estimate_chunks_accuracy(each) if each else None for each in chunks)
    shown = top5 if question.metric == "top5" and all5 else top1
    precise = None
    if question.precision is not None:
        precise = shown is not None and half_width(shown) <= question.precision
    return Cell(*key, tuple(meeting.hits for meeting in met), top1, top5, all1, all5, precise)


def _average(single: Sequence[Sequence[Meeting]], metric: Metric) -> Estimate | None:
    """A_avr of the layers of the single sweep; None without a top-5, or where a layer's chunks have no clean hit."""
    if metric == "top5" and any(meeting.top5 is None for met in single for meeting in met[:1]):
        return None
    layers = [by_chunk(met, metric) for met in single]
    if not all(any(chunk.clean for chunk in chunks.values()) for chunks in layers):
        return None
    return estimate_layers(layers)
