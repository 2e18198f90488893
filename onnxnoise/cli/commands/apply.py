"""`onnxnoise apply`: one chip instance as an ONNX file."""

from __future__ import annotations

from typing import Annotated

import typer

from onnxnoise.cli.options import BnOption, LayersOption, ModelArgument, OutputOption, ScopeOption, SeedOption


def apply(
    model: ModelArgument,
    snr: Annotated[str, typer.Option("--snr", metavar="SNR", help="sigma_w / sigma_noise, an amplitude ratio.")],
    out: Annotated[str, typer.Option("-o", "--out", metavar="FILE", help="The ONNX file to write.")],
    draw: Annotated[str, typer.Option("--draw", metavar="N", help="Which chip: the draw's number, from 0.")] = "0",
    layers: LayersOption = None,
    bn: BnOption = None,
    sigma_scope: ScopeOption = None,
    seed: SeedOption = None,
    output: OutputOption = None,
) -> None:
    """Write one chip as an ordinary ONNX file: the model with one draw of noise in its weights.

    Its hits are those of that draw in `bench`. The file has the logits as its output, before a final Softmax.
    """
    from onnxnoise.cli.output import chips, terminal
    from onnxnoise.decisions.design import chip
    from onnxnoise.spec import from_flags, whole

    spec = from_flags(model, snrs=snr, seed=seed, layers=layers, bn=bn, sigma_scope=sigma_scope, output=output)
    made = chip.write_chip(spec, out, whole("--draw", draw) or 0)
    chips.written(terminal.consoles(quiet=False)[0], made)
