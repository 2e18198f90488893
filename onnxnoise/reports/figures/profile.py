"""Layer by layer, every draw: accuracy / clean over the layers, a small chart for each noise (Fig. 3, 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from onnxnoise.reports.chartdata import draws, single
from onnxnoise.reports.figures.base import Canvas, OfOneRun
from onnxnoise.reports.style import (
    KIND_COLORS,
    KIND_SHAPES,
    KINDS,
    LAYER_TIPS,
    NORMALIZED,
    for_kinds,
    layer_axis,
    layered,
    legend,
    scale,
    tips,
)
from onnxnoise.reports.views import View

HEIGHT = 120
"""The height of the chart of one noise, pixels."""


def charts(view: View, canvas: Canvas) -> list[alt.LayerChart]:
    """A chart for each level, the least noise first; the first one has the legend."""
    present = {view.layers[cell.layer or 0].kind for cell in view.cells("single")}
    kinds = [kind for kind in KINDS if kind in present]
    levels = [level for level in view.levels if view.cells("single", level)]
    return [_chart(view, canvas, level, kinds, first=level == levels[0]) for level in levels]


def _chart(view: View, canvas: Canvas, level: float, kinds: Sequence[str], *, first: bool) -> alt.LayerChart:
    """A faint line for each draw, and a dot for the mean of the draws of each layer."""
    here = alt.FieldEqualPredicate(field="noise", equal=view.level.percent(level))
    x = layer_axis("noise layer (1 = first)", max(view.layers, default=1))
    y = alt.Y("value:Q", title=NORMALIZED, scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=4))
    cells = canvas.chart("single").transform_filter(here).encode(x=x)
    color = alt.Color(
        "kind:N", title=None, scale=scale(kinds, for_kinds(kinds, KIND_COLORS)), legend=legend(kinds, wanted=first)
    )
    shape = alt.Shape(
        "kind:N", title=None, scale=scale(kinds, for_kinds(kinds, KIND_SHAPES)), legend=legend(kinds, wanted=first)
    )
    marks: dict[str, Any] = {"filled": True, "size": 26, "y": HEIGHT - 4}
    return layered(
        canvas.chart("draws")
        .transform_filter(here)
        .mark_line(strokeWidth=1, opacity=0.45, color="#8a8f99")
        .encode(x=x, y=y, detail="draw:N"),
        cells.mark_point(size=28, filled=True, opacity=0.95).encode(
            y=y, color=color, shape=shape, tooltip=tips(LAYER_TIPS)
        ),
        cells.transform_filter("datum.negative > 0").mark_point(shape="triangle-up", color="#8a8f99", **marks),
        cells.transform_filter("datum.nonfinite > 0").mark_point(shape="cross", angle=45, color="#D55E00", **marks),
        height=HEIGHT,
        title=view.level.long_text(level),
    )


FIGURE = OfOneRun(
    title="Layer by layer, every draw",
    note="faint lines: single draws; dots: their mean; ▲ and ✕ as on the heat map",
    rows={"single": single, "draws": draws},
    charts=charts,
    slot="wide",
)
