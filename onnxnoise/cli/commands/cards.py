"""The commands about model cards: what is bundled, what one says, and whether a file is what a card says."""

from __future__ import annotations

from typing import Annotated

import typer

cards = typer.Typer(
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
    from onnxnoise.cli.output import terminal
    from onnxnoise.data.cards import bundled_names, load_bundled

    found = [load_bundled(name) for name in bundled_names()]
    view.card_list(
        terminal.consoles(quiet=False)[0],
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


@cards.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A bundled card's name, or a card file.")],
) -> None:
    """Print a card with its presets filled in."""
    from pathlib import Path

    from onnxnoise.cli.output import terminal
    from onnxnoise.data.cards import load_bundled, load_card
    from onnxnoise.run.card_check import card_text

    card = load_card(Path(name)) if Path(name).is_file() else load_bundled(name)
    terminal.pairs(terminal.consoles(quiet=False)[0], card_text(card))


@cards.command()
def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An ONNX file, or a bundled model's name.")],
    card: Annotated[
        str | None, typer.Option("--card", metavar="FILE|NAME", help="The card (default: beside the model).")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="PATH|NAME", help="Images to measure the clean accuracy on.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Only the first N images.")] = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="NAME", help="The graph output with the logits.")
    ] = None,
) -> None:
    """Say whether a file and a card agree: layers, parameters, input, classes and, with --data, the clean accuracy.

    Exits with 1 where they don't.
    """
    from onnxnoise.cli.output import cards as view
    from onnxnoise.cli.output import terminal
    from onnxnoise.run import card_check as cardcheck
    from onnxnoise.run import runner
    from onnxnoise.run.loading import open_with_card
    from onnxnoise.spec import BenchSpec

    subject, found = open_with_card(model, card=card, output=output)
    findings = list(cardcheck.check_card(subject, found))
    fits = not any(finding.agrees is False and finding.what not in ("layers", "parameters") for finding in findings)
    if data is not None and fits:
        metric, hits, images = runner.clean_hits(BenchSpec(model, card, data, limit=limit, output=output))
        findings.append(cardcheck.clean_finding(metric, hits, images, found))
    view.findings(terminal.consoles(quiet=False)[0], subject.network.name, found.path.name, findings)
    if any(finding.agrees is False for finding in findings):
        raise typer.Exit(1)
