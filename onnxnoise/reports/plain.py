"""A report as plain text and tables, which Markdown and LaTeX are written from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnxnoise.noise.models import headline
from onnxnoise.records import Cell, Estimate
from onnxnoise.reports.answer import answer
from onnxnoise.reports.ranked import HEADINGS, Ranking
from onnxnoise.reports.views import METRIC_TITLES, View, level_of
from onnxnoise.results.falls import REACHED, cumulative, reached
from onnxnoise.results.yields import yield_of
from onnxnoise.text import among, counted, ranged

_LAYERS = 15
"""The most layers of one run in a table, the least robust first."""


@dataclass(frozen=True)
class PlainTable:
    """A table of texts; the first `left` columns are names, the others numbers."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1


@dataclass(frozen=True)
class Document:
    """A report's title, its lines on the noise, the answer, the tables, and what must be read with them."""

    title: str
    policies: tuple[str, ...]
    answer: tuple[str, ...]
    tables: tuple[PlainTable, ...]
    notes: tuple[str, ...]


def document(found: Sequence[View], ranking: Ranking | None) -> Document:
    """The plain report of these runs, with their ranking first where there is one."""
    said = [answer(view) for view in found]
    notes = [f"{view.label}: {text}" for view in found if (text := yield_of(view.result))]
    notes += [f"{view.label}: {notice.message}" for view in found for notice in view.result.warnings]
    if ranking is not None:
        said = [f"Not ranked: {ranking.refused}"] * (ranking.refused is not None) + [
            *ranking.leaders,
            *ranking.crossings,
            *said,
        ]
        notes = [*ranking.notes, *notes]
    return Document(
        title=f"Weight noise: {', '.join(view.label for view in found)}",
        policies=tuple(dict.fromkeys(headline(view.result.noise) for view in found)),
        answer=tuple(each for each in said if each),
        tables=(*_ranking(ranking), *_tables(found)),
        notes=("[low, high]: 95 % interval, for other draws and other images like these", *dict.fromkeys(notes)),
    )


def _ranking(ranking: Ranking | None) -> Iterator[PlainTable]:
    for title, rows in ranking.tables if ranking else ():
        texts = tuple((row.level, row.run, row.rank, row.accuracy, row.normalized) for row in rows)
        yield PlainTable(title, ("noise", *HEADINGS), texts, left=2)


def _tables(found: Sequence[View]) -> Iterator[PlainTable]:
    yield PlainTable(
        "Runs",
        ("model", "clean", "metric", "layers", "parameters", "data", "images", "draws"),
        tuple(map(_run, found)),
    )
    whole = [
        (view.label, *_at(view, value), _accuracy(view, cell), _ratio(view.normalized(cell)))
        for view in found
        for value in view.levels
        for cell in view.cells("all", value)
    ]
    if whole:
        name = level_of(found).name
        headings = ("model", name, "noise", "accuracy", "accuracy / clean")
        yield PlainTable("All layers noisy together", headings, tuple(whole))
    averages = [
        (view.label, *_at(view, each.level), _ratio(view.average(each)), str(each.layers))
        for view in found
        for each in view.result.a_avr
    ]
    if averages:
        headings = ("model", level_of(found).name, "noise", "A_avr", "layers")
        yield PlainTable("A_avr: one noisy layer at a time, mean over the layers", headings, tuple(averages))
    for view in found:
        yield from _layers(view)
        yield from _depths(view)


def _run(view: View) -> tuple[str, ...]:
    result = view.result
    draws = sorted({len(cell.draws) for cell in result.cells})
    parameters = sum(layer.parameters for layer in view.layers.values())
    return (
        view.label,
        f"{view.clean:.2%}",
        METRIC_TITLES[view.metric],
        str(len(result.selected)),
        f"{parameters:,}",
        str(result.dataset["name"]),
        f"{result.clean.images:,}",
        among(draws),
    )


def _layers(view: View) -> Iterator[PlainTable]:
    cells = {(cell.layer, cell.level): cell for cell in view.cells("single")}
    levels = [value for value in view.levels if view.cells("single", value)]
    ranked = sorted({layer or 0 for layer, _ in cells}, key=lambda k: (view.means.get(k, 2.0), k))
    if not ranked:
        return
    rows = tuple(
        (str(k), view.layers[k].name, view.layers[k].kind, *(_mean(view, cells.get((k, value))) for value in levels))
        for k in ranked[:_LAYERS]
    )
    many = counted(len(ranked), "layer")
    title = f"{view.label}: accuracy / clean with noise in one layer, the least robust of {many}"
    yield PlainTable(title, ("layer", "name", "kind", *map(view.level.text, levels)), rows, left=3)


def _depths(view: View) -> Iterator[PlainTable]:
    rows = tuple(
        (*_at(view, value), *reached(view.result, view.metric, cells), _mean(view, cells[-1]))
        for value in view.levels
        if (cells := cumulative(view.result, value))
    )
    if rows:
        title = f"{view.label}: noise in layers 1 to L, the first L at which accuracy / clean has fallen"
        yield PlainTable(title, (view.level.name, "noise", *REACHED, "at the last L"), rows, left=0)


def _at(view: View, value: float) -> tuple[str, str]:
    return view.level.number(value), view.level.size_text(value)


def _mean(view: View, cell: Cell | None) -> str:
    estimate = None if cell is None else view.normalized(cell)
    return "-" if estimate is None else f"{estimate.mean:.3f}"


def _accuracy(view: View, cell: Cell) -> str:
    estimate = view.accuracy(cell)
    return "-" if estimate is None else f"{estimate.mean:.2%}"


def _ratio(estimate: Estimate | None) -> str:
    return "-" if estimate is None else ranged(estimate.mean, estimate.sampled)
