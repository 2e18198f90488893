"""`onnxnoise report`: a page, an image or rows of what run files hold."""

from __future__ import annotations

from typing import Annotated

import typer

from onnxnoise.cli.options import METRICS, QuietOption, any_of, completing
from onnxnoise.reports.figures import IN_IMAGE, NAMES

_ASKED = ", ".join(name for name in NAMES if name not in IN_IMAGE)

# For help and completion, without the time that importing them takes; a test compares them.
ROWS = ("cells", "draws", "averages")


def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run files, as bench --out makes them.")],
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="What to write: .html (one page that works offline), .png or .svg (its figures), .csv or .json (rows).",
        ),
    ] = "report.html",
    figure: Annotated[
        str | None,
        typer.Option(
            "--figure",
            metavar="LIST",
            autocompletion=completing(NAMES),
            help=f"Of an image: only these of {', '.join(NAMES)} (default: all but {_ASKED}).",
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option("--rows", **any_of(ROWS), help="Of .csv and .json: a row a cell (default), draw or A_avr."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", **any_of(METRICS), help="What figures show (default: as the run was asked)."),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Show what runs found: figures and tables as a page or image, or rows for other programs."""
    from pathlib import Path

    from onnxnoise.cli.output import reports, terminal
    from onnxnoise.reports.writing import report as write

    opened = write(runs, Path(output), metric=metric, figure=figure, rows=rows)
    reports.written(terminal.consoles(quiet=quiet)[1], output, opened)
