"""The list that `ls` prints: a few lines for each run file in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from onnxnoise.cli.output.terminal import few
from onnxnoise.text import counted, safe, shortened

if TYPE_CHECKING:
    from onnxnoise.results.listed import Found

_SHOWN = 4
"""The most levels of one run whose accuracies are listed."""


def run_files(console: Console, folder: str, found: Sequence[Found]) -> None:
    """Print each run file's name, then its model and images, its noise, and what it found."""
    for each in found:
        console.print(Text(safe(each.path.name), "bold"))
        if each.problem is not None or each.model is None or each.dataset is None:
            console.print(Text.assemble(("  not readable: ", "red"), safe(each.problem or "")))
            continue
        done = "complete" if (each.done or 0) >= 1 else f"{each.done:.0%} measured"
        console.print(
            f"  {shortened(each.model['name'], 40)} ({each.model['sha256'][:8]}) on "
            f"{counted(int(each.dataset['images']), 'image')} of {shortened(str(each.dataset['name']), 40)}; {done}",
        )
        console.print(Text(f"  {(each.noise or '').removeprefix('weight noise, ')}; seed {each.seed}", "dim"))
        console.print(f"  clean {each.clean:.1%}{_headline(each)}")
    if not found:
        console.print(f"no run files in {safe(folder)}; `onnxnoise bench MODEL` makes one in the working folder")
    else:
        console.print(Text("`onnxnoise show FILE` prints a run's tables", "dim"))


def _headline(each: Found) -> str:
    if not each.found:
        return ""
    shares = "; ".join(f"{mean:.2f} at {level}" for level, mean in few(each.found, _SHOWN))
    return f"; {each.of}: {shares} of clean" if each.of == "A_avr" else f"; with noise in {each.of}: {shares}, of clean"
