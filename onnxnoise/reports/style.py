"""The figures of a report: Altair charts that page, PNG and SVG share, over data sets by name as chartdata.py makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from onnxnoise.reports.chartdata import LEVELS

# Okabe and Ito's palette, told apart with any colour vision, but for black and yellow, which one of the two themes hides;
# shapes say the same once more.
RUN_COLORS = (
    "#2A86C8",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#8C6BB1",
    "#7F7F7F",
    "#A6761D",
    "#17BECF",
)
RUN_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
KINDS = ("conv", "dense", "batchnorm", "norm", "recurrent", "embedding", "scale", "parameter")
KIND_COLORS = ("#2A86C8", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#7F7F7F")
KIND_SHAPES = (
    "circle",
    "diamond",
    "triangle-up",
    "square",
    "cross",
    "triangle-down",
    "triangle-right",
    "triangle-left",
)
HEAT_COLORS = ("#1d1147", "#51127c", "#832681", "#c83e73", "#fc8961", "#fec98d", "#fcfdbf")  # magma, worst first
HEAT_COLORS_DARK = ("#fcfdbf", "#fec98d", "#fc8961", "#d8456c", "#9b2e8a", "#5f1f86", "#2b2350")
ROW_HEIGHT = 15
PROFILE_HEIGHT = 120

_ROW_LABEL = 210
_LEGEND_LETTERS = 60
_NORMALIZED = "accuracy / clean"
_NOISE_TITLE = "SNR, and noise in % of sigma_w"
_NOISE_LABEL = (
    "datum.value == 0 ? ['clean', '0 %'] : [format(100 / datum.value, '.3~g'), format(datum.value, '.3~g') + ' %']"
)
_NOISE_WORDS = "format(100 / datum.value, '.3~g') + ' (' + format(datum.value, '.3~g') + ' %)'"
_WHOLE_TIPS = (
    ("run:N", "run"),
    ("at:N", "noise"),
    ("said_accuracy:N", "accuracy"),
    ("said:N", _NORMALIZED),
    ("draws:Q", "draws"),
)
_AVERAGE_TIPS = (("run:N", "run"), ("at:N", "noise"), ("said:N", "A_avr"), ("layers:Q", "layers"), ("draws:Q", "draws"))
_LAYER_TIPS = (
    ("layer:Q", "layer"),
    ("name:N", "name"),
    ("kind:N", "kind"),
    ("parameters:N", "parameters"),
    ("at:N", "noise"),
    ("said:N", _NORMALIZED),
    ("said_accuracy:N", "accuracy"),
    ("draws:Q", "draws"),
    ("broken:N", "broken"),
)
_CUMULATIVE_TIPS = (
    ("layer:Q", "L"),
    ("name:N", "layer L"),
    ("at:N", "noise"),
    ("said_accuracy:N", "accuracy"),
    ("draws:Q", "draws"),
)


def config(*, dark: bool) -> dict[str, Any]:
    """Vega-Lite's config: ink and lines of one theme, the same sizes in both."""
    ink, faint, line = ("#e4e6eb", "#a8adb8", "#3a3f4a") if dark else ("#1c1e21", "#5c6370", "#dcdfe4")
    font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
    sizes = {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal"}
    lines = {"gridColor": line, "domainColor": faint, "tickColor": faint}
    return {
        "font": font,
        "view": {"stroke": None},
        "axis": {"labelColor": faint, "titleColor": ink, "titlePadding": 6, **sizes, **lines},
        "title": {"color": ink, "fontSize": 12, "fontWeight": 600, "anchor": "start", "subtitleColor": faint},
        "legend": {"labelColor": ink, "titleColor": ink, "labelLimit": 220, "titleLimit": 400, **sizes},
        "range": {"heatmap": list(HEAT_COLORS_DARK if dark else HEAT_COLORS)},
        "mark": {"color": "#56B4E9" if dark else "#0072B2"},
        "text": {"color": ink},
        "rule": {"color": faint},
    }


@dataclass(frozen=True)
class Axis:
    """What the runs in a figure share: their labels, in order, and the noises in percent that have a tick, rising."""

    runs: tuple[str, ...]
    noises: tuple[float, ...]

    def noise(self, field: str = "place", *, clean: bool = True) -> alt.X:
        """Noise in percent on a square-root scale, where no noise (`clean`) has a tick too; labels say SNR and percent."""
        values = [0.0, *self.noises] if clean else list(self.noises)
        return alt.X(
            f"{field}:Q",
            title=_NOISE_TITLE,
            scale=alt.Scale(type="sqrt", nice=False, zero=True),
            axis=alt.Axis(values=values, labelExpr=_NOISE_LABEL, grid=False, labelOverlap="greedy", labelFlush=False),
        )

    def color(self) -> alt.Color:
        return alt.Color(
            "run:N",
            title=None,
            scale=_scale(self.runs, RUN_COLORS),
            legend=_legend(self.runs, wanted=len(self.runs) > 1),
        )

    def shape(self) -> alt.Shape:
        return alt.Shape(
            "run:N",
            title=None,
            scale=_scale(self.runs, RUN_SHAPES),
            legend=_legend(self.runs, wanted=len(self.runs) > 1),
        )


def all_layers(data: str, draws: str, axis: Axis, *, normalized: bool, top: float) -> alt.LayerChart:
    """Accuracy with noise in all layers over noise, a curve a run (Fig. 2, Table III); small dots are single draws.

    The axis ends at `top`, where a wider interval is cut off.
    """
    value, title = ("normalized", _NORMALIZED) if normalized else ("accuracy", "accuracy, %")
    scale = alt.Scale(domain=[0, top], nice=False)
    y, low = (alt.Y(f"{field}:Q", title=title, scale=scale) for field in (value, f"{value}_low"))
    curves = _chart(data).encode(x=axis.noise(), color=axis.color())
    return _layered(
        curves.mark_rule(strokeWidth=1.5, opacity=0.8, clip=True).encode(y=low, y2=f"{value}_high:Q"),
        _chart(draws).mark_point(size=14, filled=True, opacity=0.4).encode(x=axis.noise(), y=y, color=axis.color()),
        curves.mark_line(strokeWidth=2).encode(y=y),
        curves.mark_point(size=60, filled=True, opacity=1).encode(y=y, shape=axis.shape(), tooltip=_tips(_WHOLE_TIPS)),
        height=260,
    )


def average(data: str, axis: Axis) -> alt.LayerChart:
    """A_avr over noise, a curve a run (Fig. 6 to 10)."""
    curves = _chart(data).encode(x=axis.noise(clean=False), color=axis.color())
    y = alt.Y("a_avr:Q", title="A_avr, %", scale=alt.Scale(zero=False, nice=True))
    return _layered(
        curves.mark_rule(strokeWidth=1.5, opacity=0.8).encode(y=alt.Y("low:Q", title="A_avr, %"), y2="high:Q"),
        curves.mark_line(strokeWidth=2).encode(y=y),
        curves.mark_point(size=60, filled=True, opacity=1).encode(
            y=y, shape=axis.shape(), tooltip=_tips(_AVERAGE_TIPS)
        ),
        height=260,
    )


def loss(data: str, axis: Axis) -> alt.LayerChart:
    """100 - A_avr, bars side by side for the runs at each noise (Fig. 6 to 10)."""
    offset = alt.XOffset("run:N", sort=list(axis.runs))
    bars = _chart(data).encode(x=_noise_band(), xOffset=offset)
    return _layered(
        bars.mark_bar().encode(
            y=alt.Y("loss:Q", title="100 - A_avr, %"), color=axis.color(), tooltip=_tips(_AVERAGE_TIPS)
        ),
        bars.mark_rule(strokeWidth=1.5).encode(y=alt.Y("loss_low:Q", title="100 - A_avr, %"), y2="loss_high:Q"),
        height=260,
    )


def heat_map(data: str, layers: int, *, selectable: bool) -> alt.LayerChart:
    """Accuracy / clean with noise in one layer, layers down and noise across; marks where noise broke the arithmetic.

    A selectable one has the parameter `layer`, whose row is framed.
    """
    y = alt.Y(
        "row:N",
        title="noise layer",
        sort=alt.EncodingSortField("layer", op="min", order="ascending"),
        axis=alt.Axis(ticks=False, domain=False, labelPadding=4, labelLimit=_ROW_LABEL, labelOverlap=False),
        scale=alt.Scale(paddingInner=0.06),
    )
    cells = _chart(data).encode(x=_noise_band(above=True), y=y)
    color = alt.Color(
        "level:N",
        title=f"{_NORMALIZED}, mean of draws",
        scale=alt.Scale(domain=list(LEVELS), range="heatmap"),
        legend=alt.Legend(orient="top", symbolType="square", symbolSize=120, columns=4, symbolOpacity=1),
    )
    rects = cells.mark_rect(cursor="pointer" if selectable else "default").encode(
        color=color, tooltip=_tips(_LAYER_TIPS)
    )
    mark: dict[str, Any] = {"filled": True, "size": 34, "color": "white", "stroke": "black", "strokeWidth": 0.8}
    shown = [
        rects,
        cells.mark_point(shape="triangle-up", xOffset=-7, **mark).transform_filter("datum.negative > 0"),
        cells.mark_point(shape="cross", angle=45, xOffset=7, **mark).transform_filter("datum.nonfinite > 0"),
    ]
    if selectable:
        frame = cells.mark_rect(filled=False, strokeWidth=2).transform_filter("datum.layer === layer")
        shown.append(frame)
    chart: alt.LayerChart = _layered(*shown, height=ROW_HEIGHT * layers)
    return _with_layer(chart) if selectable else chart


def layer_curve(data: str, draws: str, axis: Axis) -> alt.LayerChart:
    """Accuracy / clean over the noise in one layer, which the parameter `layer` chooses; small dots are single draws."""
    chosen = "datum.layer === layer"
    cells = _chart(data).transform_filter(chosen).encode(x=axis.noise("noise", clean=False))
    y = alt.Y("value:Q", title=_NORMALIZED, scale=alt.Scale(zero=True, nice=True))
    chart: alt.LayerChart = _layered(
        cells.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=_NORMALIZED), y2="high:Q"),
        _chart(draws)
        .transform_filter(chosen)
        .mark_point(size=14, filled=True, opacity=0.5)
        .encode(x=axis.noise("noise", clean=False), y=y),
        cells.mark_line(strokeWidth=2).encode(y=y),
        cells.mark_point(size=60, filled=True, opacity=1).encode(y=y, tooltip=_tips(_LAYER_TIPS)),
        height=200,
    )
    return _with_layer(chart)


