"""The rows behind the figures: what charts.py draws, with the words that its tooltips say."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from onnxnoise.records import Cell, Estimate
from onnxnoise.reports.views import View, falls
from onnxnoise.text import noise_percent, noise_text, shortened

Row = dict[str, Any]
LEVELS = ("< 0.2", "0.2 to 0.5", "0.5 to 0.8", "0.8 to 0.9", "0.9 to 0.95", "0.95 to 0.99", "0.99 and more")
"""Classes of accuracy / clean on the heat map, worst first; the lower bound belongs to the class."""

_BOUNDS = (0.2, 0.5, 0.8, 0.9, 0.95, 0.99)
_STEP, _REACH = 0.008, 0.03
"""Shares of the axis: from one run's marks to the next one's, and from the first one's to the last one's."""

_ROW_NAME, _TIP_NAME = 30, 120


def whole(found: Sequence[View]) -> list[Row]:
    """All layers noisy, of all runs, each with its clean accuracy at noise 0; accuracies in percent."""
    rows = []
    for view, beside in _beside(found):
        cells = view.cells("all")
        if cells:
            clean: Row = {"run": view.label, "noise": 0.0, "place": 0.0, "at": "clean", "said": "1"}
            clean |= {"accuracy": 100 * view.clean, "normalized": 1.0, "said_accuracy": f"{view.clean:.2%}"}
            rows.append(clean)
        rows += [{**_whole(view, cell), "place": beside(noise_percent(cell.snr))} for cell in cells]
    return sorted(rows, key=lambda row: row["noise"])


def _whole(view: View, cell: Cell) -> Row:
    normalized, accuracy = view.normalized(cell), view.accuracy(cell)
    return {
        "run": view.label,
        **_noise(cell),
        **_range("accuracy", accuracy, 100),
        **_range("normalized", normalized, 1),
        **_said(normalized, accuracy),
    }


def whole_draws(found: Sequence[View]) -> list[Row]:
    """All layers noisy: a row a run, SNR and draw; none of chunked runs, whose draws met different images."""
    rows = []
    for view, beside in _beside(found):
        for cell in view.cells("all") if view.crossed else ():
            for draw in cell.draws:
                accuracy, normalized = view.draw(draw)
                noise = noise_percent(cell.snr)
                rows.append(
                    {"run": view.label, "place": beside(noise), "accuracy": 100 * accuracy, "normalized": normalized}
                )
    return rows


def averages(found: Sequence[View]) -> list[Row]:
    """A_avr and 100 - A_avr of all runs, in percent of the clean accuracy."""
    rows: list[Row] = []
    for view, beside in _beside(found):
        for average in view.result.a_avr:
            estimate = view.average(average)
            if estimate is None:
                continue
            low, high = estimate.sampled or (None, None)
            draws = len(view.cells("single", average.snr)[0].draws)
            rows.append(
                {
                    "run": view.label,
                    "noise": noise_percent(average.snr),
                    "place": beside(noise_percent(average.snr)),
                    "at": noise_text(average.snr),
                    "a_avr": 100 * estimate.mean,
                    "low": None if low is None else 100 * low,
                    "high": None if high is None else 100 * high,
                    "loss": 100 - 100 * estimate.mean,
                    "loss_low": None if high is None else 100 - 100 * high,
                    "loss_high": None if low is None else 100 - 100 * low,
                    "said": said(estimate),
                    "layers": average.layers,
                    "draws": draws,
                }
            )
    return sorted(rows, key=lambda row: row["noise"])


def single(view: View) -> list[Row]:
    """One layer noisy at a time: a row a layer and SNR; `value` is accuracy / clean."""
    return [
        {
            **_layer(view, cell),
            "row": row_label(view, cell.layer or 0),
            **_noise(cell),
            "value": normalized.mean,
            "level": level(normalized.mean),
            "low": normalized.sampled[0] if normalized.sampled else None,
            "high": normalized.sampled[1] if normalized.sampled else None,
            **_said(normalized, view.accuracy(cell)),
            **_broken(cell),
        }
        for cell in _by_noise(view.cells("single"))
        if (normalized := view.normalized(cell)) is not None
    ]


def draws(view: View) -> list[Row]:
    """One layer noisy at a time: a row a layer, SNR and draw; none of a chunked run."""
    if not view.crossed:
        return []
    return [
        {"layer": cell.layer, "noise": noise_percent(cell.snr), "draw": draw.draw, "value": round(normalized, 6)}
        for cell in _by_noise(view.cells("single"))
        for draw in cell.draws
        if (normalized := view.draw(draw)[1]) is not None
    ]


def cumulative(view: View) -> list[Row]:
    """Layers 1 to L noisy: a row an L and SNR, accuracies in percent."""
    return [_cumulative(view, cell) for cell in _by_noise(view.cells("cumulative"))]


def reached(view: View) -> list[Row]:
    """The first L of each SNR from which on accuracy can't be told from chance."""
    return [_cumulative(view, fall.cell) for fall in falls(view) if fall.cell is not None]


