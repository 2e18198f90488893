"""A_avr, the mean over the layers of accuracy / clean with noise in one: over noise, and its loss as bars (Fig. 6 to 10)."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from onnxnoise.records import Estimate
from onnxnoise.reports import tables
from onnxnoise.reports.chartdata import Datum, beside, ends, said, scaled
from onnxnoise.reports.figures.base import Canvas, OfAllRuns
from onnxnoise.reports.style import Axis, layered, tips
from onnxnoise.reports.views import View

_TIPS = (("run:N", "run"), ("at:N", "noise"), ("said:N", "A_avr"), ("layers:Q", "layers"), ("draws:Q", "draws"))


def averages(found: Sequence[View]) -> list[Datum]:
    """A row for each run and level: A_avr and 100 - A_avr, in percent of the clean accuracy."""
    rows: list[Datum] = []
    for view, place in beside(found):
        for average in view.result.a_avr:
            estimate = view.average(average)
            if estimate is None:
                continue
            low, high = (scaled(end, 100) for end in ends(estimate))
            percent = view.level.percent(average.level)
            rows.append(
                {
                    "run": view.label,
                    "noise": percent,
                    "place": place(percent),
                    "at": view.level.long_text(average.level),
                    "a_avr": 100 * estimate.mean,
                    "low": low,
                    "high": high,
                    "loss": 100 - 100 * estimate.mean,
                    "loss_low": None if high is None else 100 - high,
                    "loss_high": None if low is None else 100 - low,
                    "said": said(estimate),
                    "layers": average.layers,
                    "draws": len(view.cells("single", average.level)[0].draws),
                }
            )
    return sorted(rows, key=lambda row: row["noise"])


def charts(found: Sequence[View], canvas: Canvas) -> list[alt.LayerChart]:
    """Two charts: A_avr as curves, and 100 - A_avr as bars."""
    if not any(view.result.a_avr for view in found):
        return []
    axis = Axis.of(found)
    return [_curves(canvas, axis), _bars(canvas, axis)]


def _curves(canvas: Canvas, axis: Axis) -> alt.LayerChart:
    curves = canvas.chart("averages").encode(x=axis.noise(clean=False), color=axis.color())
    y = alt.Y("a_avr:Q", title="A_avr, %", scale=alt.Scale(zero=False, nice=True))
    return layered(
        curves.mark_rule(strokeWidth=1.5, opacity=0.8).encode(y=alt.Y("low:Q", title="A_avr, %"), y2="high:Q"),
        curves.mark_line(strokeWidth=2).encode(y=y),
        curves.mark_point(size=60, filled=True, opacity=1).encode(y=y, shape=axis.shape(), tooltip=tips(_TIPS)),
        height=260,
    )


def _bars(canvas: Canvas, axis: Axis) -> alt.LayerChart:
    """A chart of 100 - A_avr, in which the runs' bars stand side by side at each noise."""
    offset = alt.XOffset("run:N", sort=list(axis.runs))
    bars = canvas.chart("averages").encode(x=axis.noise_band(), xOffset=offset)
    return layered(
        bars.mark_bar().encode(y=alt.Y("loss:Q", title="100 - A_avr, %"), color=axis.color(), tooltip=tips(_TIPS)),
        bars.mark_rule(strokeWidth=1.5).encode(y=alt.Y("loss_low:Q", title="100 - A_avr, %"), y2="loss_high:Q"),
        height=260,
    )


def table(found: Sequence[View]) -> str:
    """A table of A_avr and 100 - A_avr in percent, by run and level."""

    def kept(view: View, level: float) -> str:
        return tables.share(_estimate(view, level), 100)

    def lost(view: View, level: float) -> str:
        estimate = _estimate(view, level)
        return tables.number(
            None if estimate is None else 1 - estimate.mean,
            "" if estimate is None else f"{100 - 100 * estimate.mean:.2f}",
        )

    headings = tables.level_headings(found)
    return tables.table(
        "A_avr, % of clean accuracy [95 % interval]", headings, tables.by_level(found, kept)
    ) + tables.table("100 - A_avr, %", headings, tables.by_level(found, lost))


def _estimate(view: View, level: float) -> Estimate | None:
    return next((view.average(each) for each in view.result.a_avr if each.level == level), None)


FIGURE = OfAllRuns(
    title="A_avr: one noisy layer at a time, mean over the layers",
    note="bars: 95 % intervals, for other draws and other images like these",
    rows={"averages": averages},
    charts=charts,
    slot="row",
    table=table,
)
