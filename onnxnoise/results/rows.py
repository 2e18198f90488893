"""Results as tidy rows with documented columns, for pandas, CSV and JSON: one row for each cell, draw or average."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, overload

from onnxnoise.errors import UsageError
from onnxnoise.noise.models import level_of
from onnxnoise.records import Cell, DrawHits, Estimate, LayerInfo, Realized, RealizedRange, Result
from onnxnoise.results.as_json import strict_json
from onnxnoise.results.reading import results_of
from onnxnoise.words import Analog, Compensation, Policy, SigmaScope, Sweep

RowKind = Literal["cells", "draws", "averages"]
KINDS: tuple[RowKind, ...] = get_args(RowKind)


_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Characters that a spreadsheet takes for the beginning of a formula."""


@dataclass(frozen=True)
class RunRow:
    """The fields that every row has about its run. All shares are fractions of 1; an empty field is None.

    model: the model's name · model_sha256: of its file · dataset: name of the images · images: how many · seed: of the noise ·
    noise: the noise model · bn: batch-norm policy · sigma_scope: tensor or layer · scale: what max |w| is taken over · analog:
    all initializers or kernels · provider: ONNX Runtime's execution provider · sweep: single, cumulative or all · level: of the
    noise, called level_name · snr: the same where it is sigma_w / sigma_noise, else None · noise_percent: the size of the noise,
    which the noise model defines; 100 / snr for gaussian noise · compensate: none, drift or bn · noise_map: SHA-256 of the noise
    map's file
    """

    model: str
    model_sha256: str
    dataset: str
    images: int
    seed: int
    bn: Policy
    sigma_scope: SigmaScope
    provider: str
    sweep: Sweep
    snr: float | None
    noise_percent: float
    noise: str
    scale: str
    analog: Analog
    level: float
    level_name: str
    compensate: Compensation
    noise_map: str | None


@dataclass(frozen=True)
class _LayerRow(RunRow):
    """layer: index from 1 (cumulative: the last noisy one; None: all) · name, kind, parameters, sigma_w: that layer's."""

    layer: int | None
    name: str | None
    kind: str | None
    parameters: int | None
    sigma_w: float | None


@dataclass(frozen=True)
class CellRow(_LayerRow):
    """One (sweep, layer, level), averaged over its draws. For top1, and the same for top5 (None with five classes or fewer):

    clean_top1: accuracy without noise · top1: accuracy, with its 95 % interval top1_low, top1_high for other draws and other
    images like these · normalized_top1: accuracy / clean accuracy, with the same interval normalized_top1_low, _high ·
    normalized_top1_fixed_low, _fixed_high: its 95 % interval for other draws and these images · normalized_top1_sd,
    normalized_top1_worst: standard deviation and lowest of the draws. Intervals and sd are None with one draw.
    draws: how many · nonfinite: outputs that were not finite, over all draws · negative_variances: most batch-norm channels
    whose variance the noise made negative in one draw · negative_variance_draws: in how many draws there were any ·
    realized_snr, realized_gain, realized_offset: the noise that the layer's weights really got, sd(w) / sd(w' - w),
    sum(w w') / sum(w w) and mean(w' - w) / sd(w); of all layers together the median over the layers (cumulative: the last noisy
    layer's); None where they weren't measured or aren't defined
    """

    draws: int
    clean_top1: float
    top1: float
    top1_low: float | None
    top1_high: float | None
    normalized_top1: float | None
    normalized_top1_low: float | None
    normalized_top1_high: float | None
    normalized_top1_fixed_low: float | None
    normalized_top1_fixed_high: float | None
    normalized_top1_sd: float | None
    normalized_top1_worst: float | None
    clean_top5: float | None
    top5: float | None
    top5_low: float | None
    top5_high: float | None
    normalized_top5: float | None
    normalized_top5_low: float | None
    normalized_top5_high: float | None
    normalized_top5_fixed_low: float | None
    normalized_top5_fixed_high: float | None
    normalized_top5_sd: float | None
    normalized_top5_worst: float | None
    nonfinite: int
    negative_variances: int
    negative_variance_draws: int
    realized_snr: float | None
    realized_gain: float | None
    realized_offset: float | None


