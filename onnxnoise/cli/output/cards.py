"""The tables that the commands about model cards print."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from onnxnoise.cli.output.terminal import columns_table, plain_table, print_table
from onnxnoise.text import ranged, safe

if TYPE_CHECKING:
    from onnxnoise.decisions.leaderboard import Compared
    from onnxnoise.run.card_check import Finding
    from onnxnoise.run.new_card import NewCard
    from onnxnoise.run.trying import Trial

_AGREES = {True: Text("agrees"), False: Text("differs", "red"), None: Text("not said", "dim")}


def card_list(console: Console, rows: Sequence[tuple[str, ...]]) -> None:
    """Print the bundled cards: name, whether the weights are bundled, data set, the model's title, and where there is room for it
    the number of layers.
    """
    columns_table(
        console, ("card", "weights", "images", "layers", "model"), rows, right=("layers",), give_way=("layers",)
    )


def noise_list(console: Console, headings: Sequence[str], rows: Sequence[tuple[str, ...]], legend: str) -> None:
    """Print the table of networks under noise; nothing where no card has figures. On a narrow terminal it leaves out what the
    list of cards says, or `cards show`.
    """
    if not rows:
        return
    console.print("\nWhat their networks keep under noise: for each way to treat batch norms, the most robust first")
    numbers = [heading for heading in headings if heading not in ("network", "batch norms")]
    columns_table(console, headings, rows, right=numbers, give_way=("parameters", "layers"))
    console.print(Text(f"\n{legend}", "dim"))


def reproduced(console: Console, figures: Sequence[Compared]) -> None:
    """Print each figure found beside the card's, with their 95 % intervals."""
    table = plain_table()
    for heading in ("", "card", "now", ""):
        table.add_column(heading, no_wrap=True)
    for each in figures:
        table.add_row(each.what, _span(each.card), _span(each.found), _AGREES[each.agrees])
    print_table(console, table, 0)


def _span(span: tuple[float, float, float] | None) -> str:
    return "-" if span is None else ranged(span[0], span[1:], ".3g")


def findings(console: Console, name: str, card: str, found: Sequence[Finding]) -> None:
    """Print each statement of a card beside the file's own, one a line, with the reason where they differ."""
    console.print(f"{safe(name)} held against {safe(card)}")
    table = plain_table()
    for heading in ("", "card", "file", ""):
        table.add_column(heading, no_wrap=True)
    for each in found:
        table.add_row(safe(each.what), _said(each.card), _said(each.file), _AGREES[each.agrees])
    print_table(console, table, 0)
    for each in found:
        if each.agrees is not True and each.why:
            console.print(f"{safe(each.what)}: {safe(each.why)}")
    unsaid = [each.what for each in found if each.agrees is None]
    if any(each.agrees is False for each in found):
        console.print("file and card do not agree")
    elif unsaid:
        console.print(f"file and card agree in what both say; not said: {', '.join(unsaid)}")
    else:
        console.print("file and card agree")


def draft(console: Console, made: NewCard) -> None:
    """Print what was tried for a drafted card, and the questions that it leaves open."""
    trials = made.trials
    if trials is not None:
        console.print(f"tried on {trials.images:,} images; chance is {trials.chance:.1%}")
        _trials(console, "numbers", trials.numbers)
        if trials.geometries:
            _trials(console, "size", trials.geometries)
        if trials.at_chance:
            console.print(Text(safe(trials.summary), "yellow"))
        console.print()
    for question in made.questions:
        console.print(Text.assemble(("open: ", "yellow"), safe(question)))


def _trials(console: Console, heading: str, trials: Sequence[Trial]) -> None:
    table = plain_table()
    for name in (heading, "top-1 hits", ""):
        table.add_column(name, justify="right" if name == "top-1 hits" else "left")
    for i, trial in enumerate(trials):
        said = "best" if i == 0 else "can't be told apart" if trial.as_good else ""
        table.add_row(safe(trial.hint.source), f"{trial.hits:,}", said)
    print_table(console, table, 0)


def drafted(console: Console, target: str, model: str, data: str | None, output: str | None) -> None:
    """Print where the card was written, and the command that comes next."""
    flags = ["--card", target, "--data", data or "IMAGES", *(["--output", output] if output else [])]
    command = shlex.join(["onnxnoise", "bench", model, *flags])
    images = "" if data else ", where IMAGES is what --data takes"
    console.print(f"written: {safe(target)}; read it, answer what is open, then: {safe(command)}{images}")


def _said(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2%}"
    return f"{value:,}" if isinstance(value, int) else safe(str(value))
