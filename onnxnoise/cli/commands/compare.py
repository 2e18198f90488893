"""`onnxnoise compare`: rank models under noise, and say which of them are a tie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from onnxnoise.cli.options import (
    BnOption,
    CleanCheckOption,
    DataOption,
    JsonOption,
    LimitOption,
    MetricOption,
    ProtocolOption,
    ProviderOption,
    QuietOption,
    ScopeOption,
    SeedOption,
    SnrOption,
    check_target,
    completing,
    write,
)


def compare(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL|RUN", help="ONNX files, bundled models' names, or run files: two or more."),
    ],
    card: Annotated[
        list[str] | None,
        typer.Option(
            "--card",
            metavar="[MODEL=]CARD",
            help="How the models want their images, or one of them; repeatable (default: beside each model).",
        ),
    ] = None,
    data: DataOption = None,
    snr: SnrOption = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            "--sweep",
            metavar="LIST",
            autocompletion=completing(("single", "all")),
            help="all: rank by accuracy with noise in all layers; single: by A_avr (default: single,all).",
        ),
    ] = None,
    draws: Annotated[
        str | None,
        typer.Option(
            "--draws", metavar="N", help="Noise realizations a cell (default: 3; of run files all they have)."
        ),
    ] = None,
    seed: SeedOption = None,
    protocol: ProtocolOption = None,
    bn: BnOption = None,
    sigma_scope: ScopeOption = None,
    metric: MetricOption = None,
    limit: LimitOption = None,
    provider: ProviderOption = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="FOLDER", help="Where the models' run files go (default: here).")
    ] = None,
    json_file: JsonOption = None,
    clean_check: CleanCheckOption = True,
    quiet: QuietOption = False,
) -> None:
    """Rank models by their accuracy under noise, with ties where the paired difference may be 0.

    Models are benched as needed, all on the same images and draws; run files are taken as they are.
    """
    from onnxnoise.cli.output import comparison as shown_as
    from onnxnoise.cli.output import terminal
    from onnxnoise.decisions.comparing import ranking as comparing
    from onnxnoise.decisions.comparing.records import QUANTITY_OF, to_json
    from onnxnoise.errors import UsageError
    from onnxnoise.results.run_hits import is_run_file
    from onnxnoise.spec import from_flags

    only_runs = all(map(is_run_file, models))
    settings = {
        "--card": card, "--data": data, "--seed": seed, "--protocol": protocol, "--bn": bn, "--sigma-scope": sigma_scope,
        "--provider": provider, "--out": out,
    }  # fmt: skip
    given = [flag for flag, value in settings.items() if value]
    if only_runs and given:
        raise UsageError(f"{given[0]}: says how models are benched, but only run files are given; leave it out")
    if len(models) < 2:
        raise UsageError("compare: needs two models or run files, or more; `onnxnoise bench` shows one")
    common, own = _cards(card or [], models)
    spec = from_flags(
        models[0],
        data=data,
        snrs=snr,
        sweeps=sweep,
        draws=draws,
        seed=seed,
        protocol=protocol,
        bn=bn,
        sigma_scope=sigma_scope,
        metric=metric,
        limit=limit,
        provider=provider,
        clean_check=clean_check,
        card=common,
    )
    for kind in spec.sweeps:
        if kind not in QUANTITY_OF:
            raise UsageError(f"--sweep: {kind!r} has no ranking; use single, all")
    check_target(json_file)
    shown, aside = terminal.consoles(quiet=quiet)
    paths, of_card = list(map(Path, models)), None
    if not only_runs:
        from onnxnoise.cli.output.progress import LiveProgress
        from onnxnoise.decisions.comparing import compare as measured

        paths, of_card = measured.run_files(models, spec, own, out, lambda: LiveProgress(aside))
    result = comparing.compare(
        paths,
        comparing.Asked(
            metric=spec.metric or of_card or "top1",
            levels=spec.swept if snr is not None or not only_runs else None,
            quantities=tuple(QUANTITY_OF[kind] for kind in spec.sweeps) if sweep is not None or not only_runs else None,
            draws=spec.draws if draws is not None or not only_runs else None,
            images=spec.limit,
        ),
    )
    if json_file is not None:
        write(json_file, to_json(result))
    if json_file != "-":
        shown_as.comparison_tables(shown, result)
    terminal.warnings(aside, result.warnings)


def _cards(given: Sequence[str], models: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    """(the card of all models, those of single ones) from the texts of --card; raises UsageError."""
    from onnxnoise.errors import UsageError

    common: list[str] = []
    own: dict[str, str] = {}
    for text in given:
        model = next((name for name in models if text.startswith(f"{name}=")), None)
        if model is None:
            common.append(text)
        else:
            own[model] = text.removeprefix(f"{model}=")
    if len(common) > 1:
        raise UsageError(
            f"--card: {common[0]!r} and {common[1]!r} can't both be for all models; write MODEL=CARD, with MODEL as it is given"
        )
    return common[0] if common else None, own
