"""What a person sees in the terminal: progress, tables, warnings (the only module that knows rich)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from onnxnoise.records import Cell, Estimate, LayerInfo, Notice, Result, Tally

SHOWN_LAYERS = 20
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_NAME_COLUMNS = 24


def safe(text: object, most: int | None = None) -> str:
    """Untrusted text for rich: markup escaped, control and direction characters shown as a question mark, cut to `most`."""
    shown = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text))
    if most is not None and len(shown) > most:
        shown = f"{shown[: most // 2 - 1]}…{shown[-(most - most // 2) :]}"
    return escape(shown)


def consoles(*, quiet: bool) -> tuple[Console, Console]:
    """(results on standard output, progress and warnings on standard error)."""
    return Console(highlight=False), Console(stderr=True, highlight=False, quiet=quiet)


def error_message(console: Console, message: str) -> None:
    """One error for the person who must act."""
    shown = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", message.replace("\n", " "))
    console.print(Text.assemble(("error: ", "bold red"), shown), soft_wrap=True)


def warnings(console: Console, notices: Sequence[Notice]) -> None:
    """One line a warning."""
    for notice in notices:
        shown = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", notice.message)
        console.print(Text.assemble(("warning: ", "yellow"), shown), soft_wrap=True)


def policy_line(bn: str, sigma_scope: str) -> str:
    """The first line of every output: what the noise means here."""
    return f"noise on weights, SNR = sigma_w / sigma_noise; batch norms: {bn}; sigma per {sigma_scope}"


def layers_table(console: Console, name: str, layers: Sequence[LayerInfo], bn: str, sigma_scope: str) -> None:
    """The noise layers of a model, one line each, and their totals."""
    console.print(policy_line(bn, sigma_scope))
    table = Table(box=box.SIMPLE_HEAD, title=f"{safe(name)}: {len(layers)} noise layers", title_justify="left")
    for heading, right in (
        ("#", True),
        ("name", False),
        ("kind", False),
        ("shape", False),
        ("parameters", True),
        ("sigma_w", True),
    ):
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for layer in layers:
        first = layer.initializers[0].shape if layer.initializers else ()
        shape = "x".join(map(str, first)) + (f" +{len(layer.initializers) - 1}" if len(layer.initializers) > 1 else "")
        table.add_row(
            str(layer.index),
            safe(layer.name, _NAME_COLUMNS),
            layer.kind,
            shape,
            f"{layer.parameters:,}",
            f"{layer.sigma_w:.4g}",
        )
    console.print(table)
    kinds: dict[str, int] = defaultdict(int)
    for layer in layers:
        kinds[layer.kind] += 1
    parameters = sum(layer.parameters for layer in layers)
    console.print(
        f"{len(layers)} layers ({', '.join(f'{n} {kind}' for kind, n in kinds.items())}), {parameters:,} parameters"
    )


class LiveProgress:
    """Progress of a run with the time left and the running result; plain lines where the output is no terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
        )
        self.live = Live(self.progress, console=console, refresh_per_second=4, transient=True)
        self.clean: dict[int, int] = {}
        self.last_printed = -1

    def begin(self, missing: int, description: str) -> None:
        self.console.print(description, markup=False, soft_wrap=True)
        self.task = self.progress.add_task("starting", total=missing)
        if self.console.is_terminal:
            self.live.start()

    def advance(self, tally: Tally, hits: int, layer: str) -> None:
        """One variant of one chunk was measured, with so many top-1 hits."""
        if tally.sweep == "clean":
            self.clean[tally.start] = hits
            text = f"clean top-1 {hits / tally.images:.1%}"
        else:
            clean = self.clean.get(tally.start)
            share = f"{hits / clean:.2f} of clean" if clean else f"{hits} hits"
            where = "all layers" if tally.layer is None else f"layer {tally.layer} {safe(layer, 20)}"
            text = f"{where}, SNR {tally.snr:g}: {share}"
            self.progress.advance(self.task, tally.images)
        self.progress.update(self.task, description=text)
        percent = int(self.progress.tasks[self.task].percentage)
        if not self.console.is_terminal and (percent // 10 != self.last_printed or tally.sweep == "clean"):
            self.last_printed = percent // 10
            self.console.print(f"{percent:3d} %  {text}", soft_wrap=True)

    def end(self) -> None:
        self.live.stop()


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}"


def _with_interval(estimate: Estimate) -> str:
    if estimate.sampled is None:
        return f"{estimate.mean:.3f}"
    return f"{estimate.mean:.3f} [{estimate.sampled[0]:.3f}, {estimate.sampled[1]:.3f}]"


def _normalized(cell: Cell, metric: str) -> Estimate:
    return cell.normalized_top5 if metric == "top5" and cell.normalized_top5 is not None else cell.normalized_top1


