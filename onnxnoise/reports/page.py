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

from onnxnoise.reports import layout as figures
from onnxnoise.reports import style as charts
from onnxnoise.reports import tables
from onnxnoise.reports.chartdata import row_label
from onnxnoise.reports.layout import Figure
from onnxnoise.reports.views import View, differences, worst
from onnxnoise.text import safe

_ORDER = ("heatmap", "profile", "cumulative")


def page(found: Sequence[View], bundle: str) -> str:
    """HTML of the report; `bundle` is JavaScript that defines `vegaEmbed`.

    Names are untrusted: in HTML they are escaped, in scripts JSON without any `<`. Only the three scripts of the page run (a
    content security policy holds their digests), and nothing may be fetched.
    """
    made = figures.figures(found, selectable=True)
    named = [(f"{figure.name}-{k}", figure) for k, figure in enumerate(made)]
    data = {
        "specs": {f"{name}-{i}": panel for name, figure in named for i, panel in enumerate(figure.panels)},
        "datasets": figures.datasets(found),
        "config": {"light": charts.config(dark=False), "dark": charts.config(dark=True)},
        "chosen": {str(i): _first(view) for i, view in enumerate(found)},
        "layers": {str(i): {str(k): row_label(view, k) for k in view.layers} for i, view in enumerate(found)},
    }
    script = _file("page.js")
    title = f"Weight noise: {', '.join(view.label for view in found)}"
    body = [*_head(found), *_common(found, named)]
    for i, view in enumerate(found):
        body += _section(i, view, [(name, figure) for name, figure in named if figure.run == i])
    body += [tables.provenance(found), _file("reading.html")]
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
    scopes = " and ".join(dict.fromkeys(view.result.sigma_scope for view in found))
    policies = " and ".join(dict.fromkeys(view.result.bn for view in found))
    parts = [
        f"<h1>Which network survives weight noise: {escape(', '.join(view.label for view in found))}</h1>",
        f"<p class=policy>weight noise, SNR = sigma_w / sigma_noise, sigma per {scopes}; batch norms: {policies}</p>",
    ]
    parts += [f"<p class=note>{escape(note)}</p>" for note in _notes(found)]
    if len(found) > 1:
        links = (f'<a href="#run-{i}">{escape(view.label)}</a>' for i, view in enumerate(found))
        parts.append(
            f"<nav>{' · '.join(links)} · <a href=#provenance>provenance</a> · <a href=#reading>how to read this</a></nav>"
        )
    return parts


def _notes(found: Sequence[View]) -> list[str]:
    """What keeps the runs from being complete, or from being compared."""
    notes = []
    for view in found:
        run = view.opened
        if run.measured < run.planned:
            notes.append(
                f"{view.label} is unfinished: {run.measured:,} of {run.planned:,} passes are measured "
                f"({run.measured / run.planned:.1%}). What is complete is shown, on {view.result.clean.images:,} images; "
                "the same bench command goes on."
            )
    for name, values in differences(found):
        said = ", ".join(f"{view.label}: {safe(value)}" for view, value in zip(found, values, strict=True))
        notes.append(f"These runs differ in {name}, so don't rank them by their figures ({said}).")
    return notes


def _common(found: Sequence[View], named: Sequence[tuple[str, Figure]]) -> list[str]:
    """What all runs share: figures and tables of all layers, of A_avr, of structure and of depth."""
    parts = ["<section>", "<h2>At a glance</h2>", tables.overview(found)]
    shown = {figure.name: (name, figure) for name, figure in named if figure.run is None}
    if "all" in shown:
        parts += [_figure(*shown["all"]), tables.all_layers(found)]
    if "average" in shown:
        parts += [_figure(*shown["average"]), tables.averages(found)]
    parts += ["</section>", "<section>", "<h2>Layers, parameters and depth</h2>", tables.structure(found)]
    return [*parts, *tables.depth(found), "</section>"]


def _section(i: int, view: View, named: Sequence[tuple[str, Figure]]) -> list[str]:
    parts = [
        f'<section id="run-{i}" data-run="{i}">',
        f"<h2>{escape(view.label)}</h2>",
        f"<p>{escape(figures.about(view))}</p>",
    ]
    parts += [f"<p class=note>{escape(safe(notice.message))}</p>" for notice in view.result.warnings]
    shown = {figure.name: (name, figure) for name, figure in named}
    if "heatmap" in shown:
        parts += [
            "<div class=pair>",
            _figure(*shown["heatmap"]),
            "<aside><h3 class=chosen aria-live=polite></h3>",
            _charts(*shown["curve"]),
            _hint(f"{shown['curve'][1].note}. Choose a layer on the map or in the table."),
            "</aside>",
            "</div>",
            _figure(*shown["profile"]),
        ]
    if "cumulative" in shown:
        parts += [_figure(*shown["cumulative"]), tables.chance(view)]
    if "heatmap" in shown:
        parts.append(tables.layers(view))
    return [*parts, "</section>"]


def _figure(name: str, figure: Figure) -> str:
    title = f"<figcaption>{escape(figure.title)}</figcaption>"
    return f"<figure class={figure.name}>{title}{_charts(name, figure)}{_hint(figure.note)}</figure>"


def _hint(text: str) -> str:
    return f"<p class=hint>{escape(text[:1].upper() + text[1:])}</p>"


def _charts(name: str, figure: Figure) -> str:
    divs = (
        f'<div class=chart data-spec="{name}-{i}" data-name={figure.name}></div>' for i in range(len(figure.panels))
    )
    return f"<div class=charts>{''.join(divs)}</div>"


def _first(view: View) -> int:
    """The layer whose curve is shown at first: the one that suffers most."""
    suffering = {k: value for k in view.layers if (value := worst(view, k)) is not None}
    return min(suffering, key=suffering.__getitem__, default=1)


@cache
def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _json(content: Any) -> str:
    """JSON in ASCII that can't end the script element it stands in."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(scripts: Sequence[str]) -> str:
    """Only these scripts, no requests; Vega compiles its expressions, which come from charts.py and never from a file."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
