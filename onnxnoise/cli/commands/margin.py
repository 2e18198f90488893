"""`onnxnoise margin`: the most noise that still meets a target."""

from __future__ import annotations

from typing import Annotated

import typer

from onnxnoise.cli.options import (
    BnOption,
    CardOption,
    CleanCheckOption,
    DataOption,
    JsonOption,
    LayersOption,
    LimitOption,
    MemoryOption,
    MetricOption,
    ModelArgument,
    OutOption,
    OutputOption,
    ProviderOption,
    QuietOption,
    ScopeOption,
    SeedOption,
    TargetOption,
    any_of,
    check_target,
    write,
)

_DRAWS = "5"


def margin(
    model: ModelArgument,
    target: TargetOption = None,
    sweep: Annotated[
        str,
        typer.Option("--sweep", **any_of(("all", "single")), help="Of all layers together, or of each layer alone."),
    ] = "all",
    card: CardOption = None,
    data: DataOption = None,
    draws: Annotated[
        str, typer.Option("--draws", metavar="N", help="Noise realizations (chips), the same at every SNR.")
    ] = _DRAWS,
    tolerance: Annotated[
        str, typer.Option("--tolerance", metavar="SHARE", help="How close to the target's SNR: 0.05 is 5 %.")
    ] = "0.05",
    snr_range: Annotated[
        str, typer.Option("--range", metavar="LOW,HIGH", help="SNRs between which to look.")
    ] = "0.1,1000",
    seed: SeedOption = None,
    layers: LayersOption = None,
    bn: BnOption = None,
    sigma_scope: ScopeOption = None,
    metric: MetricOption = None,
    limit: LimitOption = None,
    memory: MemoryOption = None,
    provider: ProviderOption = None,
    out: OutOption = None,
    json_file: JsonOption = None,
    output: OutputOption = None,
    clean_check: CleanCheckOption = True,
    quiet: QuietOption = False,
) -> None:
    """Find the lowest SNR at which the accuracy still meets a target, for all layers together or each one alone."""
    from onnxnoise.cli.output import chips, terminal
    from onnxnoise.cli.output.progress import LiveProgress
    from onnxnoise.decisions.design import margins
    from onnxnoise.errors import UsageError
    from onnxnoise.spec import from_flags, number

    spec = from_flags(
        model,
        sweeps=sweep,
        card=card,
        data=data,
        draws=draws,
        seed=seed,
        layers=layers,
        bn=bn,
        sigma_scope=sigma_scope,
        metric=metric,
        target=target,
        limit=limit,
        memory=memory,
        provider=provider,
        out=out,
        output=output,
        clean_check=clean_check,
    )
    ends = [number("--range", part, "0.1,1000") for part in snr_range.split(",")]
    if len(ends) != 2:
        raise UsageError(f"--range: {snr_range!r} is not two numbers; write for example --range 0.1,1000")
    check_target(json_file)
    shown, aside = terminal.consoles(quiet=quiet)
    found = margins.margin(
        spec,
        tolerance=number("--tolerance", tolerance),
        range_=(ends[0], ends[1]),
        watching=lambda: LiveProgress(aside),
    )
    if json_file is not None:
        write(json_file, margins.to_json(found))
    if json_file != "-":
        chips.margins(shown, found)
    terminal.warnings(aside, found.warnings)
