"""Figures of runs: charts with their titles and data, arranged for one image or taken apart by the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import altair as alt

from onnxnoise.reports import chartdata
from onnxnoise.reports import style as charts
from onnxnoise.reports.chartdata import Row
from onnxnoise.reports.views import METRIC_TITLES, View
from onnxnoise.text import noise_percent, noise_text, shortened

Spec: TypeAlias = dict[str, Any]
_NOTES = {
    "all": "bars: 95 % intervals, for other draws and other images like these; small dots: single draws",
    "average": "bars: 95 % intervals, for other draws and other images like these",
    "heatmap": "▲ noise made a batch norm's variance negative; ✕ outputs were not finite (in some draw)",
    "curve": "band: 95 % interval; small dots: single draws",
    "profile": "faint lines: single draws; dots: their mean; ▲ and ✕ as on the heat map",
    "cumulative": "bands: 95 % intervals; rings: from here on accuracy can't be told from chance",
}
FIGURES = ("all", "average", "heatmap", "profile", "cumulative")
_PANEL, _HEAT, _WIDE = 360, 330, 760


@dataclass(frozen=True)
class Figure:
    """Charts that belong together; `name` is one of FIGURES or `curve`, `run` the position of the one run it shows,
    `note` what its marks mean.
    """

    name: str
    title: str
    note: str
    panels: tuple[Spec, ...]
    run: int | None = None


def datasets(found: Sequence[View]) -> dict[str, list[Row]]:
    """All rows that figures of these runs draw, by the name under which their charts ask for them."""
    named = {
        "whole": chartdata.whole(found),
        "whole-draws": chartdata.whole_draws(found),
        "averages": chartdata.averages(found),
    }
    for i, view in enumerate(found):
        named |= {
            f"single-{i}": chartdata.single(view),
            f"draws-{i}": chartdata.draws(view),
            f"cumulative-{i}": chartdata.cumulative(view),
            f"reached-{i}": chartdata.reached(view),
            f"chance-{i}": chartdata.chance(view),
        }
    return named


def figures(found: Sequence[View], *, selectable: bool = False) -> list[Figure]:
    """All figures that the runs have cells for; selectable ones come with the curve of the chosen layer."""
    made: list[Figure] = []
    axis = _axis(found)
    if any(view.cells("all") for view in found):
        panels = tuple(
            charts.all_layers("whole", "whole-draws", axis, normalized=each, top=top)
            for each, top in ((False, 100.0), (True, _top(found)))
        )
        made.append(_figure("all", "All layers noisy together", panels))
    if any(view.result.a_avr for view in found):
        panels = (charts.average("averages", axis), charts.loss("averages", axis))
        made.append(_figure("average", "A_avr: one noisy layer at a time, mean over the layers", panels))
    for i, view in enumerate(found):
        made += _of_one(i, view, selectable=selectable)
    return made


def _figure(name: str, title: str, panels: Sequence[alt.LayerChart], run: int | None = None) -> Figure:
    """The charts as plain specifications: Altair's own concatenation copies them many times over, which takes seconds."""
    own = ("$schema", "config")
    specs = [{key: part for key, part in panel.to_dict(validate=False).items() if key not in own} for panel in panels]
    return Figure(name, title, _NOTES[name], tuple(specs), run)


def _top(found: Sequence[View]) -> float:
    """Where the axis of accuracy / clean ends: above every draw, not above every interval."""
    return max([1.1, *(1.05 * (row["normalized"] or 0.0) for row in chartdata.whole_draws(found))])


def _axis(found: Sequence[View]) -> charts.Axis:
    noises = sorted({noise_percent(snr) for view in found for snr in view.snrs} - {0.0})
    return charts.Axis(tuple(view.label for view in found), tuple(noises))


