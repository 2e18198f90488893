"""All layers noisy together over realized SNR: the one axis on which every noise model stands, whatever its own level is."""

from __future__ import annotations

from collections.abc import Sequence
from math import isinf

import altair as alt

from onnxnoise.records import RealizedRange
from onnxnoise.reports import tables
from onnxnoise.reports.chartdata import Datum, both_said, by_noise, ends
from onnxnoise.reports.figures.base import Canvas, OfAllRuns
from onnxnoise.reports.style import NORMALIZED, RUN_COLORS, RUN_SHAPES, layered, legend, scale, tips
from onnxnoise.reports.views import View
from onnxnoise.text import three

_TIPS = (
    ("run:N", "run"),
    ("at:N", "level"),
    ("snrs:N", "realized SNR"),
    ("gains:N", "gain"),
    ("offsets:N", "offset"),
    ("said_accuracy:N", "accuracy"),
    ("said:N", NORMALIZED),
)


def points(found: Sequence[View]) -> list[Datum]:
    """A row for each run and level with noise: the median SNR of the layers with its range, and accuracy / clean."""
    rows = []
    for view in found:
        realized = {each.level: each for each in view.result.realized_layers}
        for order, cell in enumerate(by_noise(view, view.cells("all"))):
            each, normalized = realized.get(cell.level), view.normalized(cell)
            if each is None or each.snr is None or normalized is None or isinf(each.snr[2]) or not each.snr[0]:
                continue
            low, high = ends(normalized)
            rows.append(
                {
                    "run": view.label,
                    "order": order,
                    "at": view.level.long_text(cell.level),
                    "level": view.level.number(cell.level),
                    "snr_low": each.snr[0],
                    "snr": each.snr[1],
                    "snr_high": each.snr[2],
                    "snrs": three(each.snr, "{:.3g}"),
                    "gains": three(each.gain),
                    "offsets": three(each.offset),
                    "normalized": normalized.mean,
                    "low": low,
                    "high": high,
                    **both_said(normalized, view.accuracy(cell)),
                }
            )
    return rows


def charts(found: Sequence[View], canvas: Canvas) -> list[alt.LayerChart]:
    """One chart, with a curve for each run; more noise lies to the right, as in the other figures."""
    if not points(found):
        return []
    runs = [view.label for view in found]
    shown = legend(runs, wanted=len(runs) > 1)
    title = "realized SNR, sd(w) / sd(w' - w): median of the layers"
    place = alt.Scale(type="log", reverse=True, nice=True)
    x = alt.X("snr:Q", title=title, scale=place, axis=alt.Axis(grid=False, format="~g"))
    curves = canvas.chart("realized").encode(
        color=alt.Color("run:N", title=None, scale=scale(runs, RUN_COLORS), legend=shown)
    )
    y = alt.Y("normalized:Q", title=NORMALIZED)
    shape = alt.Shape("run:N", title=None, scale=scale(runs, RUN_SHAPES), legend=shown)
    return [
        layered(
            curves.mark_rule(strokeWidth=1, opacity=0.5).encode(
                x=alt.X("snr_low:Q", title=title, scale=place), x2="snr_high:Q", y=y
            ),
            curves.mark_rule(strokeWidth=1.5, opacity=0.8).encode(x=x, y=alt.Y("low:Q", title=NORMALIZED), y2="high:Q"),
            curves.mark_line(strokeWidth=2).encode(x=x, y=y, order="order:Q"),
            curves.mark_point(size=60, filled=True, opacity=1).encode(x=x, y=y, shape=shape, tooltip=tips(_TIPS)),
            curves.mark_text(dy=-10, fontSize=10).encode(x=x, y=y, text="level:N"),
            height=280,
        )
    ]


def table(found: Sequence[View]) -> str:
    """A table of realized SNR, gain and offset over the layers, a row for each run and level."""
    rows = [
        [tables.text(view.label), tables.noise(view, each.level), *_columns(each)]
        for view in found
        for each in view.result.realized_layers
    ]
    if not rows:
        return ""
    spread = "<small>lowest, highest</small>"
    headings = ["run", "level", f"SNR, median{spread}", f"gain, median{spread}", f"offset, median{spread}", "layers"]
    return tables.table("Realized noise of the layers' weights", headings, rows)


def _columns(each: RealizedRange) -> list[str]:
    columns = []
    for values, digits in ((each.snr, ".3g"), (each.gain, ".3f"), (each.offset, ".3f")):
        low, middle, high = values or (None, None, None)
        below = "" if low is None or high is None else f"{low:{digits}}, {high:{digits}}"
        columns.append(tables.number(middle, "" if middle is None else f"{middle:{digits}}", below))
    return [*columns, tables.number(each.layers, str(each.layers))]


FIGURE = OfAllRuns(
    title="All layers noisy together, over the SNR that their weights really got",
    note=(
        "upright bars: 95 % intervals, for other draws and other images like these; flat bars: from the lowest to the highest "
        "layer; labels: the noise model's own level; drift and other gain errors cost more than white noise of the same SNR"
    ),
    rows={"realized": points},
    charts=charts,
    slot="row",
    table=table,
    any_noise=True,
)
