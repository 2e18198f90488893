"""The parts of the page's tables, and the tables without a figure: overview, structure, depth, layers, provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from html import escape

from onnxnoise.noise.base import Level
from onnxnoise.noise.models import terms, units
from onnxnoise.records import Cell, Estimate, Interval
from onnxnoise.reports.ranked import HEADINGS, Row
from onnxnoise.reports.style import KINDS
from onnxnoise.reports.views import METRIC_TITLES, View, depths, level_of
from onnxnoise.text import among, safe

_MISSING = "<td class=none>–</td>"


def table(caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in a box that scrolls sideways; its headings sort it.

    `headings` are the HTML inside the headings; `rows` hold td elements.
    """
    columns = zip(headings, rows[0] if rows else [""] * len(headings), strict=True)
    heads = "".join(_heading(heading, text=td.startswith("<td class=text")) for heading, td in columns)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    title = escape(caption)
    return (
        f'<p class=caption>{title}</p><div class=scroll tabindex=0 role=region aria-label="{title}"><table aria-label="{title}">'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _heading(heading: str, *, text: bool) -> str:
    first, mark, second = heading.partition("<small>")
    return f"<th scope=col{' class=text' if text else ''}><button type=button><span>{first}</span>{mark}{second}</button></th>"


def text(value: str) -> str:
    """A td of untrusted text."""
    shown = escape(safe(value))
    return f'<td class=text data-v="{shown}"><div>{shown}</div></td>'


def number(value: float | None, shown: str, below: str = "") -> str:
    """A td that sorts by `value` and shows `shown`, with `below` under it in small print; a dash where there is no value."""
    if value is None:
        return _MISSING
    return f'<td data-v="{value!r}">{escape(shown)}{f"<small>{escape(below)}</small>" if below else ""}</td>'


def share(estimate: Estimate | None, scale: int = 1) -> str:
    """A td of an estimate with its interval: a fraction, or percent with `scale` 100."""
    if estimate is None:
        return _MISSING
    digits = 1 if scale == 100 else 3
    low_high = "" if estimate.sampled is None else interval(estimate.sampled, scale, digits)
    return number(estimate.mean, f"{scale * estimate.mean:.{digits}f}", low_high)


def interval(ends: Interval, scale: int, digits: int) -> str:
    """The ends of an interval times `scale`, in brackets, with `digits` decimals."""
    return f"[{', '.join(f'{scale * end:.{digits}f}' for end in ends)}]"


def level_heading(level: Level, value: float) -> str:
    """The heading of the column of one level, with the size of the noise below it, where the level has one."""
    size = level.size_text(value)
    return escape(level.text(value)) + (f"<small>{size}</small>" if size else "")


def noise(view: View, level: float) -> str:
    """A td of a level, with the size of the noise below it, where the level has one."""
    return number(level, view.level.number(level), view.level.size_text(level))


def overview(found: Sequence[View]) -> str:
    """A table of the runs: clean accuracy, layers, data, draws and policies."""
    rows = []
    for view in found:
        result = view.result
        chosen = [view.layers[k] for k in result.selected if k in view.layers]
        draws = sorted({len(cell.draws) for cell in result.cells})
        rows.append(
            [
                text(view.label),
                number(view.clean, f"{view.clean:.2%}", _beside_clean(view)),
                number(
                    len(chosen), f"{len(chosen):,}", "" if len(chosen) == len(view.layers) else f"of {len(view.layers)}"
                ),
                number(
                    sum(layer.parameters for layer in view.layers.values()),
                    f"{sum(layer.parameters for layer in view.layers.values()):,}",
                ),
                text(str(result.dataset["name"])),
                number(result.clean.images, f"{result.clean.images:,}"),
                number(draws[-1] if draws else 0, among(draws)),
                text(result.bn),
                text(units(result.noise)),
            ]
        )
    headings = [
        "run",
        "clean accuracy",
        "noise layers",
        "parameters",
        "data",
        "images",
        "draws",
        "batch norms",
        "noise",
    ]
    return table("Runs", headings, rows)


def _beside_clean(view: View) -> str:
    """The metric of a clean accuracy, and chance by it."""
    return METRIC_TITLES[view.metric] + ("" if view.chance is None else f"; chance {view.chance:.1%}")


def ranking(title: str, rows: Sequence[Row]) -> str:
    """A table of ranks, by level and then best first; a row's level stands where it is another than the row's above."""
    shown = [
        [
            text("" if i and rows[i - 1].level == row.level else row.level),
            text(row.run),
            f"<td>{escape(row.rank)}</td>",
            *(
                number(float(told.partition(" ")[0]), *told.partition(" ")[::2])
                for told in (row.accuracy, row.normalized)
            ),
        ]
        for i, row in enumerate(rows)
    ]
    return table(title, ["noise", *HEADINGS], shown)


def level_headings(found: Sequence[View]) -> list[str]:
    """The headings of a table that `by_level` fills: the run, then each level."""
    level = level_of(found)
    return ["run", *(level_heading(level, each) for each in _levels(found))]


def by_level(found: Sequence[View], content: Callable[[View, float], str]) -> list[list[str]]:
    """A table's rows, one a run: its label, then the content of the run at each level that any run has."""
    return [[text(view.label), *(content(view, level) for level in _levels(found))] for view in found]


def _levels(found: Sequence[View]) -> list[float]:
    return level_of(found).in_order(level for view in found for level in view.levels)


def structure(found: Sequence[View]) -> str:
    """A table of each run's layers and parameters, by kind (the paper's Tables IV to VIII)."""
    kinds = [kind for kind in KINDS if any(layer.kind == kind for view in found for layer in view.layers.values())]
    rows = []
    for view in found:
        layers = list(view.layers.values())
        counts = Counter[str](layer.kind for layer in layers)
        total = sum(layer.parameters for layer in layers)
        row = [text(view.label), number(len(layers), f"{len(layers):,}"), number(total, f"{total:,}")]
        for kind in kinds:
            parameters = sum(layer.parameters for layer in layers if layer.kind == kind)
            row.append(
                number(counts[kind], f"{counts[kind]:,}", f"{parameters:,} parameters") if counts[kind] else _MISSING
            )
        rows.append(row)
    return table("Noise layers and parameters, by kind", ["run", "layers", "parameters", *kinds], rows)


def depth(found: Sequence[View]) -> list[str]:
    """A table of the rank correlation of A_i with depth, with a hint; empty where no single sweep is complete."""
    rows = []
    for view in found:
        for each in depths(view):
            rank = each.correlation
            spread = f"{min(each.draws):.2f} to {max(each.draws):.2f}" if each.draws else "–"
            between = interval(rank.interval, 1, 2) if rank and rank.interval else "no interval"
            rows.append(
                [
                    text(view.label),
                    noise(view, each.level),
                    number(rank.rho if rank else None, f"{rank.rho:+.2f}" if rank else "", between),
                    number(rank.p_value if rank else None, f"{rank.p_value:.2g}" if rank else ""),
                    f"<td>{spread}</td>",
                    number(rank.pairs if rank else None, str(rank.pairs) if rank else ""),
                ]
            )
    if not rows:
        return []
    level = level_of(found)
    caption = "Does depth help? Spearman's rank correlation of A_i with the layer's index"
    return [
        table(caption, ["run", f"{level.name}<small>noise</small>", "rho", "p", "rho of single draws", "layers"], rows),
        "<p class=hint>Above 0: later layers keep more. Interval (95 %) and p take the layers as an independent sample, which "
        "neighbours are not, and are not corrected for the number of levels; – where all A_i are equal.</p>",
    ]


def layers(view: View) -> str:
    """A table of every noise layer: its structure and A_i at each level; a button shows its curve."""
    cells = {(cell.layer, cell.level): cell for cell in view.cells("single")}
    levels = [level for level in view.levels if view.cells("single", level)]
    rows = []
    for k in sorted({cell.layer or 0 for cell in view.cells("single")}):
        layer = view.layers[k]
        name = escape(safe(layer.name))
        row = [
            number(k, str(k)),
            f'<td class=text data-v="{name}"><div><button type=button class=show data-layer={k}>{name}</button></div></td>',
            text(layer.kind),
            number(layer.parameters, f"{layer.parameters:,}"),
            number(layer.sigma_w, f"{layer.sigma_w:.4g}"),
        ]
        for level in levels:
            cell = cells.get((k, level))
            row.append(_marked(cell, view.normalized(cell)) if cell else _MISSING)
        mean = view.means.get(k)
        rows.append([*row, number(mean, "" if mean is None else f"{mean:.3f}")])
    headings = [
        "#",
        "layer",
        "kind",
        "parameters",
        "sigma_w",
        *(level_heading(view.level, level) for level in levels),
        "mean",
    ]
    caption = "Accuracy / clean with noise in one layer [95 % interval]"
    return f"<details open><summary>Every layer</summary>{table(caption, headings, rows)}</details>"


def _marked(cell: Cell, estimate: Estimate | None) -> str:
    """The td of a cell's estimate, with the marks that the heat map gives the cell."""
    marks = "▲" if any(draw.negative_variances for draw in cell.draws) else ""
    marks += "✕" if any(draw.nonfinite for draw in cell.draws) else ""
    return share(estimate).replace("<td ", f'<td data-mark="{marks}" ', 1) if marks else share(estimate)


def provenance(found: Sequence[View]) -> str:
    """A table of all that somebody needs to repeat the runs."""
    parts = ["<section id=provenance>", "<h2>Provenance</h2>"]
    for view in found:
        result, opened = view.result, view.opened
        facts = {
            **({} if opened is None else {"run file": str(opened.path)}),
            "model": f"{result.model['name']}, SHA-256 {result.model['sha256']}",
            "data": f"{result.dataset['name']}, {result.clean.images:,} images, SHA-256 {result.dataset.get('sha256', '')}",
            "noise": f"seed {result.seed}; {terms(result.noise)}",
            "provider": result.provider,
        }
        if opened is not None:
            facts["measured"] = f"{opened.measured:,} of {opened.planned:,} passes that the last command asked for"
        for k, run in enumerate(result.runs):
            versions = run.get("versions")
            facts[f"command {k + 1}"] = str(run.get("command", ""))
            said = (
                ", ".join(f"{name} {value}" for name, value in versions.items()) if isinstance(versions, dict) else ""
            )
            facts[f"on {k + 1}"] = f"{run.get('started', '')}; {run.get('machine', '')}; {said}"
        items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(safe(value))}</dd>" for key, value in facts.items())
        parts.append(f"<h3>{escape(view.label)}</h3><dl>{items}</dl>")
    return "\n".join([*parts, "</section>"])