def _of_one(i: int, view: View, *, selectable: bool) -> list[Figure]:
    made = []
    last = max(view.layers, default=1)
    if view.cells("single"):
        noisy = len({cell.layer for cell in view.cells("single")})
        heat = charts.heat_map(f"single-{i}", noisy, selectable=selectable)
        made.append(_figure("heatmap", "One noisy layer at a time", (heat,), i))
        if selectable:
            curve = charts.layer_curve(f"single-{i}", f"draws-{i}", _axis([view]))
            made.append(_figure("curve", "One layer", (curve,), i))
        present = {view.layers[cell.layer or 0].kind for cell in view.cells("single")}
        kinds = [kind for kind in charts.KINDS if kind in present]
        panels = tuple(
            charts.profile(f"single-{i}", f"draws-{i}", noise_percent(snr), noise_text(snr), last, kinds, legend=k == 0)
            for k, snr in enumerate(snr for snr in view.snrs if view.cells("single", snr))
        )
        made.append(_figure("profile", "Layer by layer, every draw", panels, i))
    if view.cells("cumulative"):
        panel = charts.cumulative(f"cumulative-{i}", f"reached-{i}", f"chance-{i}", last)
        made.append(_figure("cumulative", "Noise in layers 1 to L", (panel,), i))
    return made


def image(found: Sequence[View], names: Sequence[str]) -> Spec:
    """One Vega-Lite specification with the named figures, light, under a title that says what the noise means."""
    chosen = [_titled(found, figure) for figure in figures(found) if figure.name in names]
    heads = [figure for figure in chosen if figure.run is None]
    tall = [_arranged(figure, "vconcat", _HEAT) for figure in chosen if figure.name == "heatmap"]
    rows = []
    if len(found) == 1 and tall and heads:  # the heat map is tall, its neighbour has two charts one above the other
        tall.append(_arranged(heads.pop(0), "vconcat", _PANEL))
    rows += [_concat("hconcat", tall)] if len(found) == 1 and tall else []
    rows += [_arranged(figure, "hconcat", _PANEL) for figure in heads]
    rows += [_concat("hconcat", tall)] if len(found) > 1 and tall else []
    rows += [_arranged(figure, "vconcat", _WIDE) for figure in chosen if figure.name in ("profile", "cumulative")]
    return {
        "$schema": alt.SCHEMA_URL,
        "title": {
            "text": f"Accuracy under weight noise: {', '.join(view.label for view in found)}",
            "subtitle": [about(view) for view in found],
            "fontSize": 15,
            "offset": 12,
        },
        **_concat("vconcat", rows),
        "padding": 16,
        "background": "white",
        "config": {**charts.config(dark=False), "aria": False},
        "datasets": datasets(found),
    }


def _titled(found: Sequence[View], figure: Figure) -> Figure:
    """With the run's label, where the image has several."""
    if figure.run is None or len(found) == 1:
        return figure
    return replace(figure, title=f"{found[figure.run].label}: {figure.title[:1].lower()}{figure.title[1:]}")


def _arranged(figure: Figure, how: Literal["hconcat", "vconcat"], width: int) -> Spec:
    panels = [{**_still(panel), "width": width} for panel in figure.panels]
    return {
        **_concat(how, panels),
        "title": {"text": figure.title, "subtitle": figure.note.split("; "), "fontSize": 13},
    }


def _still(panel: Spec) -> Spec:
    """Without tooltips, which an image can't show and an SVG would hold as text."""
    return {
        **panel,
        "layer": [
            {
                **layer,
                "encoding": {channel: each for channel, each in layer["encoding"].items() if channel != "tooltip"},
            }
            for layer in panel["layer"]
        ],
    }


def _concat(how: Literal["hconcat", "vconcat"], panels: Sequence[Spec]) -> Spec:
    """Side by side or one above the other, each with legends of its own."""
    apart = dict.fromkeys(("color", "shape"), "independent")
    return {how: list(panels), "spacing": 40 if how == "hconcat" else 24, "resolve": {"scale": apart, "legend": apart}}


def about(view: View) -> str:
    """What a run's figures stand for, on one line."""
    result = view.result
    draws = sorted({len(cell.draws) for cell in result.cells})
    counts = " and ".join(str(number) for number in draws) or "no"
    return (
        f"{view.label}: sigma per {result.sigma_scope}; batch norms: {result.bn}; {METRIC_TITLES[view.metric]}, clean "
        f"{view.clean:.2%} on {result.clean.images:,} images of {shortened(str(result.dataset['name']), 40)}; "
        f"{counts} draw{'' if draws == [1] else 's'}"
    )
