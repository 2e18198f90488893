"""The report as one HTML page that needs nothing else: figures, tables, provenance; no request ever leaves it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib import resources
from string import Template
from typing import Any

from onnxnoise.noise.base import Level
from onnxnoise.noise.models import headline
from onnxnoise.reports import style, tables
from onnxnoise.reports.answer import answer
from onnxnoise.reports.chartdata import row_label
from onnxnoise.reports.figures.base import OfAllRuns, OfOneRun
from onnxnoise.reports.layout import Drawing, about, datasets, drawings
from onnxnoise.reports.ranked import Ranking
from onnxnoise.reports.views import View, differences
from onnxnoise.results.yields import yield_of
from onnxnoise.text import safe


def page(found: Sequence[View], bundle: str, ranking: Ranking | None = None) -> str:
    """HTML of the report; `bundle` is JavaScript that defines `vegaEmbed`, and `ranking` the ranks of several runs.

    Names are untrusted: in HTML they are escaped, and scripts get them as JSON without any `<`. Only the three scripts of the
    page run (a content security policy holds their digests), and nothing may be fetched.
    """
    made = drawings(found, selectable=True)
    every = [each for drawing in made for each in (drawing, drawing.curve) if each is not None]
    data = {
        "specs": {f"{each.key}-{i}": panel for each in every for i, panel in enumerate(each.panels)},
        "datasets": datasets(found),
        "config": {"light": style.config(dark=False), "dark": style.config(dark=True)},
        "chosen": {str(i): _first(view) for i, view in enumerate(found)},
        "layers": {str(i): {str(k): row_label(view, k) for k in view.layers} for i, view in enumerate(found)},
    }
    script = _file("page.js")
    title = f"Weight noise: {', '.join(view.label for view in found)}"
    body = [*_head(found), *_answer(found, ranking), *_common(found, made)]
    for i, view in enumerate(found):
        body += _section(i, view, [drawing for drawing in made if drawing.run == i])
    body += [tables.provenance(found), _reading(found)]
    return Template(_file("page.html")).substitute(
        policy=_policy([bundle, script]),
        title=escape(title),
        style=_file("page.css"),
        body="\n".join(body),
        data=_json(data),
        bundle=bundle,
        script=script,
    )


def _head(found: Sequence[View]) -> list[str]:
    parts = [f"<h1>Which network survives weight noise: {escape(', '.join(view.label for view in found))}</h1>"]
    parts += [
        f"<p class=policy>{escape(line)}</p>" for line in dict.fromkeys(headline(view.result.noise) for view in found)
    ]
    parts += [f"<p class=note>{escape(note)}</p>" for note in _notes(found)]
    if len(found) > 1:
        links = (f'<a href="#run-{i}">{escape(view.label)}</a>' for i, view in enumerate(found))
        parts.append(
            f"<nav>{' · '.join(links)} · <a href=#provenance>provenance</a> · <a href=#reading>how to read this</a></nav>"
        )
    return parts


def _answer(found: Sequence[View], ranking: Ranking | None) -> list[str]:
    """The section that comes first: the ranking of several runs with its ties and crossings, and a few sentences on each run."""
    ranked = ranking is not None and ranking.refused is None
    parts = ["<section id=answer>", f"<h2>{'The ranking' if ranked else 'The answer'}</h2>"]
    if ranking is not None:
        if ranking.refused is not None:
            parts.append(f"<p class=note>Not ranked: {escape(safe(ranking.refused))}</p>")
        parts += [f"<p class=answer>{escape(safe(said))}</p>" for said in ranking.leaders]
        ranks = (f"<div>{tables.ranking(title, rows)}</div>" for title, rows in ranking.tables)
        parts.append(f"<div class=ranks>{''.join(ranks)}</div>")
        if ranking.crossings:
            parts += [
                "<h3>Where the order changes</h3>",
                *(f"<p>{escape(safe(each))}</p>" for each in ranking.crossings),
            ]
        parts += [f"<p class=hint>{escape(safe(note))}</p>" for note in ranking.notes]
    parts += [f"<p class=answer>{escape(safe(said))}</p>" for said in map(answer, found) if said]
    return [*parts, "</section>"]


def _notes(found: Sequence[View]) -> list[str]:
    """Sentences about runs that are incomplete, or that differ so that they can't be compared."""
    notes = []
    for view in found:
        run = view.opened
        if run is not None and run.measured < run.planned:
            notes.append(
                f"{view.label} is unfinished: {run.measured:,} of {run.planned:,} passes are measured "
                f"({run.measured / run.planned:.1%}). What is complete is shown, on {view.result.clean.images:,} images; "
                "the same bench command goes on."
            )
    for name, values in differences(found):
        said = ", ".join(f"{view.label}: {safe(value)}" for view, value in zip(found, values, strict=True))
        notes.append(f"These runs differ in {name}, so don't rank them by their figures ({said}).")
    return notes


