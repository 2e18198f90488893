"""The looks that all figures of a report share: palette, axes, legends and the configuration of both themes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from onnxnoise.noise.base import Level
from onnxnoise.noise.times import UNITS
from onnxnoise.reports.views import View, level_of

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
HEAT_COLORS_DARK = (
    "#5b2bb0",
    "#86359f",
    "#a9408f",
    "#d0477a",
    "#fc8961",
    "#fec98d",
    "#fcfdbf",
)  # lighter at the worst end

NORMALIZED = "accuracy / clean"
LAYER_TIPS = (
    ("layer:Q", "layer"),
    ("name:N", "name"),
    ("kind:N", "kind"),
    ("parameters:N", "parameters"),
    ("at:N", "noise"),
    ("said:N", NORMALIZED),
    ("said_accuracy:N", "accuracy"),
    ("draws:Q", "draws"),
    ("broken:N", "broken"),
)
"""The tooltip of a mark that stands for noise in one layer: fields of `chartdata.single` with their titles."""

_LEGEND_LETTERS = 60


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


def _axis_title(level: Level) -> str:
    if level.time:
        return f"{level.name}, {level.definition}, on a logarithmic scale"
    return f"{level.name}, and noise in % of {level.reference}"


_TIME = " : ".join(
    [
        f"datum.value >= {size} ? format(datum.value / {size}, '.3~g') + '{unit}'"
        for unit, size in reversed(UNITS.items())
    ]
    + ["format(datum.value, '.3~g') + 's'"]
)
"""A Vega expression that writes a time in seconds, `datum.value`, in its largest unit."""


def _axis_labels(level: Level) -> str:
    """A Vega expression that writes a label of two lines, level and percent, from `datum.value`, the noise in percent."""
    if level.time:
        return f"datum.value == 0 ? 'clean' : {_TIME}"
    number = f"format({level.inverse.replace('p', 'datum.value')}, '.3~g')"
    return f"datum.value == 0 ? ['clean', '0 %'] : [{number}, format(datum.value, '.3~g') + ' %']"


def legend_labels(level: Level) -> str:
    """A Vega expression that writes level and percent on one line from `datum.value`, the noise in percent."""
    if level.time:
        return _TIME
    return f"format({level.inverse.replace('p', 'datum.value')}, '.3~g') + ' (' + format(datum.value, '.3~g') + ' %)'"


@dataclass(frozen=True)
class Axis:
    """The axis that the runs in a figure share: their labels, in order, their level, and the sizes of noise with a tick.

    `noises` are in percent and rise from above 0.
    """

    runs: tuple[str, ...]
    level: Level
    noises: tuple[float, ...]

    @classmethod
    def of(cls, found: Sequence[View]) -> Axis:
        """The axis that these runs share."""
        level = level_of(found)
        noises = sorted({level.percent(each) for view in found for each in view.levels} - {0.0})
        return cls(tuple(view.label for view in found), level, tuple(noises))

    def noise(self, field: str = "place", *, clean: bool = True) -> alt.X:
        """The noise in percent on a square-root scale, a time on a logarithmic one; with `clean`, 0 has a tick too.

        Labels say level and percent.
        """
        values = [0.0, *self.noises] if clean else list(self.noises)
        return alt.X(
            f"{field}:Q",
            title=_axis_title(self.level),
            scale=alt.Scale(type="symlog" if self.level.time else "sqrt", nice=False, zero=True),
            axis=alt.Axis(
                values=values,
                labelExpr=_axis_labels(self.level),
                grid=False,
                labelOverlap="greedy",
                labelFlush=False,
            ),
        )

    def noise_band(self, *, above: bool = False) -> alt.X:
        """The noise as one band a level, for bars and cells; labels stand below the chart, or `above` it."""
        orient, padding = ("top", 16) if above else ("bottom", 3)  # labels of two lines grow downward
        axis: dict[str, Any] = {"labelAngle": 0, "orient": orient, "labelPadding": padding, "ticks": False}
        axis |= {"domain": False, "labelExpr": _axis_labels(self.level), "labelOverlap": False}
        return alt.X("noise:O", title=_axis_title(self.level), axis=alt.Axis(**axis))

    def color(self) -> alt.Color:
        """A color for each run, with a legend where there are several."""
        return alt.Color(
            "run:N",
            title=None,
            scale=scale(self.runs, RUN_COLORS),
            legend=legend(self.runs, wanted=len(self.runs) > 1),
        )

    def shape(self) -> alt.Shape:
        """A shape for each run, with a legend where there are several."""
        return alt.Shape(
            "run:N",
            title=None,
            scale=scale(self.runs, RUN_SHAPES),
            legend=legend(self.runs, wanted=len(self.runs) > 1),
        )


def layered(*layers: alt.Chart, **properties: Any) -> alt.LayerChart:
    """Charts drawn over each other, the first one at the bottom."""
    return alt.LayerChart(layer=list(layers), **properties)


def with_layer(chart: alt.LayerChart) -> alt.LayerChart:
    """The chart with the parameter `layer`, which the page sets to the layer that the reader chose."""
    chosen = alt.param(name="layer", value=1)
    return chart.add_params(chosen)


def layer_axis(title: str, layers: int) -> alt.X:
    """The indices of noise layers, 1 to `layers`, from left to right."""
    domain = alt.Scale(domain=[0, layers + 1], nice=False)
    return alt.X("layer:Q", title=title, scale=domain, axis=alt.Axis(grid=False, tickMinStep=1))


def scale(domain: Sequence[str], values: Sequence[str]) -> alt.Scale:
    """A scale that gives each word of `domain` a color or shape of its own, as long as there are `values`."""
    return alt.Scale(domain=list(domain), range=[values[i % len(values)] for i in range(len(domain))])


def for_kinds(kinds: Sequence[str], values: Sequence[str]) -> list[str]:
    """The colors or shapes of layer kinds; a kind looks the same in every figure."""
    return [values[KINDS.index(kind) % len(values)] for kind in kinds]


def legend(labels: Sequence[str], *, wanted: bool) -> alt.Legend | None:
    """A legend above the chart, in as many columns as labels of this length leave room for."""
    columns = max(1, _LEGEND_LETTERS // (max(map(len, labels), default=0) + 4))
    return alt.Legend(orient="top", columns=columns, symbolOpacity=1, labelLimit=0) if wanted else None


def tips(fields: Sequence[tuple[str, str]]) -> list[alt.Tooltip]:
    """A tooltip of these fields, each with its title."""
    return [alt.Tooltip(field, title=title) for field, title in fields]
