"""`onnxnoise plan`: which layers to keep digital."""

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
    check_target,
    write,
)


def plan(
    model: ModelArgument,
    snr: Annotated[str, typer.Option("--snr", metavar="SNR", help="The hardware's sigma_w / sigma_noise.")],
    target: TargetOption = None,
    card: CardOption = None,
    data: DataOption = None,
    draws: Annotated[
        str, typer.Option("--draws", metavar="N", help="Noise realizations (chips) that the choice is made on.")
    ] = "5",
    fresh_draws: Annotated[
        str, typer.Option("--fresh-draws", metavar="N", help="Others that the plan is verified on.")
    ] = "10",
    max_share: Annotated[
        str, typer.Option("--max-share", metavar="SHARE", help="Largest share of the parameters to keep digital.")
    ] = "1",
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
    """Choose layers to keep digital so that the rest, all noisy, meets a target; verified on draws that did not choose.

    The choice is greedy: a smaller set may exist. Exits with 1 where the fresh draws miss the target.
    """
    from onnxnoise.cli.output import chips, terminal
    from onnxnoise.decisions.design import digital_layers as digital
    from onnxnoise.spec import from_flags, number, whole

    spec = from_flags(
        model,
        snrs=snr,
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
    check_target(json_file)
    shown, aside = terminal.consoles(quiet=quiet)
    made = digital.plan(
        spec,
        max_share=number("--max-share", max_share),
        fresh_draws=whole("--fresh-draws", fresh_draws) or 0,
        tell=lambda text: aside.print(text, soft_wrap=True),
    )
    if json_file is not None:
        write(json_file, digital.to_json(made))
    if json_file != "-":
        chips.plan(shown, made)
    terminal.warnings(aside, made.warnings)
    if not made.met:
        raise typer.Exit(1)
