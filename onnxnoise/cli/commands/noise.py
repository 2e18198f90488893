"""The commands about noise models: list them, and show one with its formula, its source and what it leaves out."""

from __future__ import annotations

from typing import Annotated

import typer

from onnxnoise.cli.options import Printer, completing
from onnxnoise.noise import MODELS

noise = typer.Typer(
    help="Noise models: what --noise takes, with formulas, constants, sources, and what each leaves out.",
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


@noise.command("show")
def show_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A noise model.", autocompletion=completing(MODELS))],
) -> None:
    """Print a noise model's formula, constants, source, default levels, and what it does not model."""
    from onnxnoise.cli.output import terminal
    from onnxnoise.noise.catalogue import entry

    terminal.pairs(Printer().shown, entry(name).pairs)
