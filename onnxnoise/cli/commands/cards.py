"""The commands about model cards: list the bundled ones, show one, and check a file against one."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Annotated

import typer

from onnxnoise.cli.options import Commands, Decided, Printer, add
from onnxnoise.errors import UsageError
from onnxnoise.fields import flag
from onnxnoise.flags import Given, from_flags

cards = typer.Typer(
    cls=Commands,
    help="Model cards: how a model wants its images, how it is built, what was published and measured about it.\n\n"
    "Without a command it lists them.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@cards.callback()
def listed(
    context: typer.Context,
    measure: Annotated[
        str | None,
        typer.Option(
            "--measure",
            metavar="NAME|FILE",
            help="Measure what this model keeps under noise, as its card's [[measured.noise]] says it.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="PATH|NAME", help="With --measure: the images (default: the sample)."),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Only the table of networks under noise, as Markdown.")
    ] = False,
) -> None:
    """List the bundled cards, and what their networks keep under noise."""
    if context.invoked_subcommand is not None:
        return
    if data is not None and measure is None:
        raise UsageError("--data goes with --measure NAME, the model to measure on these images")
    printer = Printer()
    if measure is not None:
        _measure(measure, data, printer)
        return
    from onnxnoise.cli.output import cards as view
    from onnxnoise.data import leaderboard
    from onnxnoise.data.cards import bundled_names, load_bundled

    found = [load_bundled(name) for name in bundled_names()]
    if markdown:
        sys.stdout.write(leaderboard.markdown(found))
        return
    view.card_list(
        printer.shown,
        [
            (
                card.path.stem,
                "yes" if card.model.file else "",
                card.input.dataset,
                str(card.structure.layers or ""),
                card.model.title or "a template to copy",
            )
            for card in found
        ],
    )
    view.noise_list(printer.shown, leaderboard.HEADINGS, leaderboard.rows(found), leaderboard.LEGEND)


def _measure(name: str, data: str | None, printer: Printer) -> None:
    """Print the tables that a card gets, and each figure beside the card's; exit with 1 where an interval misses the card's."""
    from onnxnoise.cli.output import cards as view
    from onnxnoise.data.measured_noise import as_toml
    from onnxnoise.decisions.leaderboard import compared, measured_noise
    from onnxnoise.run.loading import open_with_card
    from onnxnoise.spec import BenchSpec

    _, card = open_with_card(name)
    found = measured_noise(BenchSpec(name, data=data), printer.progress)
    printer.shown.print("\n".join(map(as_toml, found)), soft_wrap=True)
    figures = list(compared(card, found))
    view.reproduced(printer.shown, figures)
    raise Decided(1 if any(figure.agrees is False for figure in figures) else 0)


@dataclass(frozen=True, kw_only=True)
class ShowFlags:
    """The flags that choose the card to show."""

    name: str = flag("", "NAME|FILE", "A bundled card's name, or a card file")
    toml: bool = flag("--toml", None, "The card's own TOML, to copy", default=False)


def show(own: ShowFlags, printer: Printer) -> None:
    """Print a card with its presets filled in, or as it is written."""
    from pathlib import Path

    from onnxnoise.cli.output import terminal
    from onnxnoise.data.cards import load_bundled, load_card
    from onnxnoise.files import is_there
    from onnxnoise.run.card_check import card_text

    card = load_card(Path(own.name)) if is_there(Path(own.name)) else load_bundled(own.name)
    if own.toml:
        terminal.lines(printer.shown, card.path.read_text("utf-8-sig"))
    else:
        terminal.pairs(printer.shown, card_text(card))


@dataclass(frozen=True, kw_only=True)
class NewFlags:
    """The flags that say of what a card is drafted, and where it goes."""

    model: str = flag("", "MODEL", "An ONNX file, or a bundled model's name")
    data: str | None = flag(
        "--data", "PATH|NAME", "Images with labels, to try the usual preprocessings on", default=None, syntax="path"
    )
    limit: int = flag("--limit", "N", "The number of images to try them on", default=300, syntax="whole", least=1)
    output: str | None = flag("--output", "NAME", "The graph output with the logits", default=None)
    out: str | None = flag(
        "-o --out",
        "FILE",
        "The card to write; - for standard output",
        default=None,
        by_default="MODEL.toml, beside the model",
    )


def new(own: NewFlags, printer: Printer) -> None:
    """Draft a model's card from the graph, from what lies beside the model and, with --data, from what fits images best.

    It never writes over a file; what no file tells stands in the card as a question.
    """
    from pathlib import Path

    from onnxnoise.cli.output import cards as view
    from onnxnoise.errors import CardError
    from onnxnoise.files import check_output, is_file, make_place
    from onnxnoise.run.new_card import new_card

    beside = Path(own.model).with_suffix(".toml") if is_file(Path(own.model)) else Path(f"{own.model}.toml")
    target = beside if own.out is None else None if own.out == "-" else Path(own.out)
    if target is not None and target.exists():
        raise CardError(f"{target}: is there already and stays; name another file with -o, or - for standard output")
    if target is not None:
        check_output(target, "-o")
    made = new_card(own.model, data=own.data, images=own.limit, output=own.output)
    if target is None:
        view.draft(printer.aside, made)
        sys.stdout.write(made.text)
        return
    try:
        make_place(target)
        with target.open("x", encoding="utf-8", newline="\n") as file:
            file.write(made.text)
    except OSError as error:
        raise CardError(f"{target}: can't be written: {error.strerror or error}; name another file with -o") from error
    view.draft(printer.shown, made)
    view.drafted(printer.shown, str(target), own.model, own.data, own.output)


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


for _command in (show, new, check):
    add(cards, _command)
