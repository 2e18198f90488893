"""The answer of a chunked run, in which each chunk of images meets draws of its own, and the draws that each cell needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import product

from onnxnoise.records import Average, Cell, CleanHits, Estimate, Tally, TallyKey
from onnxnoise.results.question import Answer, CellKey, Question
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.results.tallies import Meeting, by_chunk, meetings
from onnxnoise.statistics.clustered import (
    Chunks,
    estimate_chunks,
    estimate_chunks_accuracy,
    estimate_layers,
    share_of_images,
)
from onnxnoise.statistics.stopping import half_width
from onnxnoise.words import METRICS, Metric, Sweep

Widths = dict[tuple[CellKey, int], float]
"""The half-widths that looks have found: by the cell, and the last of the draws that were looked at."""


def answer_chunked(store: RunStore, question: Question) -> Answer | None:
    """The answer from all tallies that are there; cells differ in their draws and chunks. None before a chunk's clean pass."""
    clean, chunks = _clean_chunks(store, question), _chunks(store, question)
    if not clean:
        return None
    cells: list[Cell] = []
    averages: list[Average] = []
    planned = 0
    for sweep, level in product(question.sweeps, question.levels):
        single: list[list[Meeting]] = []
        for layer in question.layers_of(sweep):
            met = _met(store, (sweep, layer, level), clean, question)
            drawn = {meeting.hits.draw: meeting for meeting in met}
            wanted = _wanted(sweep, drawn, chunks, question, partial(_half_width, drawn, question.metric))
            planned += len(drawn.keys() | wanted)
            if met:
                cells.append(_cell((sweep, layer, level), met, question))
                if sweep == "single":
                    single.append(met)
        if single and len(single) == len(question.layers):
            top1, top5 = (_average(single, metric) for metric in METRICS)
            if top1 is not None:
                averages.append(Average(sweep, level, len(single), top1, top5))
    return Answer(_clean_counts(clean, question.images), cells, averages, planned)


def next_draws(
    store: RunStore,
    question: Question,
    stream: int | None = None,
    *,
    done: Collection[TallyKey] | None = None,
    widths: Widths | None = None,
) -> dict[CellKey, list[int]]:
    """The draws that each cell must have before it is looked at again; cells that have enough are absent.

    `stream` is the only stream to ask for, None for all. The answer depends on the tallies alone, so any process that goes on
    with the run file decides the same. Who asks again and again gives `done`, the keys that it has read already, and `widths`,
    which keeps what earlier looks found: tallies never change, so a look is taken once, and its tallies are read once.
    """
    done = store.done() if done is None else done
    looks = _Looks(store, question, {} if widths is None else widths)
    chunks = _chunks(store, question)
    wanted: dict[CellKey, list[int]] = {}
    for cell, drawn in _drawn(done, question).items():
        draws = _wanted(cell[0], drawn, chunks, question, partial(looks.width, cell), stream)
        if draws:
            wanted[cell] = draws
    return wanted


def _drawn(done: Collection[TallyKey], question: Question) -> dict[CellKey, set[int]]:
    """The draws of each cell that are there, with their chunks' clean passes."""
    clean = {start for sweep, _, _, _, start in done if sweep == "clean" and start < question.images}
    drawn: dict[CellKey, set[int]] = {cell: set() for cell in question.cells}
    for sweep, layer, level, draw, start in done:
        cell = sweep, layer, level
        if start in clean and draw < question.draws and cell in drawn:
            drawn[cell].add(draw)
    return drawn


class _Looks:
    """The looks at cells: `kept` has those that were taken, and only for a new one a cell's tallies are read."""

    def __init__(self, store: RunStore, question: Question, kept: Widths) -> None:
        self.store, self.question, self.kept = store, question, kept
        self._met: dict[CellKey, dict[int, Meeting]] = {}

    @cached_property
    def _clean(self) -> dict[int, Tally]:
        return _clean_chunks(self.store, self.question)

    def width(self, cell: CellKey, draws: Sequence[int]) -> float:
        """The half-width that the first draws of one stream of a cell give together."""
        look = cell, draws[-1]
        if look not in self.kept:
            if cell not in self._met:
                met = _met(self.store, cell, self._clean, self.question)
                self._met = {cell: {meeting.hits.draw: meeting for meeting in met}}
            self.kept[look] = _half_width(self._met[cell], self.question.metric, draws)
        return self.kept[look]


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


def _chunks(store: RunStore, question: Question) -> int:
    return sum(chunk.start < question.images for chunk in store.chunks())


def _wanted(
    sweep: Sweep,
    drawn: Collection[int],
    chunks: int,
    question: Question,
    width: Callable[[Sequence[int]], float],
    only: int | None = None,
) -> list[int]:
    """The draws that a cell of a sweep, which has those `drawn`, needs by `StoppingRule.next` in each stream, or the only one.

    `width` tells the half-width that some of the draws give together.
    """
    wanted: list[int] = []
    for stream in range(question.streams) if only is None else (only,):
        own = question.draws_of(stream, chunks)
        together = next((count for count, draw in enumerate(own) if draw not in drawn), len(own))

        def first(count: int, own: Sequence[int] = own) -> float:
            return width(own[:count])

        wanted += own[: replace(question.stopping(sweep), max_draws=len(own)).next(together, first) or 0]
    return wanted


def _half_width(drawn: Mapping[int, Meeting], metric: Metric, draws: Sequence[int]) -> float:
    found = _normalized(by_chunk([drawn[draw] for draw in draws], metric))
    return half_width(found) if found else math.inf


def _normalized(chunks: Chunks) -> Estimate | None:
    return estimate_chunks(chunks) if any(chunk.clean for chunk in chunks.values()) else None


def _cell(key: CellKey, met: Sequence[Meeting], question: Question) -> Cell:
    chunks = [by_chunk(met, metric) if metric == "top1" or met[0].top5 else None for metric in METRICS]
    top1, top5 = (_normalized(each) if each else None for each in chunks)
    all1, all5 = (estimate_chunks_accuracy(each) if each else None for each in chunks)
    shown = top5 if question.metric == "top5" and all5 else top1
    precise = floor = None
    if question.precision is not None:
        precise = shown is not None and half_width(shown) <= question.precision
        if shown is not None and not precise:
            share = share_of_images((meeting.start, meeting.changes(question.metric)) for meeting in met)
            floor = None if share is None else half_width(shown) * math.sqrt(share)
    return Cell(*key, tuple(meeting.hits for meeting in met), top1, top5, all1, all5, precise, floor)


def _average(single: Sequence[Sequence[Meeting]], metric: Metric) -> Estimate | None:
    """A_avr of the layers of the single sweep; None without a top-5, or where a layer's chunks have no clean hit."""
    if metric == "top5" and any(meeting.top5 is None for met in single for meeting in met[:1]):
        return None
    layers = [by_chunk(met, metric) for met in single]
    if not all(any(chunk.clean for chunk in chunks.values()) for chunks in layers):
        return None
    return estimate_layers(layers)
