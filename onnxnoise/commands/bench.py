"""`onnxnoise bench`: measure a noise profile."""

from __future__ import annotations

from typing import Annotated

import typer

from onnxnoise.commands.options import (
    BnOption,
    CardOption,
    CleanCheckOption,
    DataOption,
    DrawsOption,
    JsonOption,
    LayersOption,
    LimitOption,
    MemoryOption,
    MetricOption,
    ModelArgument,
    OutOption,
    OutputOption,
    ProtocolOption,
    ProviderOption,
    QuietOption,
    ScopeOption,
    SeedOption,
    SnrOption,
    SweepOption,
    TargetOption,
    check_target,
    write,
)


def bench(
    model: ModelArgument,
    card: CardOption = None,
    data: DataOption = None,
    snr: SnrOption = None,
    sweep: SweepOption = None,
    draws: DrawsOption = None,
    seed: SeedOption = None,
    protocol: ProtocolOption = None,
    layers: LayersOption = None,
    bn: BnOption = None,
    sigma_scope: ScopeOption = None,
    metric: MetricOption = None,
    target: TargetOption = None,
    limit: LimitOption = None,
    memory: MemoryOption = None,
    provider: ProviderOption = None,
    out: OutOption = None,
    json_file: JsonOption = None,
    output: OutputOption = None,
    clean_check: CleanCheckOption = True,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Every layer in the table.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Measure how a model's accuracy falls under weight noise, layer by layer and all together."""
    from onnxnoise import results, runner  # noqa: PLC0415
    from onnxnoise.console import profile, terminal  # noqa: PLC0415
    from onnxnoise.progress import LiveProgress  # noqa: PLC0415
    from onnxnoise.spec import from_flags  # noqa: PLC0415

    spec = from_flags(
        model,
        card=card,
        data=data,
        snrs=snr,
        sweeps=sweep,
        draws=draws,
        seed=seed,
        protocol=protocol,
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
    check_target(json_file)
    shown, aside = terminal.consoles(quiet=quiet)
    with LiveProgress(aside) as progress:
        result = runner.bench(spec, progress)
    if json_file is not None:
        write(json_file, results.to_json(result))
    if json_file != "-":
        profile.result_tables(shown, result, all_layers=verbose)
    terminal.warnings(aside, result.warnings)