@dataclass(frozen=True)
class DrawRow(_LayerRow):
    """One draw of a cell: counts of images, and the accuracies that follow from them.

    draw: index from 0 · clean_top1_hits, top1_hits: images classified right without and with noise (top5 the same) ·
    top1: accuracy · normalized_top1: top1_hits / clean_top1_hits · nonfinite, negative_variances: as in a cell, of this draw
    """

    draw: int
    clean_top1_hits: int
    top1_hits: int
    top1: float
    normalized_top1: float | None
    clean_top5_hits: int | None
    top5_hits: int | None
    top5: float | None
    normalized_top5: float | None
    nonfinite: int
    negative_variances: int


@dataclass(frozen=True)
class AverageRow(RunRow):
    """A_avr at one level: the mean over `layers` layers of normalized accuracy with noise in that layer alone.

    a_avr_top1: a fraction of the clean accuracy, with its 95 % intervals a_avr_top1_low, _high (other draws and images) and
    a_avr_top1_fixed_low, _fixed_high (other draws, these images); a_avr_top1_sd, _worst: of single draws; top5 the same
    """

    layers: int
    a_avr_top1: float
    a_avr_top1_low: float | None
    a_avr_top1_high: float | None
    a_avr_top1_fixed_low: float | None
    a_avr_top1_fixed_high: float | None
    a_avr_top1_sd: float | None
    a_avr_top1_worst: float | None
    a_avr_top5: float | None
    a_avr_top5_low: float | None
    a_avr_top5_high: float | None
    a_avr_top5_fixed_low: float | None
    a_avr_top5_fixed_high: float | None
    a_avr_top5_sd: float | None
    a_avr_top5_worst: float | None


Row: TypeAlias = CellRow | DrawRow | AverageRow


@overload
def load(path: Path | str, rows: Literal["cells"] = "cells") -> list[CellRow]: ...
@overload
def load(path: Path | str, rows: Literal["draws"]) -> list[DrawRow]: ...
@overload
def load(path: Path | str, rows: Literal["averages"]) -> list[AverageRow]: ...
def load(path: Path | str, rows: RowKind = "cells") -> Sequence[Row]:
    """The rows of a run file, which `pandas.DataFrame` takes as they are; for an unfinished run, the complete rows.

    `rows`: one a cell (CellRow, mean and intervals), a draw (DrawRow, counts) or an average (AverageRow, A_avr); columns are
    their fields. Raises RunFileError for a file that can't be read, UsageError for an unknown `rows`.

    >>> from onnxnoise import BenchSpec, bench
    >>> spec = BenchSpec("resnet20-cifar10", snrs=(20.0,), sweeps=("all",), draws=2, limit=40, out="run.sqlite")
    >>> result = bench(spec)
    >>> (row,) = load("run.sqlite")
    >>> row.sweep, row.snr, row.noise_percent, row.images, row.draws
    ('all', 20.0, 5.0, 40, 2)
    >>> len(load("run.sqlite", "draws"))
    2
    """
    return rows_of(results_of(path), rows)


def rows_of(result: Result, rows: RowKind) -> list[Row]:
    """The rows of a result; raises UsageError for an unknown kind."""
    if rows not in KINDS:
        raise UsageError(f"{rows!r} is no kind of rows; there are {', '.join(KINDS)}")
    makers: dict[RowKind, Callable[[Result], Iterator[Row]]] = {
        "cells": _cells,
        "draws": _draws,
        "averages": _averages,
    }
    return list(makers[rows](result))


def to_csv(rows: Sequence[Row], kind: RowKind) -> str:
    """The rows as CSV: a line of column names, then a line a row; None is an empty field, names are quoted where needed.

    A text that begins with =, +, -, @, a tab or a carriage return gets a ' in front: spreadsheets would take it for a formula,
    and names come from the model's file.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(_TYPES[kind])])
    writer.writerows([_inert(getattr(row, field.name)) for field in fields(row)] for row in rows)
    return text.getvalue()


def _inert(value: object) -> object:
    """A CSV cell that no spreadsheet computes; numbers stay as they are."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def to_json_rows(rows: Sequence[Row]) -> str:
    """The rows as a JSON list of objects, strict and in ASCII, for `pandas.read_json`; an infinite level is written 1e999."""
    return "[\n" + ",\n".join(strict_json(asdict(row), indent=None).rstrip() for row in rows) + "\n]\n"


_TYPES: dict[RowKind, type[Row]] = {"cells": CellRow, "draws": DrawRow, "averages": AverageRow}