def result_tables(console: Console, result: Result, *, all_layers: bool) -> None:
    """The noise profile: per-layer table (worst first), all layers together, A_avr, what belongs to reading them."""
    console.print(policy_line(result.bn, result.sigma_scope))
    clean = result.clean
    top5 = f", top-5 {clean.top5_hits / clean.images:.2%}" if clean.top5_hits is not None else ""
    console.print(
        f"{safe(result.model['name'])} ({result.model['sha256'][:8]}) on {clean.images:,} images of "
        f"{safe(result.dataset['name'])}: clean top-1 {clean.top1_hits / clean.images:.2%}{top5}; seed {result.seed}; {result.provider}",
        soft_wrap=True,
    )
    if result.measured < result.planned:
        console.print(
            f"[yellow]unfinished:[/] {result.measured} of {result.planned} passes are complete; the rest is left out"
        )
    snrs = list(dict.fromkeys(cell.snr for cell in result.cells))
    single = [cell for cell in result.cells if cell.sweep == "single"]
    if single:
        _single_table(console, result, single, snrs, all_layers=all_layers)
    _whole_table(console, result, snrs)


def _single_table(
    console: Console, result: Result, cells: Sequence[Cell], snrs: Sequence[float], *, all_layers: bool
) -> None:
    names = {layer.index: layer for layer in result.layers}
    rows: dict[int, dict[float, float]] = defaultdict(dict)
    for cell in cells:
        if cell.layer is not None:
            rows[cell.layer][cell.snr] = _normalized(cell, result.metric).mean
    ranked = sorted(rows, key=lambda index: fmean(rows[index].values()))
    shown = ranked if all_layers or len(ranked) <= SHOWN_LAYERS + 3 else ranked[:SHOWN_LAYERS]
    title = f"Noise in one layer: {result.metric} as a fraction of clean, worst layers first"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0))
    table.add_column("#", justify="right")
    table.add_column("layer", no_wrap=True, max_width=_NAME_COLUMNS)
    table.add_column("kind", no_wrap=True)
    for snr in snrs:
        table.add_column(f"SNR {snr:g}" if snr == snrs[0] else f"{snr:g}", justify="right", no_wrap=True)
    for index in shown:
        layer = names[index]
        values = [_colored(rows[index].get(snr)) for snr in snrs]
        table.add_row(str(index), safe(layer.name, _NAME_COLUMNS), layer.kind, *values)
    folded = ranked[len(shown) :]
    if folded:
        least = [min((rows[i][snr] for i in folded if snr in rows[i]), default=None) for snr in snrs]
        table.add_section()
        table.add_row("", f"{len(folded)} more, at least", "", *(_colored(value) for value in least))
    console.print(table)
    if folded:
        console.print("[dim]-v shows every layer; --json has every draw and interval[/]")


def _colored(value: float | None) -> str:
    if value is None:
        return "-"
    color = "red" if value < 0.5 else "yellow" if value < 0.95 else "default"
    return f"[{color}]{_number(value)}[/]"


def _whole_table(console: Console, result: Result, snrs: Sequence[float]) -> None:
    whole = {cell.snr: cell for cell in result.cells if cell.sweep == "all"}
    averages = {average.snr: average for average in result.a_avr}
    if not whole and not averages:
        return
    count = next((average.layers for average in result.a_avr), len({c.layer for c in result.cells if c.layer}))
    draws = max((len(cell.draws) for cell in result.cells), default=0)
    heading = "95 % interval for images like these" if draws > 1 else "no interval with one draw"
    title = f"{result.metric}, mean of {draws} draws [{heading}]".replace("[", "\\[")
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("SNR", justify="right")
    table.add_column("noise", justify="right")
    if whole:
        table.add_column("accuracy, all layers", justify="right")
        table.add_column("all layers / clean", justify="right", no_wrap=True)
    if averages:
        table.add_column(f"A_avr over {count} layers", justify="right", no_wrap=True)
    for snr in snrs:
        row = [f"{snr:g}", f"{100 / snr:.3g} %"]
        if whole:
            cell = whole.get(snr)
            row += (
                ["-", "-"]
                if cell is None
                else [_accuracy(cell, result.metric), escape(_with_interval(_normalized(cell, result.metric)))]
            )
        if averages:
            average = averages.get(snr)
            estimate = (
                None if average is None else average.top5 if result.metric == "top5" and average.top5 else average.top1
            )
            row.append("-" if estimate is None else escape(_with_interval(estimate)))
        table.add_row(*row)
    console.print(table)


def _accuracy(cell: Cell, metric: str) -> str:
    hits = [
        draw.top5_hits if metric == "top5" and draw.top5_hits is not None else draw.top1_hits for draw in cell.draws
    ]
    return f"{sum(hits) / sum(draw.images for draw in cell.draws):.2%}"
