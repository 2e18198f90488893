"""The tables that `compare` prints: models, a ranking for all layers together, one for A_avr, and crossings of curves."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from onnxnoise.cli.output.terminal import METRIC_TITLES, chance_line, fitted, plain_table, print_table
from onnxnoise.decisions.comparing import wording
from onnxnoise.decisions.comparing.records import QUANTITIES, Comparison, Placing, Quantity, Standing
from onnxnoise.noise.base import Level
from onnxnoise.noise.models import headline, level_of
from onnxnoise.records import agreement_said
from onnxnoise.text import counted, ranged, safe

_SHORTEST, _LONGEST = 10, 40
_ROOM_FOR_INTERVALS = 72
_OTHERS, _OTHERS_PLAIN = 60, 36
"""The width of a ranking's other columns in terminal cells, with and without intervals."""


def comparison_tables(console: Console, comparison: Comparison) -> None:
    """Print all that a person needs to choose: the models, then each ranking by level, then the crossings."""
    console.print(headline(comparison.noise))
    console.print(
        f"{len(comparison.models)} models on the same {comparison.dataset['images']:,} images of "
        f"{safe(str(comparison.dataset['name']))}; {METRIC_TITLES[comparison.metric]}{agreement_said(comparison.dataset)}",
    )
    table = plain_table()
    for heading in ("model", "layers", "parameters", "clean"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    room = max(_SHORTEST, min(_LONGEST, console.width - 40))
    for model in comparison.models:
        table.add_row(
            fitted(model.label, room), str(model.layers), f"{model.parameters:,}", f"{model.clean_accuracy:.2%}"
        )
    print_table(console, table, 0)
    chance_line(console, comparison.models[0].chance, None)
    for quantity in QUANTITIES:
        placings = [placing for placing in comparison.figures if placing.quantity == quantity]
        if placings:
            _ranking(console, level_of(comparison.noise), quantity, placings)
    _crossings(console, comparison)
    _notes(console, comparison)


def _ranking(console: Console, level: Level, quantity: Quantity, placings: Sequence[Placing]) -> None:
    console.print()
    console.print(Text(wording.counted_title(quantity, placings), "bold"))
    intervals = console.width >= _ROOM_FOR_INTERVALS and any(placing.draws > 1 for placing in placings)
    room = console.width - (_OTHERS if intervals else _OTHERS_PLAIN) - 2
    longest = max(cell_len(safe(placing.model)) for placing in placings)
    room = max(_SHORTEST, min(_LONGEST, room, longest))
    table = plain_table()
    for heading in (level.name, "model", "rank", "accuracy", "rank", "/ clean"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for value in dict.fromkeys(placing.level for placing in placings):
        here = [placing for placing in placings if placing.level == value]
        here.sort(key=lambda placing: -wording.first_standing(placing).mean)
        for row, placing in enumerate(here):
            table.add_row(
                level.number(value) if row == 0 else "",
                fitted(placing.model, room),
                _rank(placing.absolute),
                _mean(placing.absolute, intervals),
                _rank(placing.normalized),
                _mean(placing.normalized, intervals),
            )
    print_table(console, table, 0)


def _rank(standing: Standing) -> Text:
    return Text(f"{wording.rank(standing):<{len(str(standing.rank)) + 1}}", "bold" if standing.rank == 1 else "")


def _mean(standing: Standing, intervals: bool) -> str:
    return ranged(standing.mean, standing.sampled if intervals else None)


def _crossings(console: Console, comparison: Comparison) -> None:
    crossings = comparison.crossings
    if not crossings:
        return
    console.print()
    console.print(Text("Where the order changes", "bold"))
    clear = [each for each in crossings if each.clear]
    for each in clear:
        console.print(
            wording.crossing(comparison, each, {model.label: safe(model.label) for model in comparison.models}),
        )
    if len(clear) < len(crossings):
        more = len(crossings) - len(clear)
        console.print(
            Text(
                f"{counted(more, 'more change' if clear else 'change')} of the order of means, where the two are a tie at one "
                "level or both (--json)",
                "dim",
            ),
        )


def _notes(console: Console, comparison: Comparison) -> None:
    notes = wording.notes(comparison)
    if any(each.tied is not None for each in comparison.differences):
        wide = console.width >= _ROOM_FOR_INTERVALS
        notes.append(
            "[low, high]: 95 % interval, for other draws and other images like these"
            if wide
            else "intervals: in a wider terminal, or --json"
        )
    console.print()
    for note in notes:
        console.print(Text(note, "dim"))