def _run(result: Result, sweep: Sweep, level: float) -> dict[str, Any]:
    swept = level_of(result.noise)
    return {
        "model": result.model["name"],
        "model_sha256": result.model["sha256"],
        "dataset": str(result.dataset["name"]),
        "images": result.clean.images,
        **{name: value for name, value in result.noise.whole().items() if name not in ("calibration", "noise_map")},
        "noise_map": result.noise.noise_map.sha256 if result.noise.noise_map else None,
        "provider": result.provider,
        "sweep": sweep,
        "snr": result.noise.as_snr(level),
        "noise_percent": swept.percent(level),
        "level": level,
        "level_name": swept.name,
    }


def _layer(result: Result, cell: Cell) -> dict[str, Any]:
    info: LayerInfo | None = next((layer for layer in result.layers if layer.index == cell.layer), None)
    names = ("name", "kind", "parameters", "sigma_w")
    return {"layer": cell.layer, **{name: getattr(info, name) if info else None for name in names}}


def _cells(result: Result) -> Iterator[CellRow]:
    clean = result.clean
    realized: dict[tuple[int | None, float], Realized] = {(each.layer, each.level): each for each in result.realized}
    over = {each.level: each for each in result.realized_layers}
    for cell in result.cells:
        negative = [draw.negative_variances for draw in cell.draws]
        yield CellRow(
            **_run(result, cell.sweep, cell.level),
            **_layer(result, cell),
            draws=len(cell.draws),
            clean_top1=clean.top1_hits / clean.images,
            clean_top5=None if clean.top5_hits is None else clean.top5_hits / clean.images,
            **_accuracy("top1", cell.accuracy_top1),
            **_accuracy("top5", cell.accuracy_top5),
            **_estimate("normalized_top1", cell.normalized_top1),
            **_estimate("normalized_top5", cell.normalized_top5),
            nonfinite=sum(draw.nonfinite for draw in cell.draws),
            negative_variances=max(negative),
            negative_variance_draws=sum(channels > 0 for channels in negative),
            **_realized(realized.get((cell.layer, cell.level)), over.get(cell.level) if cell.layer is None else None),
        )


def _realized(layer: Realized | None, over: RealizedRange | None) -> dict[str, Any]:
    """The realized noise of a cell's layer, or of all layers together the median over them."""
    found = {name: getattr(layer, name, None) for name in ("snr", "gain", "offset")}
    if over is not None:
        found = {name: each[1] if (each := getattr(over, name)) else None for name in found}
    return {f"realized_{name}": value for name, value in found.items()}


def _draws(result: Result) -> Iterator[DrawRow]:
    for cell in result.cells:
        for draw in cell.draws:
            counts = {field.name: getattr(draw, field.name) for field in fields(DrawHits) if field.name != "images"}
            yield DrawRow(
                **{**_run(result, cell.sweep, cell.level), "images": draw.images},
                **_layer(result, cell),
                **counts,
                top1=draw.top1_hits / draw.images,
                top5=None if draw.top5_hits is None else draw.top5_hits / draw.images,
                normalized_top1=draw.top1_hits / draw.clean_top1_hits if draw.clean_top1_hits else None,
                normalized_top5=(draw.top5_hits or 0) / draw.clean_top5_hits if draw.clean_top5_hits else None,
            )


def _averages(result: Result) -> Iterator[AverageRow]:
    for average in result.a_avr:
        yield AverageRow(
            **_run(result, average.sweep, average.level),
            layers=average.layers,
            **_estimate("a_avr_top1", average.top1),
            **_estimate("a_avr_top5", average.top5),
        )


def _accuracy(name: str, estimate: Estimate | None) -> dict[str, Any]:
    low, high = estimate.sampled if estimate and estimate.sampled else (None, None)
    return {name: estimate.mean if estimate else None, f"{name}_low": low, f"{name}_high": high}


def _estimate(name: str, estimate: Estimate | None) -> dict[str, Any]:
    low, high = estimate.fixed if estimate and estimate.fixed else (None, None)
    return {
        **_accuracy(name, estimate),
        f"{name}_fixed_low": low,
        f"{name}_fixed_high": high,
        f"{name}_sd": estimate.sd if estimate else None,
        f"{name}_worst": estimate.worst if estimate else None,
    }
