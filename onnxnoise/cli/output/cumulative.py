"""The table of noise in layers 1 to L: how deep it must reach to take away a part of the accuracy, and what is left there."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from onnxnoise.cli.output.terminal import METRIC_TITLES, colored, few, plain_table, print_table
from onnxnoise.noise.models import level_of
from onnxnoise.records import Result
from onnxnoise.results.falls import REACHED, cumulative, reached
from onnxnoise.words import Metric

_MOST, _COLUMN, _OTHERS = 8, 7, 36
"""The most depths shown, the width of one's column, and that of all other columns, in terminal cells."""


def cumulative_table(console: Console, result: Result, metric: Metric, mean: str) -> None:
    """Print a row for each level: the L at which accuracy falls to 0.9, 0.5 and chance, and accuracy / clean at a few L."""
    level = level_of(result.noise)
    curves = [
        cells for each in dict.fromkeys(cell.level for cell in result.cells) if (cells := cumulative(result, each))
    ]
    if not curves:
        return
    indices = sorted({cell.layer or 0 for cells in curves for cell in cells})
    depths = few(indices, max(3, min(_MOST, (console.width - _OTHERS) // _COLUMN)))
    console.print()
    console.print(Text(f"Noise in layers 1 to L: {METRIC_TITLES[metric]} accuracy / clean, {mean}", "bold"))
    table = plain_table()
    for heading in (level.name, *REACHED, *(f"L={index}" for index in depths)):
        table.add_column(heading, justify="right", no_wrap=True)
    for cells in curves:
        means = {cell.layer: estimate.mean for cell in cells if (estimate := cell.normalized(metric)) is not None}
        table.add_row(
            level.number(cells[0].level),
            *reached(result, metric, cells),
            *(colored(means.get(index)) for index in depths),
        )
    print_table(console, table, 0)
    for note in _notes(None if result.chance is None else result.chance.of(metric)):
        console.print(Text(note, "dim"))


def _notes(chance: float | None) -> list[str]:
    unknown = "the run file does not say how many classes there are, so chance is not known"
    told = "to chance: the first L at which the mean can't be told from chance"
    return [
        f"{', '.join(REACHED[:-1])}: the first L at which the mean is that low; -: at none",
        unknown if chance is None else f"{told}, {chance:.2%}",
    ]
