"""The commands about noise models: list them, and show one with its formula, its source and what it leaves out."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from onnxnoise.cli.options import Commands, Printer, add
from onnxnoise.fields import flag
from onnxnoise.noise import MODELS

noise = typer.Typer(
    cls=Commands,
    help="Noise models: what --noise takes, with formulas, constants, sources, and what each leaves out.\n\n"
    "Without a command it lists them.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@noise.callback()
def listed(context: typer.Context) -> None:
    """List the noise models."""
    if context.invoked_subcommand is not None:
        return
    from onnxnoise.cli.output import noises
    from onnxnoise.noise.catalogue import entries

    noises.model_list(Printer().shown, entries())


@dataclass(frozen=True, kw_only=True)
class ShowFlags:
    """The flag that chooses the noise model to show."""

    name: str = flag("", "NAME", "A noise model that `onnxnoise noise` lists", choices=tuple(MODELS))


def show_model(own: ShowFlags, printer: Printer) -> None:
    """Print a noise model's formula, constants, source, default levels, and what it does not model."""
    from onnxnoise.cli.output import terminal
    from onnxnoise.noise.catalogue import entry

    terminal.pairs(printer.shown, entry(own.name).pairs)


add(noise, show_model, "show")
