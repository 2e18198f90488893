"""The all-layer curve in a terminal: a bar of blocks for each level, as long as the accuracy that is left."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from onnxnoise.noise.models import level_of
from onnxnoise.records import Estimate, Result
from onnxnoise.words import Metric

_SHORTEST, _LONGEST = 20, 60
_PARTS = " ▏▎▍▌▋▊▉"
"""A cell filled from its left side to 0, 1, ... 7 eighths."""


def all_layer_curve(console: Console, result: Result, metric: Metric) -> None:
    """Print accuracy / clean with all layers noisy as bars; nothing with fewer than two levels.

    A dotted line reaches on to the upper end of the 95 % interval, and a stroke stands at chance.
    """
    level = level_of(result.noise)
    found = {cell.level: cell.normalized(metric) for cell in result.cells if cell.sweep == "all"}
    means = {value: estimate for value, estimate in found.items() if estimate is not None}
    if len(means) < 2:
        return
    names = [level.text(value) for value in means]
    wide = max(map(cell_len, names))
    room = max(_SHORTEST, min(_LONGEST, console.width - wide - 9))
    longest = max(1.0, *(estimate.mean for estimate in means.values()))
    console.print()
    for name, estimate in zip(names, means.values(), strict=True):
        bar = _bar(estimate, result.normalized_chance, room, longest)
        console.print(Text.assemble(f"{name:>{wide}} ", bar, f" {estimate.mean:.2f}"))
    notes = ["bars: accuracy / clean, all layers noisy"]
    notes += ["dots: up to the interval's end"] if any(each.sampled for each in means.values()) else []
    notes += ["stroke: chance"] if result.normalized_chance is not None else []
    console.print(Text("; ".join(notes), "dim"))


def _bar(estimate: Estimate, chance: float | None, room: int, longest: float) -> Text:
    """A bar of `room` cells, which stand for 0 to `longest`."""
    whole, part = divmod(round(8 * room * min(max(estimate.mean, 0.0), longest) / longest), 8)
    high = estimate.sampled[1] if estimate.sampled else estimate.mean
    reach = min(room, round(room * high / longest))
    cells = list("█" * whole + (_PARTS[part] if part else ""))
    cells += "·" * (reach - len(cells))
    cells += " " * (room - len(cells))
    bar = Text("".join(cells[:room]), "green" if estimate.mean >= 0.95 else "yellow" if estimate.mean >= 0.5 else "red")
    at = None if chance is None else min(room - 1, int(room * chance / longest))
    if at is None:
        return bar
    stroke = Text("┊", "bold") if at >= whole else Text("┊", "reverse")
    return Text.assemble(bar[:at], stroke, bar[at + 1 :])
