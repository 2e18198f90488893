"""The lines that `bench --dry-run` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from onnxnoise.cli.output.terminal import pairs
from onnxnoise.noise.models import headline
from onnxnoise.text import counted

if TYPE_CHECKING:
    from onnxnoise.run.forecast import Forecast


def forecast(console: Console, told: Forecast, *, decides: bool = False, cells: str = "cells") -> None:
    """Print cells, images, sessions and the expected time, one a line; `decides` says that draws end with a verdict.

    `cells` is what the cells are called.
    """
    draws = f"until each rule is decided, at most {told.draws}" if decides else f"{told.draws}"
    if told.budget is not None and told.precision is None and not decides:
        draws = f"as the time allows, at most {draws}"
    if told.precision is not None:
        draws = f"until +-{told.precision:g}, at most {draws}"
    least, most = told.least, told.most
    console.print(headline(told.noise))
    pairs(
        console,
        [
            ("model", f"{told.model}, {told.layers:,} noise layers"),
            (cells, f"{told.cells:,}"),
            ("draws a cell", draws),
            ("images", f"{told.images:,} of {told.dataset}, in {counted(told.chunks, 'chunk')}"),
            ("passes over an image", _between(f"{least.passes:,}", f"{most.passes:,}")),
            ("ONNX Runtime sessions", _between(f"{least.sessions:,}", f"{most.sessions:,}")),
            ("clean pass", f"{1 / told.seconds_an_image:,.0f} images/s, {told.provider}"),
            ("expected time", _time(told)),
        ],
    )


def _time(told: Forecast) -> str:
    least, most = told.least.seconds, told.most.seconds
    if not told.most.passes:
        return "none: the run file has it all"
    if told.budget is not None and told.budget < most:
        return f"{length(told.budget)}, as asked"
    return _between(length(least), length(most))


def _between(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"


def length(seconds: float) -> str:
    """A length of time for people: `35 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
