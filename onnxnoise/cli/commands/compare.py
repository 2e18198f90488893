"""`onnxnoise compare`: rank models under noise, and say which of them are a tie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxnoise.cli.options import Printer
from onnxnoise.errors import UsageError
from onnxnoise.fields import flag
from onnxnoise.flags import Given, bench_flags, from_flags
from onnxnoise.spec import DEFAULT_SWEEPS
from onnxnoise.words import Sweep

_OF_RUN_FILES = ("snrs", "levels", "metric", "limit")
"""The flags of BenchSpec that also choose from run files; all others only say how models are benched."""


@dataclass(frozen=True, kw_only=True)
class CompareFlags:
    """The flags that name the models to compare, and those whose meaning for several models differs from `bench`'s."""

    models: tuple[str, ...] = flag(
        "", "MODEL|RUN", "ONNX files, bundled models' names, or run files: two or more", many=True
    )
    cards: tuple[str, ...] = flag(
        "--card",
        "[MODEL=]CARD",
        "How the models want their images, or one of them; repeatable",
        default=(),
        by_default="beside each model",
        many=True,
    )
    sweeps: tuple[Sweep, ...] | None = flag(
        "--sweep",
        "LIST",
        "all: rank by accuracy with noise in all layers; single: by A_avr",
        default=None,
        syntax="words",
        choices=DEFAULT_SWEEPS,
        by_default=",".join(DEFAULT_SWEEPS),
    )
    draws: int | None = flag(
        "--draws",
        "N",
        "Every one of N noise realizations (chips) meets every image",
        default=None,
        syntax="whole",
        least=1,
        by_default="each chunk of images meets chips of its own; of run files all they have",
    )
    out: str | None = flag(
        "--out", "FOLDER", "The folder for the models' run files; it is made", default=None, by_default="this one"
    )


def compare(own: CompareFlags, given: Given, printer: Printer) -> None:
    """Rank models by their accuracy under noise, with ties where the paired difference may be 0.

    Models are benched as needed, all on the same images and draws; run files are taken as they are.
    """
    from onnxnoise.cli.output import comparison as shown_as
    from onnxnoise.decisions.comparing import compare as comparing
    from onnxnoise.decisions.comparing.ranking import Asked
    from onnxnoise.decisions.comparing.records import QUANTITY_OF, to_json
    from onnxnoise.results.run_hits import is_run_file

    card, cards = _cards(own.cards, own.models)
    spec = replace(from_flags("", **given), card=card)
    spec = replace(spec, sweeps=own.sweeps or spec.sweeps, draws=own.draws or spec.draws)
    asked = None
    if only_runs := all(map(is_run_file, own.models)):
        settings = {name: each.name for name, each in bench_flags("compare").items() if name not in _OF_RUN_FILES}
        options = [option for name, option in settings.items() if name in given]
        options += ["--card"] * bool(own.cards) + ["--out"] * bool(own.out)
        if options:
            raise UsageError(f"{options[0]}: says how models are benched, but only run files are given; leave it out")
        asked = Asked(
            metric=spec.metric or "top1",
            levels=spec.levels or spec.snrs,
            quantities=tuple(QUANTITY_OF[sweep] for sweep in own.sweeps) if own.sweeps else None,
            draws=own.draws,
            images=spec.limit,
        )
    result = comparing.compare(
        own.models,
        None if only_runs else spec,
        asked=asked,
        cards=cards,
        folder=own.out,
        watching=printer.progress,
    )
    printer.result(lambda: to_json(result), lambda shown: shown_as.comparison_tables(shown, result), result.warnings)


def _cards(given: Sequence[str], models: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    """(the card of all models, those of single ones) from the texts of --card; raises UsageError."""
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
