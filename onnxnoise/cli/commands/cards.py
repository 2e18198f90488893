"""The commands about model cards: list the bundled ones, show one, and check a file against one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import typer

from onnxnoise.cli.options import Commands, Decided, Printer, add
from onnxnoise.fields import flag
from onnxnoise.flags import Given, from_flags

cards = typer.Typer(
    cls=Commands,
    help="Model cards: how a model wants its images, how it is built, what was published and measured about it.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@cards.callback()
def listed(context: typer.Context) -> None:
    """List the bundled cards."""
    if context.invoked_subcommand is not None:
        return
    from onnxnoise.cli.output import cards as view
    from onnxnoise.data.cards import bundled_names, load_bundled

    found = [load_bundled(name) for name in bundled_names()]
    view.card_list(
        Printer().shown,
        [
            (
                card.path.stem,
                card.input.dataset,
                str(card.structure.layers or "-"),
                (card.model.title or "") + (" (weights included)" if card.model.file else ""),
            )
            for card in found
        ],
    )


@dataclass(frozen=True, kw_only=True)
class ShowFlags:
    """The flags that choose the card to show."""

    name: str = flag("", "NAME|FILE", "A bundled card's name, or a card file")


def show(own: ShowFlags, printer: Printer) -> None:
    """Print a card with its presets filled in."""
    from pathlib import Path

    from onnxnoise.cli.output import terminal
    from onnxnoise.data.cards import load_bundled, load_card
    from onnxnoise.files import is_there
    from onnxnoise.run.card_check import card_text

    card = load_card(Path(own.name)) if is_there(Path(own.name)) else load_bundled(own.name)
    terminal.pairs(printer.shown, card_text(card))


@dataclass(frozen=True, kw_only=True)
class CheckFlags:
    """The flags that say what is checked beside the file."""

    data: str | None = flag("--data", "PATH|NAME", "Images to measure the clean accuracy on", default=None)


def check(given: Given, own: CheckFlags, printer: Printer) -> None:
    """Say whether a file and a card agree: layers, parameters, input, classes and, with --data, the clean accuracy.

    Exits with 1 where they don't.
    """
    from onnxnoise.cli.output import cards as view
    from onnxnoise.run import card_check, runner
    from onnxnoise.run.loading import open_with_card

    spec = replace(from_flags(**given), data=own.data)
    opened, card = open_with_card(spec.model, card=spec.card, output=spec.output)
    findings = list(card_check.check_card(opened, card))
    fits = not any(finding.agrees is False and finding.what not in ("layers", "parameters") for finding in findings)
    if spec.data is not None and fits:
        metric, hits, images = runner.clean_hits(spec)
        findings.append(card_check.clean_finding(metric, hits, images, card))
    view.findings(printer.shown, opened.network.name, card.path.name, findings)
    raise Decided(1 if any(finding.agrees is False for finding in findings) else 0)


for _command in (show, check):
    add(cards, _command)