def profile(
    data: str, draws: str, noise: float, at: str, layers: int, kinds: Sequence[str], *, legend: bool
) -> alt.LayerChart:
    """Accuracy / clean of every layer at one noise, a faint line a draw (Fig. 3, 4), a dot the mean of its draws."""
    here = alt.FieldEqualPredicate(field="noise", equal=noise)
    x = _layer_axis("noise layer (1 = first)", layers)
    y = alt.Y("value:Q", title=_NORMALIZED, scale=alt.Scale(zero=True, nice=True), axis=alt.Axis(tickCount=4))
    cells = _chart(data).transform_filter(here).encode(x=x)
    color = alt.Color(
        "kind:N", title=None, scale=_scale(kinds, _for_kinds(kinds, KIND_COLORS)), legend=_legend(kinds, wanted=legend)
    )
    shape = alt.Shape(
        "kind:N", title=None, scale=_scale(kinds, _for_kinds(kinds, KIND_SHAPES)), legend=_legend(kinds, wanted=legend)
    )
    marks: dict[str, Any] = {"filled": True, "size": 26, "y": PROFILE_HEIGHT - 4}
    return _layered(
        _chart(draws)
        .transform_filter(here)
        .mark_line(strokeWidth=1, opacity=0.45, color="#8a8f99")
        .encode(x=x, y=y, detail="draw:N"),
        cells.mark_point(size=28, filled=True, opacity=0.95).encode(
            y=y, color=color, shape=shape, tooltip=_tips(_LAYER_TIPS)
        ),
        cells.transform_filter("datum.negative > 0").mark_point(shape="triangle-up", color="#8a8f99", **marks),
        cells.transform_filter("datum.nonfinite > 0").mark_point(shape="cross", angle=45, color="#D55E00", **marks),
        height=PROFILE_HEIGHT,
        title=at,
    )


