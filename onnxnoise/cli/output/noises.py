"""The table that `onnxnoise noise` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from onnxnoise.cli.output.terminal import plain_table, print_table
from onnxnoise.noise.catalogue import Entry


def model_list(console: Console, entries: Sequence[Entry]) -> None:
    """Print the noise models: name, level, default levels, and what each is."""
    table = plain_table()
    for heading in ("model", "level", "default levels", "is"):
        table.add_column(heading, no_wrap=heading not in ("default levels", "is"))
    for each in entries:
        table.add_row(each.name, "-" if each.level.only is not None else each.level.name, each.swept, each.summary)
    print_table(console, table, 0)
    last = "A chain joins them: quantize:4+pcm+stuck:0.001. `onnxnoise noise show NAME` says more."
    console.print(Text(f"\n{last}", "dim"))
