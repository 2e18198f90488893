"""`onnxnoise merge`: join the run files of shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnxnoise.cli.options import Printer
from onnxnoise.fields import flag


@dataclass(frozen=True, kw_only=True)
class MergeFlags:
    """The flags that name the run files to join, and the file for the result."""

    sources: tuple[str, ...] = flag("", "RUN_FILE", "Run files of one run, two or more", many=True)
    out: str = flag("-o --out", "FILE", "The joined run file; added to if it is there, else its folder is made")


def merge(own: MergeFlags, printer: Printer) -> None:
    """Join run files that were measured apart, as with `bench --shard`. What does not belong together is refused."""
    from onnxnoise.cli.output import shards
    from onnxnoise.results.run_file.merge import merge as join

    shards.merged(printer.shown, join([Path(source) for source in own.sources], Path(own.out)))