def cumulative(data: str, reached: str, chance: str, layers: int) -> alt.LayerChart:
    """Accuracy with noise in layers 1 to L, a curve a noise (Fig. 5); dashes at chance, rings where a curve has come to it."""
    x = _layer_axis("L: noise in layers 1 to L", layers)
    y = alt.Y("accuracy:Q", title="accuracy, %", scale=alt.Scale(zero=True, nice=True))
    color = alt.Color(
        "noise:O",
        title="SNR (noise)",
        scale=alt.Scale(scheme=alt.SchemeParams(name="plasma", extent=[0.2, 0.85])),
        legend=alt.Legend(orient="top", labelExpr=_NOISE_WORDS, columns=3, symbolType="circle", symbolOpacity=1),
    )
    curves = _chart(data).encode(x=x, color=color)
    line = _chart(chance).encode(y=alt.Y("accuracy:Q", title="accuracy, %"))
    return _layered(
        line.mark_rule(strokeDash=[4, 4]),
        line.mark_text(align="left", dx=4, dy=9, x=0).encode(text="said:N"),
        curves.mark_area(opacity=0.1).encode(y=alt.Y("low:Q", title="accuracy, %"), y2="high:Q"),
        curves.mark_line(strokeWidth=2).encode(y=y),
        curves.mark_point(size=max(6, min(30, 1200 // layers)), filled=True, opacity=1).encode(
            y=y, tooltip=_tips(_CUMULATIVE_TIPS)
        ),
        _chart(reached).mark_point(size=160, strokeWidth=2, filled=False).encode(x=x, y=y, color=color),
        height=300,
    )


def _layered(*layers: alt.Chart, **properties: Any) -> alt.LayerChart:
    return alt.LayerChart(layer=list(layers), **properties)


def _with_layer(chart: alt.LayerChart) -> alt.LayerChart:
    chosen = alt.param(name="layer", value=1)
    return chart.add_params(chosen)


def _chart(data: str) -> alt.Chart:
    return alt.Chart(alt.NamedData(data))


def _layer_axis(title: str, layers: int) -> alt.X:
    scale = alt.Scale(domain=[0, layers + 1], nice=False)
    return alt.X("layer:Q", title=title, scale=scale, axis=alt.Axis(grid=False, tickMinStep=1))


def _noise_band(*, above: bool = False) -> alt.X:
    orient, padding = ("top", 16) if above else ("bottom", 3)  # labels of two lines grow downward
    axis: dict[str, Any] = {"labelAngle": 0, "orient": orient, "labelPadding": padding, "ticks": False, "domain": False}
    return alt.X("noise:O", title=_NOISE_TITLE, axis=alt.Axis(labelExpr=_NOISE_LABEL, labelOverlap=False, **axis))


def _scale(domain: Sequence[str], values: Sequence[str]) -> alt.Scale:
    return alt.Scale(domain=list(domain), range=[values[i % len(values)] for i in range(len(domain))])


def _for_kinds(kinds: Sequence[str], values: Sequence[str]) -> list[str]:
    """A kind looks the same in every figure."""
    return [values[KINDS.index(kind) % len(values)] for kind in kinds]


def _legend(labels: Sequence[str], *, wanted: bool) -> alt.Legend | None:
    """Above the chart, in as many columns as labels of this length leave room for."""
    columns = max(1, _LEGEND_LETTERS // (max(map(len, labels), default=0) + 4))
    return alt.Legend(orient="top", columns=columns, symbolOpacity=1, labelLimit=0) if wanted else None


def _tips(fields: Sequence[tuple[str, str]]) -> list[alt.Tooltip]:
    return [alt.Tooltip(field, title=title) for field, title in fields]