def _common(found: Sequence[View], made: Sequence[Drawing]) -> list[str]:
    """The section of all runs together: their figures, each with its table, and tables of structure and of depth."""
    parts = ["<section>", "<h2>At a glance</h2>", tables.overview(found)]
    for drawing in made:
        if isinstance(drawing.figure, OfAllRuns):
            parts.append(_figure(drawing))
            parts += [drawing.figure.table(found)] if drawing.figure.table else []
    parts += ["</section>", "<section>", "<h2>Layers, parameters and depth</h2>", tables.structure(found)]
    return [*parts, *tables.depth(found), "</section>"]


def _section(i: int, view: View, made: Sequence[Drawing]) -> list[str]:
    """The section of one run: its warnings, its figures, each with its table, and the table of its layers."""
    parts = [
        f'<section id="run-{i}" data-run="{i}">',
        f"<h2>{escape(view.label)}</h2>",
        f"<p>{escape(about(view))}</p>",
    ]
    if said := yield_of(view.result):
        parts.append(f"<p class=hint>{escape(safe(said))}</p>")
    parts += [f"<p class=note>{escape(safe(notice.message))}</p>" for notice in view.result.warnings]
    for drawing in made:
        parts += [_figure(drawing)] if drawing.curve is None else _pair(drawing, drawing.curve)
        if isinstance(drawing.figure, OfOneRun) and drawing.figure.table:
            parts.append(drawing.figure.table(view))
    if view.cells("single"):
        parts.append(tables.layers(view))
    return [*parts, "</section>"]


def _pair(drawing: Drawing, curve: Drawing) -> list[str]:
    """A figure on which the reader chooses a layer, beside that layer's curve."""
    return [
        "<div class=pair>",
        _figure(drawing),
        "<aside><h3 class=chosen aria-live=polite></h3>",
        _charts(curve),
        _hint(f"{curve.figure.note}. Choose a layer on the map or in the table."),
        "</aside>",
        "</div>",
    ]


def _figure(drawing: Drawing) -> str:
    title = f"<figcaption>{escape(drawing.figure.title)}</figcaption>"
    return f"<figure class={drawing.name}>{title}{_charts(drawing)}{_hint(drawing.figure.note)}</figure>"


def _hint(text: str) -> str:
    return f"<p class=hint>{escape(text[:1].upper() + text[1:])}</p>"


def _charts(drawing: Drawing) -> str:
    divs = (
        f'<div class=chart data-spec="{drawing.key}-{i}" data-name={drawing.name}></div>'
        for i in range(len(drawing.panels))
    )
    return f"<div class=charts>{''.join(divs)}</div>"


def _first(view: View) -> int:
    """The layer whose curve is shown at first: the one that suffers most."""
    return min(view.means, key=view.means.__getitem__, default=1)


def _reading(found: Sequence[View]) -> str:
    levels = list({view.level.name: view.level for view in found}.values())
    return Template(_file("reading.html")).substitute(
        level=escape(" or ".join(level.name for level in levels)),
        meaning=escape("; ".join(map(_meaning, levels))),
    )


def _meaning(level: Level) -> str:
    return (
        level.definition
        if level.time
        else f"{level.definition}; the percentage beside it is {level.share} ({level.hint})"
    )


@cache
def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _json(content: Any) -> str:
    """JSON in ASCII that can't end the script element it stands in."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(scripts: Sequence[str]) -> str:
    """The page's security policy: only these scripts run, and nothing is requested.

    `unsafe-eval` is there for Vega, which compiles the expressions of the charts; none of them comes from a run file.
    """
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
