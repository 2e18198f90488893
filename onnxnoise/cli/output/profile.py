"""The tables that `bench` and `layers` print: the noise profile and the table of layers."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import fmean

from rich.console import Console
from rich.text import Text

from onnxnoise.cli.output.cumulative import cumulative_table
from onnxnoise.cli.output.curve import all_layer_curve
from onnxnoise.cli.output.realized import realized_table
from onnxnoise.cli.output.terminal import (
    METRIC_TITLES,
    chance_line,
    colored,
    named_table,
    plain_table,
    print_table,
    title_lines,
)
from onnxnoise.noise.models import headline, level_of
from onnxnoise.records import CHUNKED, Cell, CleanHits, Estimate, LayerInfo, NoiseSetting, Result, WithoutNoise
from onnxnoise.results.yields import yield_of
from onnxnoise.text import counted, ranged, safe
from onnxnoise.words import Metric

SHOWN_LAYERS, _LEAST_SHOWN = 20, 5
"""The most layers shown without -v; where fewer lose anything, only these, but so many at least."""
_ROOM_FOR_INTERVALS = 72
_ONE_DRAW = "one draw"


def layers_table(
    console: Console, name: str, layers: Sequence[LayerInfo], noise: NoiseSetting, without: WithoutNoise
) -> None:
    """Print the noise layers of a model, one a line, their totals, and how many parameters belong to none of them."""
    console.print(headline(noise))
    parameters = sum(layer.parameters for layer in layers)
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(layer.kind for layer in layers).items())
    console.print(f"{safe(name)}: {len(layers)} noise layers ({kinds}), {parameters:,} parameters")
    if without.elements:
        console.print(
            f"{without.elements:,} parameters more ({100 * without.share:.3g} % of all) belong to no layer and stay "
            "without noise",
        )
    rows: list[list[str | Text]] = []
    for layer in layers:
        first, more = layer.initializers[0].shape, len(layer.initializers) - 1
        shape = "x".join(map(str, first)) + (f" +{more}" if more else "")
        rows.append([str(layer.index), layer.name, layer.kind, shape, f"{layer.parameters:,}", f"{layer.sigma_w:.4g}"])
    named_table(console, ["#", "layer", "kind", "shape", "parameters", "sigma_w"], rows)
    console.print(Text("+N: so many more initializers; sigma_w pools the values of all", "dim"))


def result_tables(console: Console, result: Result, *, all_layers: bool) -> None:
    """Print the noise profile: single layers (worst first), layers 1 to L, all together, A_avr, and how to read them."""
    metric = result.told
    title_lines(console, result, images=result.clean.images)
    console.print(f"clean {result.measure}: {_accuracies(result.clean)}; seed {result.seed}; {result.provider}")
    if result.design == CHUNKED:
        console.print(f"each chunk of images met draws of its own; {_reached(result, metric)}")
    if result.measured < result.planned:
        console.print(
            Text.assemble(
                ("unfinished: ", "yellow"),
                f"{result.measured} of {result.planned} passes over the images are complete; the rest is left out",
            ),
        )
    counts = [len(cell.draws) for cell in result.cells] or [0]
    least, most = min(counts), max(counts)
    mean = f"mean of {most if least == most else f'{least} to {most}'} draws" if most > 1 else _ONE_DRAW
    if result.design == CHUNKED:
        images = max((draw.images for cell in result.cells for draw in cell.draws), default=0)
        mean = f"{mean.removeprefix('mean of ')}, each on {counted(images, 'image')}"
    levels = list(dict.fromkeys(cell.level for cell in result.cells))
    single = [cell for cell in result.cells if cell.sweep == "single"]
    if single:
        console.print()
        console.print(
            Text(
                f"One noisy layer at a time: {METRIC_TITLES[metric]} {result.measure} / clean, {mean}, worst first",
                "bold",
            ),
        )
        _single_table(console, result, single, levels, metric, all_layers=all_layers)
    cumulative_table(console, result, metric, mean)
    _whole_table(console, result, levels, metric, mean)
    all_layer_curve(console, result, metric)
    realized_table(console, result)


def next_steps(console: Console, run_file: str, *, chunked: bool, deterministic: bool = False) -> None:
    """Print the commands that go on from a finished run; a chunked one can't get other images or crossed draws, and noise in
    which nothing is random has one draw.
    """
    file = shlex.quote(run_file)
    more = "levels, sweeps or --max-draws" if chunked else "levels, sweeps or images"
    more = more if chunked or deterministic else f"--draws, {more}"
    console.print(
        f"kept in {safe(run_file)}: `onnxnoise show {safe(file)}` prints this again, `onnxnoise report {safe(file)}` makes a "
        f"page of it, and the same command with more {more} goes on",
    )


def _reached(result: Result, metric: Metric) -> str:
    """A sentence about how precise the cells of a chunked run got."""
    found = [cell.normalized(metric) for cell in result.cells]
    widths = sorted((each.sampled[1] - each.sampled[0]) / 2 for each in found if each and each.sampled)
    if not widths:
        return "no interval yet"
    asked = "" if result.precision is None else f", {result.precision:g} asked for"
    return f"half-widths of the 95 % intervals: median {widths[len(widths) // 2]:.2g}, largest {widths[-1]:.2g}{asked}"


def _accuracies(clean: CleanHits) -> str:
    top5 = "" if clean.top5_hits is None else f", top-5 {clean.top5_hits / clean.images:.2%}"
    return f"top-1 {clean.top1_hits / clean.images:.2%}{top5}"


def _single_table(
    console: Console,
    result: Result,
    cells: Sequence[Cell],
    levels: Sequence[float],
    metric: Metric,
    *,
    all_layers: bool,
) -> None:
    layers = {layer.index: layer for layer in result.layers}
    swept = level_of(result.noise)
    rows: dict[int, dict[float, float]] = defaultdict(dict)
    for cell in cells:
        if cell.layer is not None:
            estimate = cell.normalized(metric)
            rows[cell.layer] |= {} if estimate is None else {cell.level: estimate.mean}
    ranked = sorted(rows, key=lambda index: fmean(rows[index].values() or [1.0]))
    hurt = [index for index in ranked if any(f"{mean:.2f}" < "1.00" for mean in rows[index].values())]
    most = min(SHOWN_LAYERS, max(_LEAST_SHOWN, len(hurt)))
    shown = ranked if all_layers or len(ranked) <= most + 3 else ranked[:most]
    folded = ranked[len(shown) :]
    lines: list[list[str | Text]] = [
        [str(index), layers[index].name, layers[index].kind, *(colored(rows[index].get(level)) for level in levels)]
        for index in shown
    ]
    headings = ["#", "layer", "kind", swept.text(levels[0]), *(swept.number(level) for level in levels[1:])]
    last: list[str | Text] | None = None
    if folded:
        least = [min((rows[i][level] for i in folded if level in rows[i]), default=None) for level in levels]
        last = ["", f"{len(folded)} more, at least", "", *(colored(value) for value in least)]
    named_table(console, headings, lines, last)
    _chance(console, result, metric)
    if folded:
        console.print(Text("-v shows every layer, --json every draw and interval", "dim"))


def _chance(console: Console, result: Result, metric: Metric) -> None:
    """Print the line at which accuracies mean nothing any more."""
    chance_line(console, None if result.chance is None else result.chance.of(metric), result.normalized_chance)


def _whole_table(console: Console, result: Result, levels: Sequence[float], metric: Metric, mean: str) -> None:
    swept = level_of(result.noise)
    whole = {cell.level: cell for cell in result.cells if cell.sweep == "all"}
    averages = {average.level: average for average in result.a_avr}
    if not whole and not averages:
        return
    chosen = len(result.selected)
    every = "All layers" if chosen == len(result.layers) else f"The {chosen} chosen of {len(result.layers)} layers"
    title = ", and ".join([*([f"{every} noisy together"] if whole else []), *(["A_avr"] if averages else [])])
    console.print()
    console.print(Text(f"{title}: {METRIC_TITLES[metric]}, {mean}", "bold"))
    table = plain_table()
    for heading in (
        swept.name,
        *(("noise",) if swept.sized else ()),
        *((result.measure, "/ clean") if whole else ()),
        *(("A_avr",) if averages else ()),
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    intervals = mean != _ONE_DRAW and console.width >= _ROOM_FOR_INTERVALS
    for level in levels:
        row = [swept.number(level), *([swept.percent_text(level)] if swept.sized else [])]
        if whole:
            cell = whole.get(level)
            row += [_accuracy(cell, metric), _shown(cell.normalized(metric), intervals)] if cell else ["-", "-"]
        if averages:
            average = averages.get(level)
            row.append(_shown(average.of(metric), intervals) if average else "-")
        table.add_row(*row)
    print_table(console, table, 0)
    _chance(console, result, metric)
    notes = [f"noise: {swept.share}"] if swept.sized else []
    if averages:
        count = next(iter(averages.values())).layers
        notes.append(f"A_avr: mean over {count} layers of accuracy / clean with noise in that layer alone")
    if intervals:
        notes.append("[low, high]: 95 % interval, for other draws and other images like these")
    else:
        notes.append("no intervals with one draw" if mean == _ONE_DRAW else "intervals: in a wider terminal, or --json")
    if result.design == CHUNKED:
        notes.append("yield and worst chip: with --draws N, where every draw meets every image")
    elif said := yield_of(result):
        notes.append(said)
    for note in notes:
        console.print(Text(note, "dim"))


def _shown(estimate: Estimate | None, intervals: bool) -> str:
    return "-" if estimate is None else ranged(estimate.mean, estimate.sampled if intervals else None)


def _accuracy(cell: Cell, metric: Metric) -> str:
    hits = sum(draw.top5_hits or 0 if metric == "top5" else draw.top1_hits for draw in cell.draws)
    return f"{hits / sum(draw.images for draw in cell.draws):.2%}"
