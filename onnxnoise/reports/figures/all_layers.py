"""All layers noisy together: accuracy and accuracy / clean over noise, a curve for each run (Fig. 2, Table III)."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from onnxnoise.records import Cell, Estimate
from onnxnoise.reports import tables
from onnxnoise.reports.chartdata import Datum, beside, both_said, ends, noise, scaled
from onnxnoise.reports.figures.base import Canvas, OfAllRuns
from onnxnoise.reports.style import NORMALIZED, Axis, layered, tips
from onnxnoise.reports.views import View

_TIPS = (
    ("run:N", "run"),
    ("at:N", "noise"),
    ("said_accuracy:N", "accuracy"),
    ("said:N", NORMALIZED),
    ("draws:Q", "draws"),
)


def means(found: Sequence[View]) -> list[Datum]:
    """A row for each run and level, and one for the run's clean accuracy at noise 0; accuracies in percent."""
    rows = []
    for view, place in beside(found):
        cells = view.cells("all")
        if cells:
            clean: Datum = {"run": view.label, "noise": 0.0, "place": 0.0, "at": "clean", "said": "1"}
            clean |= {"accuracy": 100 * view.clean, "normalized": 1.0, "said_accuracy": f"{view.clean:.2%}"}
            rows.append(clean)
        rows += [{**_mean(view, cell), "place": place(view.level.percent(cell.level))} for cell in cells]
    return sorted(rows, key=lambda row: row["noise"])


def _mean(view: View, cell: Cell) -> Datum:
    normalized, accuracy = view.normalized(cell), view.accuracy(cell)
    return {
        "run": view.label,
        **noise(view, cell),
        **_range("accuracy", accuracy, 100),
        **_range("normalized", normalized, 1),
        **both_said(normalized, accuracy),
    }


def _range(field: str, estimate: Estimate | None, scale: int) -> Datum:
    low, high = ends(estimate)
    return {
        field: None if estimate is None else scale * estimate.mean,
        f"{field}_low": scaled(low, scale),
        f"{field}_high": scaled(high, scale),
    }


def single_draws(found: Sequence[View]) -> list[Datum]:
    """A row for each run, level and draw; none of chunked runs, whose draws met different images."""
    rows = []
    for view, place in beside(found):
        for cell in view.cells("all") if view.crossed else ():
            at = place(view.level.percent(cell.level))
            for draw in cell.draws:
                accuracy, normalized = view.draw(draw)
                rows.append({"run": view.label, "place": at, "accuracy": 100 * accuracy, "normalized": normalized})
    return rows


def chance(found: Sequence[View]) -> list[Datum]:
    """A row for each chance there is among the runs: as an accuracy in percent, and over their clean accuracies."""
    rows = [
        {"accuracy": 100 * view.chance, "normalized": view.result.normalized_chance}
        for view in found
        if view.chance is not None and view.cells("all")
    ]
    return [row for i, row in enumerate(rows) if row not in rows[:i]]


def charts(found: Sequence[View], canvas: Canvas) -> list[alt.LayerChart]:
    """Two charts: accuracy, and accuracy / clean."""
    if not any(view.cells("all") for view in found):
        return []
    axis = Axis.of(found)
    return [
        _chart(canvas, axis, "accuracy", "accuracy, %", top=100.0),
        _chart(canvas, axis, "normalized", NORMALIZED, top=_top(found)),
    ]


def _top(found: Sequence[View]) -> float:
    """The end of the axis of accuracy / clean: above every draw, but not above every interval."""
    return max([1.1, *(1.05 * (row["normalized"] or 0.0) for row in single_draws(found))])


def _chart(canvas: Canvas, axis: Axis, field: str, title: str, *, top: float) -> alt.LayerChart:
    """The means of `field` with their intervals; the axis ends at `top`, where a wider interval is cut off."""
    scale = alt.Scale(domain=[0, top], nice=False)
    y, low = (alt.Y(f"{each}:Q", title=title, scale=scale) for each in (field, f"{field}_low"))
    curves = canvas.chart("whole").encode(x=axis.noise(), color=axis.color())
    return layered(
        canvas.chart("whole-chance").mark_rule(strokeDash=[4, 4], clip=True).encode(y=y),
        curves.mark_rule(strokeWidth=1.5, opacity=0.8, clip=True).encode(y=low, y2=f"{field}_high:Q"),
        canvas.chart("whole-draws")
        .mark_point(size=14, filled=True, opacity=0.4)
        .encode(x=axis.noise(), y=y, color=axis.color()),
        curves.mark_line(strokeWidth=2).encode(y=y),
        curves.mark_point(size=60, filled=True, opacity=1).encode(y=y, shape=axis.shape(), tooltip=tips(_TIPS)),
        height=260,
    )


def table(found: Sequence[View]) -> str:
    """The paper's Table III: accuracy with all layers noisy, absolute and normalized."""

    def absolute(view: View, level: float) -> str:
        cell = _cell(view, level)
        return tables.share(view.accuracy(cell) if cell else None, 100)

    def normalized(view: View, level: float) -> str:
        cell = _cell(view, level)
        return tables.share(view.normalized(cell) if cell else None)

    run, *headings = tables.level_headings(found)
    without = "clean<small>0 %</small>" if found[0].level.sized else "clean"
    clean = [tables.number(view.clean, f"{100 * view.clean:.1f}") for view in found]
    rows = [
        [label, first, *rest] for (label, *rest), first in zip(tables.by_level(found, absolute), clean, strict=True)
    ]
    return tables.table(
        "All layers noisy: accuracy, % [95 % interval]", [run, without, *headings], rows
    ) + tables.table(
        "All layers noisy: accuracy / clean [95 % interval]", [run, *headings], tables.by_level(found, normalized)
    )


def _cell(view: View, level: float) -> Cell | None:
    return next(iter(view.cells("all", level)), None)


FIGURE = OfAllRuns(
    title="All layers noisy together",
    note="bars: 95 % intervals, for other draws and other images like these; small dots: single draws; "
    "dashes: chance, by always naming the most frequent class",
    rows={"whole": means, "whole-draws": single_draws, "whole-chance": chance},
    charts=charts,
    slot="row",
    table=table,
)
