"""From the run file's tallies to counts, estimates and the result that is printed and written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, product
from typing import Any

import numpy as np

from onnxnoise.estimates import LayerSum, count, estimate, estimate_accuracy
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
from onnxnoise.spec import METRICS
from onnxnoise.store import RunStore

SCHEMA = "onnxnoise/result/1"
LAYERS_SCHEMA = "onnxnoise/layers/1"
FEW_DRAWS = 10


@dataclass(frozen=True)
class Question:
    """Which part of a run file is asked for; `layers` are the indices of the `single` and `cumulative` sweeps.

    `target` is the share of the clean accuracy that a draw must keep to count in a yield.
    """

    snrs: tuple[float, ...]
    sweeps: tuple[Sweep, ...]
    draws: int
    images: int
    layers: tuple[int, ...]
    metric: Metric
    target: float = 0.95

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


def summarize(store: RunStore, question: Question) -> Result | None:
    """The result of what is complete in `store`; None before the clean pass is. Cells that lack draws or images are left out.

    One cell's hits are held at a time, and their sum over layers. Raises RunFileError if the file can't be read.
    """
    identity, description = store.identity, store.description
    chunks = [chunk for chunk in store.chunks() if chunk.start < question.images]
    clean = _by_draw(store.tallies("clean"), chunks, question.images).get(0)
    if clean is None:
        return None
    cells: list[Cell] = []
    averages: list[Average] = []
    for sweep, snr in product(question.sweeps, question.snrs):
        layers: tuple[int | None, ...] = (None,) if sweep == "all" else question.layers
        totals = [LayerSum(getattr(clean, metric)) for metric in METRICS]
        for layer in layers:
            by_draw = _by_draw(store.tallies(sweep, layer, snr), chunks, question.images)
            draws = {draw: hits for draw, hits in by_draw.items() if draw < question.draws}
            if len(draws) == question.draws:
                stacks = [np.array([getattr(hits, metric) for hits in draws.values()]) for metric in METRICS]
                cells.append(_cell(sweep, layer, snr, draws, clean, stacks, question.target))
                if sweep == "single":
                    for total, stack in zip(totals, stacks, strict=True):
                        total.add(stack)
        if sweep == "single" and layers and totals[0].layers == len(layers):
            top1, top5 = (_estimate(total, question.target) for total in totals)
            if top1 is not None:
                averages.append(Average(sweep, snr, len(layers), top1, top5))
    cells.sort(key=lambda cell: (question.sweeps.index(cell.sweep), cell.layer or 0))
    return Result(
        model={"name": description["model"], "sha256": identity["model"]},
        provider=identity["provider"],
        dataset={"name": description["dataset"], "images": question.images, "sha256": identity["data"]},
        seed=identity["seed"],
        bn=identity["bn"],
        sigma_scope=identity["sigma_scope"],
        metric=question.metric,
        clean=CleanHits(clean.top1.size, _count(clean.top1), _count_or_none(clean.top5), _count(clean.nonfinite)),
        layers=tuple(layer_info(each) for each in description["layers"]),
        selected=question.layers,
        cells=tuple(cells),
        a_avr=tuple(averages),
        warnings=(
            *(Notice(**each) for each in description["notices"]),
            *_no_clean_hits(clean),
            *_warnings(identity["bn"], cells, question),
        ),
        runs=tuple(store.runs()),
        measured=sum(len(cell.draws) for cell in cells),
        planned=question.planned,
        target=question.target,
    )


def layer_info(fields: dict[str, Any]) -> LayerInfo:
    """A layer as the run file keeps it."""
    initializers = tuple(
        InitializerInfo(each["name"], tuple(each["shape"]), each["sigma_w"]) for each in fields["initializers"]
    )
    return LayerInfo(**{**fields, "initializers": initializers})


def _by_draw(tallies: Iterator[Tally], chunks: Sequence[range], images: int) -> dict[int, _Hits]:
    """The draws that have every chunk; `tallies` come sorted by draw and start."""
    complete = {}
    for draw, group in groupby(tallies, key=lambda tally: tally.draw):
        parts = [tally for tally in group if tally.start < images]
        if [range(t.start, t.start + t.images) for t in parts] == list(chunks):
            top1, top5, nonfinite = (_joined(parts, name, images) for name in ("top1", "top5", "nonfinite"))
            complete[draw] = _Hits(top1, top5, nonfinite, parts[0].negative_variances)
    return complete


def _joined(tallies: Sequence[Tally], name: str, images: int) -> Bits:
    parts = [getattr(tally, name) for tally in tallies]
    if not any(parts):
        return np.zeros(0, np.bool_)
    if any(tally.images % 8 for tally in tallies[:-1]):
        return np.concatenate([_unpacked(part, tally.images) for part, tally in zip(parts, tallies, strict=True)])[
            :images
        ]
    return _unpacked(b"".join(parts), images)


def _unpacked(packed: bytes, images: int) -> Bits:
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=images).view(np.bool_)


def _count(bits: Bits) -> int:
    return int(np.count_nonzero(bits))


def _count_or_none(bits: Bits) -> int | None:
    return _count(bits) if bits.size else None


def _estimate(total: LayerSum, target: float) -> Estimate | None:
    """None where the metric has no clean hit to normalize by."""
    return estimate(total.sums(), target) if total.clean.any() else None


def _cell(
    sweep: Sweep,
    layer: int | None,
    snr: float,
    draws: Mapping[int, _Hits],
    clean: _Hits,
    stacks: Sequence[Bits],
    target: float,
) -> Cell:
    hits = tuple(
        DrawHits(
            draw=draw,
            images=each.top1.size,
            clean_top1_hits=_count(clean.top1),
            clean_top5_hits=_count_or_none(clean.top5),
            top1_hits=_count(each.top1),
            top5_hits=_count_or_none(each.top5),
            nonfinite=_count(each.nonfinite),
            negative_variances=each.negative_variances,
        )
        for draw, each in draws.items()
    )
    sums = [
        count([stack], getattr(clean, metric)) if stack.size else None
        for stack, metric in zip(stacks, METRICS, strict=True)
    ]
    return Cell(
        sweep,
        layer,
        snr,
        hits,
        *(estimate(each, target) if each and each.clean else None for each in sums),
        *(estimate_accuracy(each, target) if each else None for each in sums),
    )


def _no_clean_hits(clean: _Hits) -> Iterator[Notice]:
    if not clean.top1.any():
        yield Notice(
            "no_clean_hits",
            f"none of {clean.top1.size} images is classified correctly without noise, so there is nothing to normalize by; "
            "the model is untrained, or the card's [input] or the labels are wrong",
        )


def _warnings(bn: str, cells: Sequence[Cell], question: Question) -> Iterator[Notice]:
    if question.draws == 1:
        yield Notice(
            "one_draw", "one draw: no intervals, since nothing shows how much chips differ; use --draws 10 or more"
        )
    elif question.draws < FEW_DRAWS:
        yield Notice(
            "few_draws", f"few draws ({question.draws}): the intervals are rough; use --draws {FEW_DRAWS} or more"
        )
    yield from _negative_variances(bn, cells, question)
    nonfinite = sum(draw.nonfinite for cell in cells for draw in cell.draws)
    if nonfinite:
        yield Notice("nonfinite", f"{nonfinite:,} noisy outputs were not finite; each counts as a miss")


def _negative_variances(bn: str, cells: Sequence[Cell], question: Question) -> Iterator[Notice]:
    """In how many layers and draws, told by the single sweep where there is one."""
    sweep = next((name for name in ("single", "all") if any(cell.sweep == name for cell in cells)), "cumulative")
    seen = [(cell, draw) for cell in cells for draw in cell.draws if cell.sweep == sweep and draw.negative_variances]
    if not seen:
        return
    layers = {cell.layer for cell, _ in seen} if sweep == "single" else ()
    draws = {draw.draw for _, draw in seen}
    channels = max(draw.negative_variances for _, draw in seen)
    wide = "all" if sweep == "all" else "several"
    where = f"in {len(layers)} layer{'s' if len(layers) > 1 else ''}" if layers else f"with noise in {wide} layers"
    done = "kept: its outputs are NaN and every image is a miss" if bn == "raw" else "stored as 0"
    yield Notice(
        "negative_variances",
        f"noise made batch-norm variances negative {where}, in {len(draws)} of {question.draws} draws, "
        f"in up to {channels} channel{'s' if channels > 1 else ''} at once; such a variance is {done} (--bn {bn}). "
        "--bn affine puts the noise on scale and shift instead",
    )


def to_json(result: Result) -> str:
    """The result as one JSON document, schema `onnxnoise/result/1`."""
    return _json({"schema": SCHEMA, **asdict(result)})


def layers_json(
    model: Mapping[str, str],
    bn: Policy,
    sigma_scope: SigmaScope,
    layers: Sequence[LayerInfo],
    notices: Sequence[Notice],
) -> str:
    """A model's noise layers as one JSON document, in the result's form."""
    return _json(
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


def _json(content: dict[str, Any]) -> str:
    """Strict JSON in ASCII; an infinite SNR is written 1e999, which every reader takes for infinite or its largest number."""
    text = json.dumps(content, indent=1)
    return _TOKEN.sub(lambda token: "1e999" if token[0] == "Infinity" else token[0], text) + "\n"
