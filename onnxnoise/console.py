"""What a person sees in the terminal: progress, tables, warnings (the only module that knows rich)."""

from __future__ import annotations

import os
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Self

import numpy as np
from rich import box
from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from onnxnoise.records import Average, Cell, CleanHits, Estimate, LayerInfo, Metric, Notice, Result, Tally

if TYPE_CHECKING:
    from onnxnoise.runner import Run

SHOWN_LAYERS = 20
_SHORTEST_NAME, _LONGEST_NAME = 8, 60
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories that move the cursor, turn the direction or can't be encoded: no terminal sees them from a file."""

_TITLES: dict[Metric, str] = {"top1": "top-1", "top5": "top-5"}
_EVERY = 300.0
"""Seconds after which a progress line comes even where the run is slow and the output is no terminal."""


def safe(text: str) -> str:
    """Untrusted text on one line: whatever is no visible character becomes a replacement character."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _HIDDEN else c for c in text)


def fitted(text: str, cells: int) -> str:
    """Untrusted text within so many terminal cells; what is too long loses its middle."""
    text = safe(text)
    if cell_len(text) <= cells:
        return text
    head, tail = text[: cells // 2], text[-cells // 2 :]
    while cell_len(head) + 1 + cell_len(tail) > cells:
        if len(head) > len(tail):
            head = head[:-1]
        else:
            tail = tail[1:]
    return f"{head}…{tail}"


class _Terminal(Console):
    """Takes no text for markup or emoji codes. A reader that has gone (`| head`) stops nothing."""

    def __init__(self, *, stderr: bool, quiet: bool) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def consoles(*, quiet: bool) -> tuple[Console, Console]:
    """(results on standard output, progress and warnings on standard error)."""
    return _Terminal(stderr=False, quiet=False), _Terminal(stderr=True, quiet=quiet)


def error_message(console: Console, message: str) -> None:
    """One error, on one line, for the person who must act."""
    console.print(Text.assemble(("error: ", "bold red"), safe(" ".join(message.split("\n")))), soft_wrap=True)


def warnings(console: Console, notices: Sequence[Notice]) -> None:
    """One line a warning."""
    for notice in notices:
        console.print(Text.assemble(("warning: ", "yellow"), safe(notice.message)), soft_wrap=True)


def policy_line(bn: str, sigma_scope: str) -> str:
    """The first line of every output: what the noise means here."""
    return f"weight noise, SNR = sigma_w / sigma_noise, sigma per {sigma_scope}; batch norms: {bn}"


def layers_table(console: Console, name: str, layers: Sequence[LayerInfo], bn: str, sigma_scope: str) -> None:
    """The noise layers of a model, one line each, and their totals."""
    console.print(policy_line(bn, sigma_scope), soft_wrap=True)
    parameters = sum(layer.parameters for layer in layers)
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(layer.kind for layer in layers).items())
    console.print(f"{safe(name)}: {len(layers)} noise layers ({kinds}), {parameters:,} parameters", soft_wrap=True)
    rows = []
    for layer in layers:
        first, more = layer.initializers[0].shape, len(layer.initializers) - 1
        shape = "x".join(map(str, first)) + (f" +{more}" if more else "")
        rows.append([str(layer.index), layer.name, layer.kind, shape, f"{layer.parameters:,}", f"{layer.sigma_w:.4g}"])
    _named_table(
        console, ("#", "layer", "kind", "shape", "parameters", "sigma_w"), rows, left={"layer", "kind", "shape"}
    )
    console.print(Text("+N: the layer has so many more initializers; sigma_w pools the values of all of them", "dim"))


def _named_table(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    *,
    left: set[str],
    last: Sequence[str | Text] | None = None,
) -> None:
    """A table whose second column is an untrusted name, cut to what the other columns leave. `last` is a row set apart."""
    every = [headings, *rows, *([last] if last else [])]
    widths = [max(cell_len(line) for row in every for line in str(row[i]).split("\n")) for i in range(len(headings))]
    room = console.width - sum(width + 2 for width in widths) + widths[1]
    room = max(_SHORTEST_NAME, min(_LONGEST_NAME, room))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=True)
    for row in rows:
        table.add_row(row[0], fitted(str(row[1]), room), *row[2:])
    if last:
        table.add_section()
        table.add_row(*last)
    console.print()
    console.print(table)


class LiveProgress:
    """Progress of a run with the time left and the result so far; a few plain lines where the output is no terminal.

    It is the run's watcher (runner.Watcher) and a context manager.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.metric: Metric = "top1"
        self.names: dict[int, str] = {}
        self.clean: dict[int, int] = {}
        self.images = 0
        self.hits: dict[tuple[int, float], list[int]] = defaultdict(lambda: [0, 0])
        self.now = "clean pass"
        self.done, self.total = 0.0, 0.0
        self.began = self.printed = time.monotonic()
        self.step = 0
        self.live = Live(console=console, refresh_per_second=4, transient=True, get_renderable=self._drawn)

    def started(self, run: Run) -> None:
        """Say what will be measured, and begin."""
        question, layers = run.question, run.setup.subject.layers
        self.metric = question.metric
        self.names = {layer.index: layer.name for layer in layers}
        self.total = sum(len(chunk) * self._cost(key[0], key[1]) for chunk, keys in run.todo.items() for key in keys)
        self.console.print(policy_line(run.setup.spec.bn, run.setup.spec.sigma_scope), soft_wrap=True)
        self.console.print(
            f"{safe(run.setup.subject.network.name)}: {len(layers)} layers, {len(question.snrs)} SNRs, {question.draws} draws, "
            f"{question.images:,} images of {safe(run.setup.images.name)}",
            soft_wrap=True,
        )
        kept = "" if run.todo else ", complete: nothing is left to measure"
        self.console.print(f"{run.setup.provider.name}; run file {safe(str(run.store.path))}{kept}", soft_wrap=True)
        self.began = self.printed = time.monotonic()
        if run.todo and self.console.is_terminal and not self.console.quiet:
            self.live.start()

    def _cost(self, sweep: str, layer: int | None) -> float:
        """Of one image pass, in full passes: with noise in one layer only what follows it is run."""
        if sweep != "single" or layer is None:
            return 1.0
        return 1 - (layer - 1) / max(self.names, default=1)

    def measured(self, tally: Tally) -> None:
        """One variant of one chunk was measured."""
        packed = tally.top5 if self.metric == "top5" and tally.top5 else tally.top1
        hits = int(np.unpackbits(np.frombuffer(packed, np.uint8), count=tally.images).sum())
        self.done += tally.images * self._cost(tally.sweep, tally.layer)
        if tally.sweep == "clean":
            self.clean[tally.start] = hits
            self.images += tally.images
        else:
            where = "all layers" if tally.layer is None else self._layer(tally.layer)
            clean = self.clean.get(tally.start, 0)
            share = f"{hits / clean:.2f} of clean" if clean else f"{hits} of {tally.images} right"
            self.now = f"{where} at SNR {tally.snr:g}: {share}"
            if tally.layer is not None:
                sums = self.hits[tally.layer, tally.snr]
                sums[0] += hits
                sums[1] += clean
        if not self.console.is_terminal:
            self._print_sometimes()

    def _layer(self, index: int) -> str:
        return f"layer {index} {fitted(self.names.get(index, ''), 28)}"

    def _print_sometimes(self) -> None:
        step = int(10 * self.done / self.total) if self.total else 10
        if step > self.step or time.monotonic() - self.printed > _EVERY:
            self.step, self.printed = step, time.monotonic()
            self.console.print("; ".join((self._time(), *self._so_far())), soft_wrap=True)

    def _time(self) -> str:
        share = min(1.0, self.done / self.total) if self.total else 1.0
        elapsed = time.monotonic() - self.began
        left = f", {_clock(elapsed * (1 - share) / share)} left" if 0.01 < share < 1 else ""
        return f"{share:4.0%}, {_clock(elapsed)}{left}"

    def _so_far(self) -> list[str]:
        """Clean accuracy, the cell measured last, and the layer and SNR that cost most."""
        lines = [self.now]
        if self.images:
            accuracy = sum(self.clean.values()) / self.images
            lines.insert(0, f"clean {_TITLES[self.metric]} {accuracy:.1%} of {self.images:,} images")
        shares = {cell: hits / clean for cell, (hits, clean) in self.hits.items() if clean}
        if shares:
            layer, snr = worst = min(shares, key=lambda cell: shares[cell])
            lines.append(f"worst so far {self._layer(layer)} at SNR {snr:g}: {shares[worst]:.2f} of clean")
        return lines

    def _drawn(self) -> Group:
        bar = ProgressBar(total=self.total or 1, completed=min(self.done, self.total), width=30)
        head = Table.grid(padding=(0, 1))
        head.add_row(bar, self._time())
        return Group(head, *(Text(line, no_wrap=True, overflow="ellipsis") for line in self._so_far()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def result_tables(console: Console, result: Result, *, all_layers: bool) -> None:
    """The noise profile: per-layer table (worst first), all layers together, A_avr, what belongs to reading them."""
    metric: Metric = "top1" if result.clean.top5_hits is None else result.metric
    console.print(policy_line(result.bn, result.sigma_scope), soft_wrap=True)
    console.print(
        f"{safe(result.model['name'])} ({result.model['sha256'][:8]}) on {result.clean.images:,} images of "
        f"{safe(str(result.dataset['name']))}; seed {result.seed}; {result.provider}",
        soft_wrap=True,
    )
    console.print(f"clean accuracy: {_accuracies(result.clean)}")
    if result.measured < result.planned:
        console.print(
            Text.assemble(
                ("unfinished: ", "yellow"),
                f"{result.measured} of {result.planned} passes over the images are complete; the rest is left out",
            ),
            soft_wrap=True,
        )
    draws = max((len(cell.draws) for cell in result.cells), default=0)
    mean = f"mean of {draws} draws" if draws > 1 else "one draw"
    snrs = list(dict.fromkeys(cell.snr for cell in result.cells))
    single = [cell for cell in result.cells if cell.sweep == "single"]
    if single:
        console.print()
        console.print(
            Text(f"Noise in one layer at a time: {_TITLES[metric]} as a fraction of clean, {mean}", "bold"),
            soft_wrap=True,
        )
        _single_table(console, result, single, snrs, metric, all_layers=all_layers)
    _whole_table(console, result, snrs, metric, mean)


def _accuracies(clean: CleanHits) -> str:
    top5 = "" if clean.top5_hits is None else f", top-5 {clean.top5_hits / clean.images:.2%}"
    return f"top-1 {clean.top1_hits / clean.images:.2%}{top5}"


def _single_table(
    console: Console,
    result: Result,
    cells: Sequence[Cell],
    snrs: Sequence[float],
    metric: Metric,
    *,
    all_layers: bool,
) -> None:
    layers = {layer.index: layer for layer in result.layers}
    rows: dict[int, dict[float, float]] = defaultdict(dict)
    for cell in cells:
        if cell.layer is not None:
            rows[cell.layer][cell.snr] = _normalized(cell, metric).mean
    ranked = sorted(rows, key=lambda index: fmean(rows[index].values()))
    shown = ranked if all_layers or len(ranked) <= SHOWN_LAYERS + 3 else ranked[:SHOWN_LAYERS]
    folded = ranked[len(shown) :]
    lines: list[list[str | Text]] = [
        [str(index), layers[index].name, layers[index].kind, *(_colored(rows[index].get(snr)) for snr in snrs)]
        for index in shown
    ]
    headings = ["#", "layer, worst first", "kind", *(f"{snr:g}" for snr in snrs)]
    headings[3] = f"SNR {headings[3]}"
    last: list[str | Text] | None = None
    if folded:
        least = [min((rows[i][snr] for i in folded if snr in rows[i]), default=None) for snr in snrs]
        last = ["", f"{len(folded)} more, at least", "", *(_colored(value) for value in least)]
    _named_table(console, headings, lines, left={"layer, worst first", "kind"}, last=last)
    if folded:
        console.print(Text("-v shows every layer, --json every draw and interval", "dim"))


def _colored(value: float | None) -> Text:
    if value is None:
        return Text("-")
    return Text(f"{value:.2f}", "red" if value < 0.5 else "yellow" if value < 0.95 else "")


def _whole_table(console: Console, result: Result, snrs: Sequence[float], metric: Metric, mean: str) -> None:
    whole = {cell.snr: cell for cell in result.cells if cell.sweep == "all"}
    averages = {average.snr: average for average in result.a_avr}
    if not whole and not averages:
        return
    title = (
        "Noise in all layers together, and A_avr"
        if whole and averages
        else ("Noise in all layers together" if whole else "A_avr")
    )
    console.print()
    console.print(Text(f"{title}: {_TITLES[metric]}, {mean}", "bold"), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("SNR", "noise", *(("accuracy", "of clean") if whole else ()), *(("A_avr",) if averages else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    for snr in snrs:
        row = [f"{snr:g}", f"{100 / snr:.3g} %"]
        if whole:
            cell = whole.get(snr)
            row += [_accuracy(cell, metric), _with_interval(_normalized(cell, metric))] if cell else ["-", "-"]
        if averages:
            average = averages.get(snr)
            row.append(_with_interval(_average(average, metric)) if average else "-")
        table.add_row(*row)
    console.print()
    console.print(table)
    notes = ["noise: sigma_noise as a share of sigma_w"]
    if averages:
        count = next(iter(averages.values())).layers
        notes.append(f"A_avr: mean over {count} layers of accuracy / clean with noise in that layer alone")
    notes.append(
        "no intervals with one draw"
        if mean == "one draw"
        else "[low, high]: 95 % interval, for other draws and other images like these"
    )
    for note in notes:
        console.print(Text(note, "dim"), soft_wrap=True)


def _with_interval(estimate: Estimate) -> str:
    if estimate.sampled is None:
        return f"{estimate.mean:.3f}"
    return f"{estimate.mean:.3f} [{estimate.sampled[0]:.3f}, {estimate.sampled[1]:.3f}]"


def _normalized(cell: Cell, metric: Metric) -> Estimate:
    return cell.normalized_top5 if metric == "top5" and cell.normalized_top5 is not None else cell.normalized_top1


def _average(average: Average, metric: Metric) -> Estimate:
    return average.top5 if metric == "top5" and average.top5 is not None else average.top1


def _accuracy(cell: Cell, metric: Metric) -> str:
    hits = sum(draw.top5_hits or 0 if metric == "top5" else draw.top1_hits for draw in cell.draws)
    return f"{hits / sum(draw.images for draw in cell.draws):.2%}"
