"""The table of noise in layers 1 to L: how deep it must reach to take away a part of the accuracy, and what is left there."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from onnxnoise.cli.output.terminal import METRIC_TITLES, colored, plain_table, print_table
from onnxnoise.noise.models import level_of
from onnxnoise.records import Result
from onnxnoise.results.falls import cumulative, first_at, first_at_chance
from onnxnoise.words import Metric

_SHARES = (0.9, 0.5)
_MOST, _COLUMN, _OTHERS = 8, 7, 36
"""The most depths shown, the width of one's column, and that of all other columns, in terminal cells."""


def cumulative_table(console: Console, result: Result, metric: Metric, mean: str) -> None:
    """Print a row for each level: the L at which accuracy falls to 0.9, 0.5 and chance, and accuracy / clean at a few L."""
    level = level_of(result.noise)
    levels = [each for each in dict.fromkeys(cell.level for cell in result.cells) if cumulative(result, each)]
    if not levels:
        return
    chance = None if result.chance is None else result.chance.of(metric)
    indices = sorted({cell.layer or 0 for each in levels for cell in cumulative(result, each)})
    depths = _few(indices, max(3, min(_MOST, (console.width - _OTHERS) // _COLUMN)))
    console.print()
    console.print(
        Text(f"Noise in layers 1 to L: {METRIC_TITLES[metric]} accuracy / clean, {mean}", "bold"), soft_wrap=True
    )
    table = plain_table()
    for heading in (
        level.name,
        *(f"to {share:g}" for share in _SHARES),
        "to chance",
        *(f"L={index}" for index in depths),
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in levels:
        means = {
            cell.layer: estimate.mean
            for cell in cumulative(result, each)
            if (estimate := cell.normalized(metric)) is not None
        }
        table.add_row(
            level.number(each),
            *(_index(first_at(result, metric, each, share)) for share in _SHARES),
            "?" if chance is None else _index(first_at_chance(result, metric, each, chance)),
            *(colored(means.get(index)) for index in depths),
        )
    print_table(console, table, 0)
    for note in _notes(chance):
        console.print(Text(note, "dim"), soft_wrap=True)


def _few(indices: Sequence[int], most: int) -> list[int]:
    """Some of the indices, at most `most`, the first and the last among them, at about equal distances."""
    steps = min(most, len(indices)) - 1
    return [indices[round(i * (len(indices) - 1) / steps)] for i in range(steps + 1)] if steps else list(indices)


def _index(layer: int | None) -> str:
    return "-" if layer is None else str(layer)


def _notes(chance: float | None) -> list[str]:
    unknown = "the run file does not say how many classes there are, so chance is not known"
    told = "to chance: the first L at which the mean can't be told from chance"
    return [
        f"to {_SHARES[0]:g}, to {_SHARES[1]:g}: the first L at which the mean is that low; -: at none",
        unknown if chance is None else f"{told}, {chance:.2%}",
    ]
