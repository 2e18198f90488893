"""The table of realized noise: at each level the lowest, the median and the highest of the layers."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from onnxnoise.cli.output.terminal import plain_table, print_table
from onnxnoise.noise.models import level_of
from onnxnoise.records import Result
from onnxnoise.text import counted, three


def realized_table(console: Console, result: Result) -> None:
    """Print what the layers' values really got: SNR, gain and offset at each level, over the layers; nothing without them."""
    if not result.realized_layers:
        return
    level = level_of(result.noise)
    many = counted(result.realized_layers[0].layers, "layer")
    console.print()
    console.print(Text(f"What the weights really got: lowest, median and highest of {many}", "bold"))
    table = plain_table()
    for heading in (level.name, "SNR", "gain", "offset"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in result.realized_layers:
        table.add_row(level.number(each.level), three(each.snr, "{:.3g}"), three(each.gain), three(each.offset))
    print_table(console, table, 0)
    console.print(
        Text(
            "SNR: sd(w) / sd(w' - w) of a layer; gain: sum(w w') / sum(w w); offset: mean(w' - w) / sd(w); of each layer: --json",
            "dim",
        ),
    )
