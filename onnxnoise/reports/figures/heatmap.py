"""One noisy layer at a time: a map of accuracy / clean by layer and noise, and on the page the curve of a chosen layer."""

from __future__ import annotations

from typing import Any

import altair as alt

from onnxnoise.reports.chartdata import BANDS, draws, single
from onnxnoise.reports.figures.base import Canvas, OfOneRun
from onnxnoise.reports.style import LAYER_TIPS, NORMALIZED, Axis, layered, tips, with_layer
from onnxnoise.reports.views import View

ROW_HEIGHT = 15
"""The height of a layer's row, pixels."""

_ROW_LABEL = 210
_ROWS = {"single": single, "draws": draws}


def charts(view: View, canvas: Canvas) -> list[alt.LayerChart]:
    """The map: layers down, noise across, with marks where noise broke the arithmetic.

    On a page it has the parameter `layer`, whose row is framed.
    """
    noisy = len({cell.layer for cell in view.cells("single")})
    if not noisy:
        return []
    y = alt.Y(
        "row:N",
        title="noise layer",
        sort=alt.EncodingSortField("layer", op="min", order="ascending"),
        axis=alt.Axis(ticks=False, domain=False, labelPadding=4, labelLimit=_ROW_LABEL, labelOverlap=False),
        scale=alt.Scale(paddingInner=0.06),
    )
    color = alt.Color(
        "level:N",
        title=f"{NORMALIZED}, mean of draws",
        scale=alt.Scale(domain=list(BANDS), range="heatmap"),
        legend=alt.Legend(orient="top", symbolType="square", symbolSize=120, columns=4, symbolOpacity=1),
    )
    cells = canvas.chart("single").encode(x=Axis.of([view]).noise_band(above=True), y=y)
    mark: dict[str, Any] = {"filled": True, "size": 34, "color": "white", "stroke": "black", "strokeWidth": 0.8}
    shown = [
        cells.mark_rect(cursor="pointer" if canvas.selectable else "default").encode(
            color=color, tooltip=tips(LAYER_TIPS)
        ),
        cells.mark_point(shape="triangle-up", xOffset=-7, **mark).transform_filter("datum.negative > 0"),
        cells.mark_point(shape="cross", angle=45, xOffset=7, **mark).transform_filter("datum.nonfinite > 0"),
    ]
    if canvas.selectable:
        shown.append(cells.mark_rect(filled=False, strokeWidth=2).transform_filter("datum.layer === layer"))
    chart = layered(*shown, height=ROW_HEIGHT * noisy)
    return [with_layer(chart) if canvas.selectable else chart]


def curve(view: View, canvas: Canvas) -> list[alt.LayerChart]:
    """Accuracy / clean over the noise in one layer, which the parameter `layer` chooses; small dots are single draws."""
    chosen = "datum.layer === layer"
    axis = Axis.of([view])
    cells = canvas.chart("single").transform_filter(chosen).encode(x=axis.noise("noise", clean=False))
    y = alt.Y("value:Q", title=NORMALIZED, scale=alt.Scale(zero=True, nice=True))
    chart = layered(
        cells.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=NORMALIZED), y2="high:Q"),
        canvas.chart("draws")
        .transform_filter(chosen)
        .mark_point(size=14, filled=True, opacity=0.5)
        .encode(x=axis.noise("noise", clean=False), y=y),
        cells.mark_line(strokeWidth=2).encode(y=y),
        cells.mark_point(size=60, filled=True, opacity=1).encode(y=y, tooltip=tips(LAYER_TIPS)),
        height=200,
    )
    return [with_layer(chart)]


FIGURE = OfOneRun(
    title="One noisy layer at a time",
    note="▲ noise made a batch norm's variance negative; ✕ outputs were not finite (in some draw)",
    rows=_ROWS,
    charts=charts,
    slot="column",
    curve=OfOneRun(
        title="One layer",
        note="band: 95 % interval; small dots: single draws",
        rows=_ROWS,
        charts=curve,
        slot="column",
    ),
)
