"""The tables of the page: all layers, A_avr, structure, depth, chance, every layer, provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from html import escape

from onnxnoise.records import Cell, Estimate, Interval
from onnxnoise.reports.chartdata import said_accuracy
from onnxnoise.reports.style import KINDS
from onnxnoise.reports.views import METRIC_TITLES, View, depths, falls, worst
from onnxnoise.text import noise_percent, safe

_MISSING = "<td class=none>–</td>"


def table(caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in a box that scrolls sideways, whose headers sort it; `headings` and cells are HTML, cells with their td."""
    columns = zip(headings, rows[0] if rows else [""] * len(headings), strict=True)
    heads = "".join(_heading(heading, text=cell.startswith("<td class=text")) for heading, cell in columns)
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
    """A cell of untrusted text."""
    shown = escape(safe(value))
    return f'<td class=text data-v="{shown}"><div>{shown}</div></td>'


def number(value: float | None, shown: str, below: str = "") -> str:
    """A cell that sorts by `value`; `below` stands under it, small."""
    if value is None:
        return _MISSING
    return f'<td data-v="{value!r}">{escape(shown)}{f"<small>{escape(below)}</small>" if below else ""}</td>'


def share(estimate: Estimate | None, scale: int = 1) -> str:
    """A cell of an estimate with its interval: a fraction, or percent with `scale` 100."""
    if estimate is None:
        return _MISSING
    digits = 1 if scale == 100 else 3
    low_high = "" if estimate.sampled is None else interval(estimate.sampled, scale, digits)
    return number(estimate.mean, f"{scale * estimate.mean:.{digits}f}", low_high)


def interval(ends: Interval, scale: int, digits: int) -> str:
    return f"[{', '.join(f'{scale * end:.{digits}f}' for end in ends)}]"


def noise(snr: float) -> str:
    return f"SNR {snr:g}<small>{noise_percent(snr):.3g} %</small>"


