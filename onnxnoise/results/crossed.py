"""The answer of a crossed run, in which every draw meets every image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from onnxnoise.records import Average, Bits, Cell, CleanHits, DrawHits
from onnxnoise.results.question import Answer, CellKey, Question
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.results.tallies import HitBits, by_draw, draw_hits, number, number_or_none
from onnxnoise.statistics.estimates import LayerSum, count, estimate, estimate_accuracy
from onnxnoise.words import METRICS


def answer_crossed(store: RunStore, question: Question) -> Answer | None:
    """The answer from complete cells, with all draws on all images, and averages of all layers. None before the clean pass.

    Only one cell's hits are held in memory at a time, with their sum over layers.
    """
    chunks = [chunk for chunk in store.chunks() if chunk.start < question.images]
    clean = by_draw(store.tallies("clean"), chunks, question.images).get(0)
    if clean is None:
        return None
    cells: list[Cell] = []
    averages: list[Average] = []
    for sweep, level in product(question.sweeps, question.levels):
        layers = question.layers_of(sweep)
        totals = [LayerSum(getattr(clean, metric)) for metric in METRICS]
        for layer in layers:
            complete = by_draw(store.tallies(sweep, layer, level), chunks, question.images)
            draws = {draw: hits for draw, hits in complete.items() if draw < question.draws}
            if len(draws) == question.draws:
                stacks = [np.array([getattr(hits, metric) for hits in draws.values()]) for metric in METRICS]
                hits = tuple(draw_hits(draw, each, clean) for draw, each in draws.items())
                cells.append(_cell((sweep, layer, level), hits, clean, stacks, question.target))
                if sweep == "single":
                    for total, stack in zip(totals, stacks, strict=True):
                        total.add(stack)
        if sweep == "single" and layers and totals[0].layers == len(layers):
            top1, top5 = (estimate(total.sums(), question.target) if total.clean.any() else None for total in totals)
            if top1 is not None:
                averages.append(Average(sweep, level, len(layers), top1, top5))
    counts = CleanHits(clean.top1.size, number(clean.top1), number_or_none(clean.top5), number(clean.nonfinite))
    return Answer(counts, cells, averages, question.planned)


def _cell(key: CellKey, hits: tuple[DrawHits, ...], clean: HitBits, stacks: Sequence[Bits], target: float) -> Cell:
    sums = [
        count([stack], getattr(clean, metric)) if stack.size else None
        for stack, metric in zip(stacks, METRICS, strict=True)
    ]
    top1, top5 = (estimate(each, target) if each and each.clean else None for each in sums)
    all1, all5 = (estimate_accuracy(each, target) if each else None for each in sums)
    return Cell(*key, hits, top1, top5, all1, all5)
