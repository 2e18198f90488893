"""`onnxnoise apply`: one chip as an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass

from onnxnoise.cli.options import Printer
from onnxnoise.fields import flag
from onnxnoise.flags import Given, from_flags


@dataclass(frozen=True, kw_only=True)
class ApplyFlags:
    """The flags that choose a chip and the file for it."""

    out: str = flag("-o --out", "FILE", "The ONNX file to write; its folder is made")
    draw: int = flag("--draw", "N", "Which chip: the draw's number, from 0", default=0, syntax="whole")


def apply(own: ApplyFlags, given: Given, printer: Printer) -> None:
    """Write one chip as an ordinary ONNX file: the model with one draw of noise in its weights.

    Its hits are those of that draw in `bench`. The file has the logits as its output, before a final Softmax.
    """
    from onnxnoise.cli.output import chips
    from onnxnoise.decisions.design import chip

    made = chip.write_chip(from_flags(**given), own.out, own.draw)
    chips.written(printer.shown, made)
