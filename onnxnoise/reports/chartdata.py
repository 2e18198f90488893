"""The rows that several figures draw, and their common fields: noise, estimates, single noisy layers and tooltips' words."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from onnxnoise.records import Cell, Estimate
from onnxnoise.reports.views import View, level_of
from onnxnoise.text import ranged, shortened

Datum = dict[str, Any]
"""A row that a chart draws: values by field, as Vega takes them."""

BANDS = ("< 0.2", "0.2 to 0.5", "0.5 to 0.8", "0.8 to 0.9", "0.9 to 0.95", "0.95 to 0.99", "0.99 and more")
"""Bands of accuracy / clean on the heat map, worst first; the lower bound belongs to the band."""

_BOUNDS = (0.2, 0.5, 0.8, 0.9, 0.95, 0.99)
_STRETCH = 1.15
"""The ratio of the times at which one run's marks stand and the next run's."""

_STEP, _REACH = 0.008, 0.03
"""Shares of the axis: the distance from one run's marks to the next run's, and at most from the first's to the last's."""

_ROW_NAME, _TIP_NAME = 30, 120


def by_noise(view: View, cells: Sequence[Cell]) -> list[Cell]:
    """The cells sorted: the least noise first, at equal noise by layer."""
    return sorted(cells, key=lambda cell: (view.level.order(cell.level), cell.layer or 0))


def noise(view: View, cell: Cell) -> Datum:
    """The noise of a cell in percent and in words, and its number of draws."""
    level = view.level
    return {"noise": level.percent(cell.level), "at": level.long_text(cell.level), "draws": len(cell.draws)}


def ends(estimate: Estimate | None) -> tuple[float, float] | tuple[None, None]:
    """The ends of an estimate's interval for other draws and images; None where it has none."""
    return estimate.sampled if estimate and estimate.sampled else (None, None)


def scaled(value: float | None, scale: int) -> float | None:
    """A value times `scale`; None stays None."""
    return None if value is None else scale * value


def said(estimate: Estimate | None) -> str:
    """A normalized accuracy as people read it: mean [interval]."""
    return _said(estimate, ".3f")


def said_accuracy(estimate: Estimate | None) -> str:
    """An accuracy in percent as people read it: mean [interval]."""
    return _said(estimate, ".2%")


def _said(estimate: Estimate | None, form: str) -> str:
    return "not defined" if estimate is None else ranged(estimate.mean, estimate.sampled, form)


def both_said(normalized: Estimate | None, accuracy: Estimate | None) -> Datum:
    """Both accuracies of a cell in words, for its tooltip."""
    return {"said": said(normalized), "said_accuracy": said_accuracy(accuracy)}


def layer_name(view: View, index: int) -> str:
    """A layer's name, short enough for a tooltip."""
    return shortened(view.layers[index].name, _TIP_NAME)


def row_label(view: View, index: int) -> str:
    """A layer's index and name, short enough for a heat map."""
    return f"{index} {shortened(view.layers[index].name, _ROW_NAME)}"


def beside(found: Sequence[View]) -> Iterator[tuple[View, Callable[[float], float]]]:
    """Each run with a function that says where its marks stand for a noise in percent.

    On a square-root scale they stand a little beside the noise, so that no run's marks hide another's.
    """
    level = level_of(found)
    most = max((level.percent(each) for view in found for each in view.levels), default=0.0)
    step = min(_STEP, _REACH / len(found)) * math.sqrt(most)
    for i, view in enumerate(found):
        if level.time:  # on a logarithmic scale
            yield view, partial(_stretched, _STRETCH ** (i - (len(found) - 1) / 2))
            continue
        shift = (i - (len(found) - 1) / 2) * step
        yield view, partial(_shifted, shift)


def _stretched(factor: float, seconds: float) -> float:
    return factor * seconds


def _shifted(shift: float, percent: float) -> float:
    return max(math.sqrt(percent) + shift, 0.0) ** 2


def single(view: View) -> list[Datum]:
    """One layer noisy at a time: a row for each layer and level; `value` is accuracy / clean."""
    return [
        {
            **_layer(view, cell),
            "row": row_label(view, cell.layer or 0),
            **noise(view, cell),
            "value": normalized.mean,
            "level": band(normalized.mean),
            "low": ends(normalized)[0],
            "high": ends(normalized)[1],
            **both_said(normalized, view.accuracy(cell)),
            **_broken(cell),
        }
        for cell in by_noise(view, view.cells("single"))
        if (normalized := view.normalized(cell)) is not None
    ]


def draws(view: View) -> list[Datum]:
    """One layer noisy at a time: a row for each layer, level and draw; none of a chunked run."""
    if not view.crossed:
        return []
    return [
        {
            "layer": cell.layer,
            "noise": view.level.percent(cell.level),
            "draw": draw.draw,
            "value": round(normalized, 6),
        }
        for cell in by_noise(view, view.cells("single"))
        for draw in cell.draws
        if (normalized := view.draw(draw)[1]) is not None
    ]


def band(normalized: float) -> str:
    """The heat map's band of an accuracy / clean."""
    return BANDS[bisect_right(_BOUNDS, normalized)]


def _layer(view: View, cell: Cell) -> Datum:
    layer = view.layers[cell.layer or 0]
    return {
        "layer": layer.index,
        "name": layer_name(view, layer.index),
        "kind": layer.kind,
        "parameters": f"{layer.parameters:,}",
    }


def _broken(cell: Cell) -> Datum:
    """The number of draws in which a variance went negative, and of outputs that were not finite, in words too."""
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
