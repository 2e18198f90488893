"""The lines that `report` prints: the file that was written, and the runs that are not finished."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from onnxnoise.text import safe

if TYPE_CHECKING:
    from onnxnoise.results.reading import OpenedRun


def written(console: Console, output: str, runs: Sequence[OpenedRun]) -> None:
    """Print one line for the file, and one for each run that is not finished."""
    console.print(f"wrote {safe(output)}")
    for run in runs:
        if run.measured < run.planned:
            console.print(
                Text.assemble(
                    ("unfinished: ", "yellow"),
                    f"{safe(str(run.path))} has {run.measured:,} of {run.planned:,} passes ({run.measured / run.planned:.1%}); "
                    "what is complete is in the report",
                ),
            )
