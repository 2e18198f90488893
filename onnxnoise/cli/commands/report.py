"""`onnxnoise report`: a page, an image or rows of what run files hold."""

from __future__ import annotations

from dataclasses import dataclass

from onnxnoise.cli.options import Printer
from onnxnoise.fields import flag
from onnxnoise.reports.figures import IN_IMAGE, NAMES
from onnxnoise.words import METRICS, Metric

_ASKED = ", ".join(name for name in NAMES if name not in IN_IMAGE)

# For help and completion, without the time that importing them takes; a test compares them.
ROWS = ("cells", "draws", "averages")


@dataclass(frozen=True, kw_only=True)
class ReportFlags:
    """The flags that say what is shown, and in which file."""

    runs: tuple[str, ...] = flag("", "RUN", "Run files, as bench --out makes them", many=True)
    output: str = flag(
        "-o --output",
        "FILE",
        "What to write; its folder is made: .html (one page that works offline), .pdf (the page printed), .md or .tex (text and "
        "tables), .png or .svg (figures), .csv or .json (rows)",
        default="report.html",
    )
    figure: str | None = flag(
        "--figure",
        "LIST",
        f"Of an image: only these of {', '.join(NAMES)}",
        default=None,
        choices=NAMES,
        by_default=f"all but {_ASKED}",
    )
    rows: str | None = flag(
        "--rows", None, "Of .csv and .json: a row a cell, draw or A_avr", default=None, choices=ROWS, by_default=ROWS[0]
    )
    metric: Metric | None = flag(
        "--metric", None, "What figures show", default=None, choices=METRICS, by_default="as the run was asked"
    )


def report(own: ReportFlags, printer: Printer) -> None:
    """Show what runs found: figures and tables as a page or image, or rows for other programs."""
    from pathlib import Path

    from onnxnoise.cli.output import reports
    from onnxnoise.decisions.reporting import report as write

    opened = write(own.runs, Path(own.output), metric=own.metric, figure=own.figure, rows=own.rows)
    reports.written(printer.aside, own.output, opened)