def overview(found: Sequence[View]) -> str:
    rows = []
    for view in found:
        result = view.result
        chosen = [view.layers[k] for k in result.selected if k in view.layers]
        draws = sorted({len(cell.draws) for cell in result.cells})
        rows.append(
            [
                text(view.label),
                number(view.clean, f"{view.clean:.2%}", METRIC_TITLES[view.metric]),
                number(
                    len(chosen), f"{len(chosen):,}", "" if len(chosen) == len(view.layers) else f"of {len(view.layers)}"
                ),
                number(
                    sum(layer.parameters for layer in view.layers.values()),
                    f"{sum(layer.parameters for layer in view.layers.values()):,}",
                ),
                text(str(result.dataset["name"])),
                number(result.clean.images, f"{result.clean.images:,}"),
                number(draws[-1] if draws else 0, " and ".join(map(str, draws)) or "0"),
                text(result.bn),
                text(result.sigma_scope),
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
        "sigma per",
    ]
    return table("Runs", headings, rows)


def _by_noise(found: Sequence[View], cell: Callable[[View, float], str]) -> list[list[str]]:
    return [[text(view.label), *(cell(view, snr) for snr in _snrs(found))] for view in found]


def _snrs(found: Sequence[View]) -> list[float]:
    return sorted({snr for view in found for snr in view.snrs}, reverse=True)


def _all(view: View, snr: float) -> Cell | None:
    return next(iter(view.cells("all", snr)), None)


def all_layers(found: Sequence[View]) -> str:
    """Table III: all layers noisy, absolute and normalized."""

    def absolute(view: View, snr: float) -> str:
        cell = _all(view, snr)
        return share(view.accuracy(cell) if cell else None, 100)

    def normalized(view: View, snr: float) -> str:
        cell = _all(view, snr)
        return share(view.normalized(cell) if cell else None)

    headings = ["run", *map(noise, _snrs(found))]
    clean = [number(view.clean, f"{100 * view.clean:.1f}") for view in found]
    rows = [[row[0], first, *row[1:]] for row, first in zip(_by_noise(found, absolute), clean, strict=True)]
    return table(
        "All layers noisy: accuracy, % [95 % interval]", ["run", "clean<small>0 %</small>", *headings[1:]], rows
    ) + table("All layers noisy: accuracy / clean [95 % interval]", headings, _by_noise(found, normalized))


def averages(found: Sequence[View]) -> str:
    """A_avr and 100 - A_avr in percent, by run and noise."""

    def of(view: View, snr: float) -> Estimate | None:
        return next((view.average(each) for each in view.result.a_avr if each.snr == snr), None)

    def lost(view: View, snr: float) -> str:
        estimate = of(view, snr)
        return number(
            None if estimate is None else 1 - estimate.mean,
            "" if estimate is None else f"{100 - 100 * estimate.mean:.2f}",
        )

    headings = ["run", *map(noise, _snrs(found))]
    return table(
        "A_avr, % of clean accuracy [95 % interval]",
        headings,
        _by_noise(found, lambda view, snr: share(of(view, snr), 100)),
    ) + table("100 - A_avr, %", headings, _by_noise(found, lost))


def structure(found: Sequence[View]) -> str:
    """Layers and parameters by kind (Tables IV to VIII)."""
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
    """Rank correlation of A_i with depth; empty where no single sweep is complete."""
    rows = []
    for view in found:
        for each in depths(view):
            rank = each.correlation
            spread = f"{min(each.draws):.2f} to {max(each.draws):.2f}" if each.draws else "–"
            between = interval(rank.interval, 1, 2) if rank and rank.interval else "no interval"
            rows.append(
                [
                    text(view.label),
                    number(each.snr, f"{each.snr:g}", f"{noise_percent(each.snr):.3g} %"),
                    number(rank.rho if rank else None, f"{rank.rho:+.2f}" if rank else "", between),
                    number(rank.p_value if rank else None, f"{rank.p_value:.2g}" if rank else ""),
                    f"<td>{spread}</td>",
                    number(rank.pairs if rank else None, str(rank.pairs) if rank else ""),
                ]
            )
    if not rows:
        return []
    caption = "Does depth help? Spearman's rank correlation of A_i with the layer's index"
    return [
        table(caption, ["run", "SNR<small>noise</small>", "rho", "p", "rho of single draws", "layers"], rows),
        "<p class=hint>Above 0: later layers keep more. Interval (95 %) and p take the layers as an independent sample, which "
        "neighbours are not, and are not corrected for the number of SNRs; – where all A_i are equal.</p>",
    ]


def chance(view: View) -> str:
    """From which L on a cumulative curve can't be told from chance; empty where chance is not known."""
    rows = []
    for fall in falls(view):
        cell = fall.cell
        layer = cell.layer if cell else None
        rows.append(
            [
                number(fall.snr, f"{fall.snr:g}", f"{noise_percent(fall.snr):.3g} %"),
                number(layer, str(layer)),
                text(view.layers[layer].name if layer else "not reached"),
                f"<td>{escape(said_accuracy(view.accuracy(cell)) if cell else '–')}</td>",
                number(fall.above, str(fall.above)),
                number(fall.below, str(fall.below)),
            ]
        )
    if not rows or view.chance is None:
        return "<p class=hint>The run file does not say how many classes there are, so chance is not shown.</p>"
    headings = [
        "SNR<small>noise</small>",
        "from L",
        "layer L",
        "accuracy there",
        "last L surely above",
        "surely below twice it from L",
    ]
    caption = f"From which L on accuracy can't be told from chance, {100 * view.chance:g} %"
    hint = "Surely: by the whole 95 % interval. Few draws make it wide, so that the last two columns lie far apart."
    return table(caption, headings, rows) + f"<p class=hint>{hint}</p>"


def layers(view: View) -> str:
    """Every noise layer: its structure and A_i at each SNR; a button shows its curve."""
    cells = {(cell.layer, cell.snr): cell for cell in view.cells("single")}
    snrs = [snr for snr in view.snrs if view.cells("single", snr)]
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
        for snr in snrs:
            cell = cells.get((k, snr))
            row.append(_marked(cell, view.normalized(cell)) if cell else _MISSING)
        mean = worst(view, k)
        rows.append([*row, number(mean, "" if mean is None else f"{mean:.3f}")])
    headings = ["#", "layer", "kind", "parameters", "sigma_w", *map(noise, snrs), "mean"]
    caption = "Accuracy / clean with noise in one layer [95 % interval]"
    return f"<details open><summary>Every layer</summary>{table(caption, headings, rows)}</details>"


def _marked(cell: Cell, estimate: Estimate | None) -> str:
    """A share, with the marks of the heat map."""
    marks = "▲" if any(draw.negative_variances for draw in cell.draws) else ""
    marks += "✕" if any(draw.nonfinite for draw in cell.draws) else ""
    return share(estimate).replace("<td ", f'<td data-mark="{marks}" ', 1) if marks else share(estimate)


def provenance(found: Sequence[View]) -> str:
    """What somebody needs to repeat the runs."""
    parts = ["<section id=provenance>", "<h2>Provenance</h2>"]
    for view in found:
        result, opened = view.result, view.opened
        facts = {
            "run file": str(opened.path),
            "model": f"{result.model['name']}, SHA-256 {result.model['sha256']}",
            "data": f"{result.dataset['name']}, {result.clean.images:,} images, SHA-256 {result.dataset.get('sha256', '')}",
            "noise": f"seed {result.seed}; sigma per {result.sigma_scope}; batch norms: {result.bn}",
            "provider": result.provider,
            "measured": f"{opened.measured:,} of {opened.planned:,} passes that the last command asked for",
        }
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
