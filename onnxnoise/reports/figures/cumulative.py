"""Noise in layers 1 to L: accuracy over L, a curve for each noise, and where it falls to chance (Fig. 5)."""

from __future__ import annotations

from html import escape

import altair as alt

from onnxnoise.records import Cell
from onnxnoise.reports import tables
from onnxnoise.reports.chartdata import Datum, both_said, by_noise, ends, layer_name, noise, said_accuracy, scaled
from onnxnoise.reports.figures.base import Canvas, OfOneRun
from onnxnoise.reports.style import layer_axis, layered, legend_labels, tips
from onnxnoise.reports.views import View
from onnxnoise.results.falls import falls

_TIPS = (
    ("layer:Q", "L"),
    ("name:N", "layer L"),
    ("at:N", "noise"),
    ("said_accuracy:N", "accuracy"),
    ("draws:Q", "draws"),
)


def means(view: View) -> list[Datum]:
    """A row for each L and level, accuracies in percent."""
    return [_mean(view, cell) for cell in by_noise(view, view.cells("cumulative"))]


def reached(view: View) -> list[Datum]:
    """A row for each level: the first L from which on accuracy can't be told from chance."""
    return [_mean(view, fall.cell) for fall in falls(view.result, view.metric, view.chance) if fall.cell is not None]


def chance(view: View) -> list[Datum]:
    """A row with the accuracy of guessing, in percent; no row where the number of classes isn't known."""
    return [] if view.chance is None else [{"accuracy": 100 * view.chance, "said": f"chance, {100 * view.chance:g} %"}]


def _mean(view: View, cell: Cell) -> Datum:
    accuracy = view.accuracy(cell)
    low, high = ends(accuracy)
    return {
        "layer": cell.layer,
        "name": layer_name(view, cell.layer or 0),
        **noise(view, cell),
        "accuracy": None if accuracy is None else 100 * accuracy.mean,
        "low": scaled(low, 100),
        "high": scaled(high, 100),
        **both_said(view.normalized(cell), accuracy),
    }


def charts(view: View, canvas: Canvas) -> list[alt.LayerChart]:
    """The curves, with dashes at chance and a ring where a curve has come to it."""
    if not view.cells("cumulative"):
        return []
    layers = max(view.layers, default=1)
    x = layer_axis("L: noise in layers 1 to L", layers)
    y = alt.Y("accuracy:Q", title="accuracy, %", scale=alt.Scale(zero=True, nice=True))
    color = alt.Color(
        "noise:O",
        title=f"{view.level.name} (noise)",
        scale=alt.Scale(scheme=alt.SchemeParams(name="plasma", extent=[0.2, 0.85])),
        legend=alt.Legend(
            orient="top",
            labelExpr=legend_labels(view.level),
            columns=3,
            symbolType="circle",
            symbolOpacity=1,
        ),
    )
    curves = canvas.chart("cumulative").encode(x=x, color=color)
    line = canvas.chart("chance").encode(y=alt.Y("accuracy:Q", title="accuracy, %"))
    chart = layered(
        line.mark_rule(strokeDash=[4, 4]),
        line.mark_text(align="left", dx=4, dy=9, x=0).encode(text="said:N"),
        curves.mark_area(opacity=0.1).encode(y=alt.Y("low:Q", title="accuracy, %"), y2="high:Q"),
        curves.mark_line(strokeWidth=2).encode(y=y),
        curves.mark_point(size=max(6, min(30, 1200 // layers)), filled=True, opacity=1).encode(
            y=y, tooltip=tips(_TIPS)
        ),
        canvas.chart("reached").mark_point(size=160, strokeWidth=2, filled=False).encode(x=x, y=y, color=color),
        height=300,
    )
    return [chart]


def table(view: View) -> str:
    """A table of the L from which on each curve can't be told from chance; a hint instead where chance isn't known."""
    rows = []
    for fall in falls(view.result, view.metric, view.chance):
        cell = fall.cell
        layer = cell.layer if cell else None
        rows.append(
            [
                tables.noise(view, fall.level),
                tables.number(layer, str(layer)),
                tables.text(view.layers[layer].name if layer else "not reached"),
                f"<td>{escape(said_accuracy(view.accuracy(cell)) if cell else '–')}</td>",
                tables.number(fall.above, str(fall.above)),
                tables.number(fall.below, str(fall.below)),
            ]
        )
    if not rows or view.chance is None:
        return "<p class=hint>The run file does not say how many classes there are, so chance is not shown.</p>"
    headings = [
        f"{view.level.name}<small>noise</small>",
        "from L",
        "layer L",
        "accuracy there",
        "last L surely above",
        "surely below twice it from L",
    ]
    caption = f"From which L on accuracy can't be told from chance, {100 * view.chance:g} %"
    hint = "Surely: by the whole 95 % interval. Few draws make it wide, so that the last two columns lie far apart."
    return tables.table(caption, headings, rows) + f"<p class=hint>{hint}</p>"


FIGURE = OfOneRun(
    title="Noise in layers 1 to L",
    note="bands: 95 % intervals; rings: from here on accuracy can't be told from chance",
    rows={"cumulative": means, "reached": reached, "chance": chance},
    charts=charts,
    slot="wide",
    table=table,
)
