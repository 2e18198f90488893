"""`onnxnoise bench`: measure a noise profile."""

from __future__ import annotations

from typing import Annotated

import typer

from onnxnoise.cli.options import (
    BnOption,
    BudgetOption,
    CardOption,
    CleanCheckOption,
    ClusterOption,
    DataOption,
    DrawsOption,
    DryRunOption,
    JsonOption,
    LayersOption,
    LimitOption,
    MaxDrawsOption,
    MemoryOption,
    MetricOption,
    ModelArgument,
    OutOption,
    OutputOption,
    PrecisionOption,
    ProtocolOption,
    ProviderOption,
    QuietOption,
    ResourcesOption,
    ScopeOption,
    SeedOption,
    ShardOption,
    SnrOption,
    SweepOption,
    TargetOption,
    WorkersOption,
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
    precision: PrecisionOption = None,
    max_draws: MaxDrawsOption = None,
    budget: BudgetOption = None,
    seed: SeedOption = None,
    protocol: ProtocolOption = None,
    layers: LayersOption = None,
    bn: BnOption = None,
    sigma_scope: ScopeOption = None,
    metric: MetricOption = None,
    target: TargetOption = None,
    limit: LimitOption = None,
    dry_run: DryRunOption = False,
    memory: MemoryOption = None,
    provider: ProviderOption = None,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    cluster_resources: ResourcesOption = None,
    shard: ShardOption = None,
    out: OutOption = None,
    json_file: JsonOption = None,
    output: OutputOption = None,
    clean_check: CleanCheckOption = True,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Every layer in the table.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Measure how a model's accuracy falls under weight noise, layer by layer and all together."""
    from onnxnoise.cli.output import forecasts, profile, shards, terminal
    from onnxnoise.cli.output.progress import LiveProgress
    from onnxnoise.errors import UsageError
    from onnxnoise.results.as_json import to_json
    from onnxnoise.run import forecast, runner
    from onnxnoise.spec import from_flags

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
        workers=workers,
        cluster=cluster,
        resources=cluster_resources,
        shard=shard,
        precision=precision,
        max_draws=max_draws,
        budget=budget,
        out=out,
        output=output,
        clean_check=clean_check,
    )
    if spec.shard is not None and json_file is not None:
        raise UsageError("--json: a shard has no result of its own; ask for it once the shards are merged")
    check_target(json_file)
    if dry_run:
        told = forecast.forecast(spec)
        if json_file is not None:
            write(json_file, forecast.to_json(told))
        if json_file != "-":
            forecasts.forecast(terminal.consoles(quiet=False)[0], told)
        return
    shown, aside = terminal.consoles(quiet=quiet)
    if spec.shard is not None:
        with LiveProgress(aside) as progress:
            done = runner.measure_shard(spec, progress)
        shards.shard_done(shown, done)
        return
    with LiveProgress(aside) as progress:
        result = runner.bench(spec, progress)
    if json_file is not None:
        write(json_file, to_json(result))
    if json_file != "-":
        profile.result_tables(shown, result, all_layers=verbose)
    terminal.warnings(aside, result.warnings)
