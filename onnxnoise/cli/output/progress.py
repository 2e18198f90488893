"""The progress that a person sees during a run: how far it is, the time left and the result so far."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from onnxnoise.cli.output.terminal import METRIC_TITLES, fitted
from onnxnoise.noise.models import headline, level_of
from onnxnoise.records import NoiseSetting, Tally
from onnxnoise.text import counted, safe
from onnxnoise.words import Metric

if TYPE_CHECKING:
    from onnxnoise.run.jobs import Job
    from onnxnoise.run.opening import Run

_EVERY = 300.0
"""Seconds after which a line is printed however slow the run is, where the output isn't a terminal."""


class LiveProgress:
    """Progress of a run with the time left and the result so far; a few plain lines where the output isn't a terminal.

    It is the run's watcher (runner.Watcher) and a context manager.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.metric: Metric = "top1"
        self.level = level_of(NoiseSetting())
        self.names: dict[int, str] = {}
        self.clean: dict[int, int] = {}
        self.images = 0
        self.budget: float | None = None
        self.hits: dict[tuple[int, float], list[int]] = defaultdict(lambda: [0, 0])
        self.now = "clean pass"
        self.done, self.total = 0.0, 0.0
        self.began = self.printed = time.monotonic()
        self.step, self.noisy = 0, False
        self.run_file: str | None = None
        self.live = Live(console=console, refresh_per_second=4, transient=True, get_renderable=self._drawn)

    def started(self, run: Run) -> None:
        """Print what will be measured, and begin to show the progress."""
        question, layers = run.question, run.experiment.subject.layers
        self.run_file = str(run.store.path)
        self.metric = question.metric
        self.level = run.experiment.spec.level
        self.budget = run.experiment.spec.budget
        self.names = {layer.index: layer.name for layer in layers}
        self.console.print(headline(run.experiment.noise))
        self.console.print(
            f"{safe(run.experiment.subject.network.name)}: {counted(len(layers), 'layer')}, "
            f"{run.schedule.about(self.level)}, "
            f"{counted(question.images, 'image')} of {safe(run.experiment.images.name)}",
        )
        kept = ", continued" if run.store.runs() else ""
        kept = kept if run.todo else ", complete: nothing is left to measure"
        self.console.print(
            f"{run.experiment.provider.name}; run file {safe(str(run.store.path))}{kept}",
        )
        for tally in run.store.tallies("clean"):
            self._count_clean(tally)
        self.began = self.printed = time.monotonic()
        if run.todo and self.console.is_terminal and not self.console.quiet:
            self.live.start()

    def planned(self, jobs: Sequence[Job]) -> None:
        """Count the work of a round that begins; a run that decides as it goes learns only now what there is to do."""
        self.total = self.done + sum(len(job.chunk) * self._cost(key[1]) for job in jobs for key in job.keys)

    def _cost(self, layer: int | None) -> float:
        """The cost of one image pass, in full passes: with noise in one layer, only the nodes from that layer on are run."""
        if layer is None:
            return 1.0
        return 1 - (layer - 1) / max(self.names, default=1)

    def measured(self, tally: Tally) -> None:
        """Count one measured variant of one chunk."""
        hits = tally.hits(self.metric)
        self.done += tally.images * self._cost(tally.layer)
        if tally.sweep == "clean":
            self._count_clean(tally)
        else:
            where = "layers together" if tally.layer is None else self._layer(tally.layer)
            where = f"up to {where}" if tally.sweep == "cumulative" else where
            clean = self.clean.get(tally.start, 0)
            share = f"{hits / clean:.2f} of clean" if clean else f"{hits} of {tally.images} right"
            self.now = f"{where} at {self.level.text(tally.level)}, draw {tally.draw} alone: {share}"
            if (
                tally.sweep == "single" and tally.layer is not None and clean
            ):  # several workers: it may still be under way
                sums = self.hits[tally.layer, tally.level]
                sums[0] += hits
                sums[1] += clean
        if not self.console.is_terminal:
            self._print_sometimes(first=tally.sweep != "clean" and not self.noisy)
        self.noisy |= tally.sweep != "clean"

    def _count_clean(self, tally: Tally) -> None:
        self.clean[tally.start] = tally.hits(self.metric)
        self.images += tally.images

    def _layer(self, index: int) -> str:
        return f"layer {index} {fitted(self.names.get(index, ''), 28)}"

    def _print_sometimes(self, *, first: bool) -> None:
        step = int(10 * self._share())
        if first or step > self.step or time.monotonic() - self.printed > _EVERY:
            self.step, self.printed = step, time.monotonic()
            self.console.print("; ".join((self._time(), *self._so_far())))

    def _share(self) -> float:
        """The share of the work known so far, or of the time to spend, that is done; a fraction of 1."""
        if self.budget is not None:
            return min(1.0, (time.monotonic() - self.began) / self.budget)
        return min(1.0, self.done / self.total) if self.total else 1.0

    def _time(self) -> str:
        share = self._share()
        elapsed = time.monotonic() - self.began
        left = f", {_clock(elapsed * (1 - share) / share)} left" if 0.01 < share < 1 else ""
        return f"{share:4.0%}, {_clock(elapsed)}{left}"

    def _so_far(self) -> list[str]:
        """Clean accuracy, the cell measured last, and the layer and level that cost most."""
        lines = [self.now]
        if self.images:
            accuracy = sum(self.clean.values()) / self.images
            lines.insert(0, f"clean {METRIC_TITLES[self.metric]} {accuracy:.1%} of {self.images:,} images")
        shares = {cell: hits / clean for cell, (hits, clean) in self.hits.items() if clean}
        if shares:
            layer, level = worst = min(shares, key=lambda cell: shares[cell])
            lines.append(
                f"worst so far {self._layer(layer)} at {self.level.text(level)}, mean of its draws: {shares[worst]:.2f} of clean"
            )
        return lines

    def _drawn(self) -> Group:
        bar = ProgressBar(total=1, completed=self._share(), width=30)
        head = Table.grid(padding=(0, 1))
        head.add_row(bar, self._time())
        return Group(head, *(Text(line, no_wrap=True, overflow="ellipsis") for line in self._so_far()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.live.is_started:
            self.live.stop()
            self.console.print()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
