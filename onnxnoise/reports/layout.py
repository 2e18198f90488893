"""Figures drawn for given runs: taken apart by the page, or arranged in one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal, TypeAlias

import altair as alt

from onnxnoise.noise.models import terms
from onnxnoise.records import agreement_said
from onnxnoise.reports import style
from onnxnoise.reports.chartdata import Datum
from onnxnoise.reports.figures import NAMES, figure
from onnxnoise.reports.figures.base import AnyFigure, Canvas, OfAllRuns, OfOneRun, dataset
from onnxnoise.reports.views import METRIC_TITLES, View, one_level
from onnxnoise.text import among, shortened

Spec: TypeAlias = dict[str, Any]
Concat = Literal["hconcat", "vconcat"]
_ROW, _COLUMN, _WIDE = 360, 330, 760
"""Widths of a chart in pixels, by the figure's slot."""
_TITLE = 80
"""Characters of runs' labels that an image's title has room for."""


@dataclass(frozen=True)
class Drawing:
    """A figure drawn for runs that have cells for it.

    `key` tells it from all other drawings of a report; `name` is the figure's, or `curve`. `panels` are its charts as
    Vega-Lite specifications. `run` is the position of the one run that it shows, None for all runs.
    """

    key: str
    name: str
    figure: AnyFigure
    panels: tuple[Spec, ...]
    run: int | None
    curve: Drawing | None = None


def drawings(found: Sequence[View], names: Sequence[str] = NAMES, *, selectable: bool = False) -> list[Drawing]:
    """The named figures that the runs have cells for: those of all runs, then each run's, both in the order of the registry.

    With `selectable`, the reader can choose a layer on a figure that has a curve, and the curve comes with it.
    """
    numbers = count()
    chosen = [(name, figure(name)) for name in NAMES if name in names]
    made = []
    together = one_level(found)
    for name, each in chosen:
        if (
            isinstance(each, OfAllRuns)
            and (each.any_noise or together)
            and (charts := each.charts(found, Canvas(None, selectable)))
        ):
            made.append(Drawing(f"{name}-{next(numbers)}", name, each, _specs(charts), None))
    for run, view in enumerate(found):
        canvas = Canvas(run, selectable)
        for name, each in chosen:
            if isinstance(each, OfOneRun) and (charts := each.charts(view, canvas)):
                drawing = Drawing(f"{name}-{next(numbers)}", name, each, _specs(charts), run)
                if selectable and each.curve:
                    specs = _specs(each.curve.charts(view, canvas))
                    curve = Drawing(f"curve-{next(numbers)}", "curve", each.curve, specs, run)
                    drawing = replace(drawing, curve=curve)
                made.append(drawing)
    return made


def _specs(charts: Sequence[alt.LayerChart]) -> tuple[Spec, ...]:
    """The charts as plain specifications: Altair's own concatenation copies them many times over, which takes seconds."""
    own = ("$schema", "config")
    return tuple(
        {key: part for key, part in chart.to_dict(validate=False).items() if key not in own} for chart in charts
    )


def datasets(found: Sequence[View], names: Sequence[str] = NAMES) -> dict[str, list[Datum]]:
    """All rows that the named figures of these runs draw, by the name under which their charts ask for them."""
    chosen = [figure(name) for name in names]
    named: dict[str, list[Datum]] = {}
    for each in chosen:
        if isinstance(each, OfAllRuns) and (each.any_noise or one_level(found)):
            named |= {dataset(name, None): rows(found) for name, rows in each.rows.items()}
    for run, view in enumerate(found):
        shared = {name: rows for each in chosen if isinstance(each, OfOneRun) for name, rows in each.rows.items()}
        named |= {dataset(name, run): rows(view) for name, rows in shared.items()}
    return named


def image(found: Sequence[View], made: Sequence[Drawing]) -> Spec:
    """One Vega-Lite specification with these drawings, light, under a title that says what the noise means."""
    alone = len(found) == 1
    rows = [drawing for drawing in made if drawing.figure.slot == "row"]
    columns = [_arranged(found, each, "vconcat", _COLUMN) for each in made if each.figure.slot == "column"]
    if alone and columns and rows:  # a column is tall, its neighbour has two charts one above the other
        columns.append(_arranged(found, rows.pop(0), "vconcat", _ROW))
    beside = [_concat("hconcat", columns)] if columns else []
    wide = [_arranged(found, each, "vconcat", _WIDE) for each in made if each.figure.slot == "wide"]
    arranged = [_arranged(found, each, "hconcat", _ROW) for each in rows]
    parts = [*beside, *arranged, *wide] if alone else [*arranged, *beside, *wide]
    return {
        "$schema": alt.SCHEMA_URL,
        "title": {
            "text": f"Accuracy under weight noise: {_named(found)}",
            "subtitle": [about(view) for view in found],
            "fontSize": 15,
            "offset": 12,
        },
        **_concat("vconcat", parts),
        "padding": 16,
        "background": "white",
        "config": {**style.config(dark=False), "aria": False},
        "datasets": datasets(found, list(dict.fromkeys(drawing.name for drawing in made))),
    }


def _arranged(found: Sequence[View], drawing: Drawing, how: Concat, width: int) -> Spec:
    panels = [{**_still(panel), "width": width} for panel in drawing.panels]
    subtitle = drawing.figure.note.split("; ")
    return {
        **_concat(how, panels),
        "title": {"text": _title(found, drawing), "subtitle": subtitle, "fontSize": 13},
    }


def _title(found: Sequence[View], drawing: Drawing) -> str:
    """The figure's title, after the run's label where the image has several runs."""
    title = drawing.figure.title
    if drawing.run is None or len(found) == 1:
        return title
    return f"{found[drawing.run].label}: {title[:1].lower()}{title[1:]}"


def _still(panel: Spec) -> Spec:
    """The chart without its tooltips, which an image can't show and an SVG would hold as text."""
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


def _concat(how: Concat, panels: Sequence[Spec]) -> Spec:
    """Charts side by side or one above the other, each with legends of its own."""
    apart = dict.fromkeys(("color", "shape"), "independent")
    return {how: list(panels), "spacing": 40 if how == "hconcat" else 24, "resolve": {"scale": apart, "legend": apart}}


def about(view: View) -> str:
    """A line that says to what a run's figures apply: noise, policy, metric, clean accuracy, images and draws."""
    result = view.result
    draws = sorted({len(cell.draws) for cell in result.cells})
    return (
        f"{view.label}: {terms(result.noise)}; {METRIC_TITLES[view.metric]}, clean "
        f"{view.clean:.2%} on {result.clean.images:,} images of {shortened(str(result.dataset['name']), 40)}; "
        f"{among(draws)} draw{'' if draws == [1] else 's'}{agreement_said(result.dataset)}"
    )


def _named(found: Sequence[View]) -> str:
    """The runs' labels, or their number where the labels, which stand below once more, would not fit on a line."""
    labels = ", ".join(view.label for view in found)
    return labels if len(labels) <= _TITLE else f"{len(found)} runs"
