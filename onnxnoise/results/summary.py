"""Makes the result, which is printed and written, from the run file's tallies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from onnxnoise.noise.settings import setting_of
from onnxnoise.records import CHUNKED, InitializerInfo, LayerInfo, Notice, Realized, RealizedRange, Result, header
from onnxnoise.results import caveats
from onnxnoise.results.chance import chance_notice, chance_of
from onnxnoise.results.chunked import answer_chunked
from onnxnoise.results.crossed import answer_crossed
from onnxnoise.results.probes import probes
from onnxnoise.results.question import Question, is_chunked
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.words import Metric


def summarize(store: RunStore, question: Question) -> Result | None:
    """The result of the complete cells in `store`; None before the clean pass is complete.

    Cells that lack draws or images are left out, but not in a chunked run, where each chunk of images meets draws of its own.
    Raises RunFileError if the file can't be read.
    """
    identity, description = store.identity, store.description
    chunked, setting = is_chunked(identity), setting_of(identity)
    answer = answer_chunked(store, question) if chunked else answer_crossed(store, question)
    if answer is None:
        return None
    cells = sorted(answer.cells, key=lambda cell: (question.sweeps.index(cell.sweep), cell.layer or 0))
    precision = question.precision if chunked else None
    levels = {cell.level for cell in cells}
    realized = [each for each in store.realized() if each.level in levels and each.layer in question.layers]
    realized.sort(key=lambda each: (each.layer, question.levels.index(each.level)))
    clean, chance = answer.clean, chance_of(store, question.images)
    runs = tuple(store.runs())
    told: Metric = "top1" if clean.top5_hits is None else question.metric
    hits = clean.top1_hits if clean.top5_hits is None or told == "top1" else clean.top5_hits
    return Result(
        **kept_header(identity, description, question.images),
        metric=question.metric,
        clean=answer.clean,
        layers=tuple(layer_info(each) for each in description["layers"]),
        selected=question.layers,
        cells=setting.with_snr(cells),
        a_avr=setting.with_snr(answer.averages),
        warnings=(
            *(Notice(**each) for each in description["notices"]),
            *chance_notice(hits, clean.images, chance, told),
            *caveats.notices(
                setting,
                answer.clean,
                cells,
                metric=question.metric,
                draws=question.draws,
                precision=precision,
                chunked=chunked,
                probed=probes(runs, levels),
            ),
        ),
        runs=runs,
        measured=sum(len(cell.draws) for cell in cells),
        planned=answer.planned,
        design=CHUNKED if chunked else "crossed",
        target=question.target,
        precision=precision,
        realized=tuple(realized),
        realized_layers=tuple(over_layers(realized)),
        chance=chance,
    )


def over_layers(found: Sequence[Realized]) -> Iterator[RealizedRange]:
    """The range over the layers of their realized noise, level by level in the order of `found`."""
    for level in dict.fromkeys(each.level for each in found):
        here = [each for each in found if each.level == level]
        snr, gain, offset = (_range([getattr(each, name) for each in here]) for name in ("snr", "gain", "offset"))
        yield RealizedRange(level, len(here), snr, gain, offset)


def _range(values: Sequence[float | None]) -> tuple[float, float, float] | None:
    """The lowest, the median and the highest of the values that are there."""
    known = [value for value in values if value is not None]
    return (min(known), median(known), max(known)) if known else None


def kept_header(identity: Mapping[str, Any], description: Mapping[str, Any], images: int) -> dict[str, Any]:
    """The header of a result on the first `images` images of a run file, from the file's identity and description."""
    model = description["model"], identity["model"]
    dataset = description["dataset"], images, identity["data"]
    by_clean = identity.get("labels") == "clean"
    return header(setting_of(identity), identity["provider"], model, dataset, by_clean=by_clean)


def layer_info(fields: dict[str, Any]) -> LayerInfo:
    """A layer as the run file keeps it."""
    initializers = tuple(
        InitializerInfo(each["name"], tuple(each["shape"]), each["sigma_w"]) for each in fields["initializers"]
    )
    return LayerInfo(**{**fields, "initializers": initializers})