def chance(view: View) -> list[Row]:
    """The accuracy of guessing, in percent; no row where the number of classes is not known."""
    return [] if view.chance is None else [{"accuracy": 100 * view.chance, "said": f"chance, {100 * view.chance:g} %"}]


def _cumulative(view: View, cell: Cell) -> Row:
    accuracy = view.accuracy(cell)
    low, high = accuracy.sampled if accuracy and accuracy.sampled else (None, None)
    return {
        "layer": cell.layer,
        "name": shortened(view.layers[cell.layer or 0].name, _TIP_NAME),
        **_noise(cell),
        "accuracy": None if accuracy is None else 100 * accuracy.mean,
        "low": None if low is None else 100 * low,
        "high": None if high is None else 100 * high,
        **_said(view.normalized(cell), accuracy),
    }


def said(estimate: Estimate | None) -> str:
    """A normalized accuracy as people read it: mean [interval]."""
    if estimate is None:
        return "not defined"
    return f"{estimate.mean:.3f}" + (
        f" [{estimate.sampled[0]:.3f}, {estimate.sampled[1]:.3f}]" if estimate.sampled else ""
    )


def said_accuracy(estimate: Estimate | None) -> str:
    """An accuracy in percent: mean [interval]."""
    if estimate is None:
        return "not defined"
    mean = f"{estimate.mean:.2%}"
    return f"{mean} [{estimate.sampled[0]:.2%}, {estimate.sampled[1]:.2%}]" if estimate.sampled else mean


def level(value: float) -> str:
    """The class of an accuracy / clean on the heat map."""
    return LEVELS[bisect_right(_BOUNDS, value)]


def row_label(view: View, index: int) -> str:
    """A layer's index and name, short enough for a heat map."""
    return f"{index} {shortened(view.layers[index].name, _ROW_NAME)}"


def _beside(found: Sequence[View]) -> Iterator[tuple[View, Callable[[float], float]]]:
    """Each run with where its marks stand on a square-root scale: a little beside the noise, so that none hides another's."""
    most = max((noise_percent(snr) for view in found for snr in view.snrs), default=0.0)
    step = min(_STEP, _REACH / len(found)) * math.sqrt(most)
    for i, view in enumerate(found):
        shift = (i - (len(found) - 1) / 2) * step
        yield view, partial(_shifted, shift)


def _shifted(shift: float, noise: float) -> float:
    return max(math.sqrt(noise) + shift, 0.0) ** 2


def _by_noise(cells: Sequence[Cell]) -> list[Cell]:
    return sorted(cells, key=lambda cell: (-cell.snr, cell.layer or 0))


def _noise(cell: Cell) -> Row:
    return {"noise": noise_percent(cell.snr), "at": noise_text(cell.snr), "draws": len(cell.draws)}


def _range(name: str, estimate: Estimate | None, scale: int) -> Row:
    low, high = estimate.sampled if estimate and estimate.sampled else (None, None)
    return {
        name: None if estimate is None else scale * estimate.mean,
        f"{name}_low": None if low is None else scale * low,
        f"{name}_high": None if high is None else scale * high,
    }


def _said(normalized: Estimate | None, accuracy: Estimate | None) -> Row:
    return {"said": said(normalized), "said_accuracy": said_accuracy(accuracy)}


def _layer(view: View, cell: Cell) -> Row:
    layer = view.layers[cell.layer or 0]
    return {
        "layer": layer.index,
        "name": shortened(layer.name, _TIP_NAME),
        "kind": layer.kind,
        "parameters": f"{layer.parameters:,}",
    }


def _broken(cell: Cell) -> Row:
    """In how many draws a variance went negative, and how many outputs were not finite."""
    negative = sum(draw.negative_variances > 0 for draw in cell.draws)
    nonfinite = sum(draw.nonfinite for draw in cell.draws)
    return {
        "negative": negative,
        "nonfinite": nonfinite,
        "broken": "; ".join(_breaks(cell, negative, nonfinite)) or "no",
    }


def _breaks(cell: Cell, negative: int, nonfinite: int) -> Iterator[str]:
    if negative:
        yield f"variances negative in {negative} of {len(cell.draws)} draws"
    if nonfinite:
        yield f"{nonfinite:,} of {sum(draw.images for draw in cell.draws):,} outputs not finite"
