"""`onnxnoise merge`: join the run files of shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def merge(
    sources: Annotated[list[str], typer.Argument(metavar="RUN_FILE...", help="Run files of one run, two or more.")],
    out: Annotated[
        str, typer.Option("-o", "--out", metavar="FILE", help="The joined run file; added to if it is there.")
    ],
) -> None:
    """Join run files that were measured apart, as with `bench --shard`. What does not belong together is refused."""
    from onnxnoise.cli.output import shards, terminal
    from onnxnoise.results.merge import merge as join

    shown, _ = terminal.consoles(quiet=False)
    shards.merged(shown, join([Path(source) for source in sources], Path(out)))
