"""`onnxnoise margin`: the most noise that still meets a target."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnxnoise.cli.options import Printer
from onnxnoise.errors import UsageError
from onnxnoise.fields import flag
from onnxnoise.flags import Given, from_flags
from onnxnoise.words import Sweep


@dataclass(frozen=True, kw_only=True)
class MarginFlags:
    """The flags that say of what the margin is, and how it is searched for."""

    sweep: Sweep = flag(
        "--sweep", None, "Of all layers together, or of each layer alone", default="all", choices=("all", "single")
    )
    draws: int | None = flag(
        "--draws",
        "N",
        "Every one of N noise realizations (chips) meets every image, at every level",
        default=None,
        syntax="whole",
        least=1,
        by_default="each chunk of images meets chips of its own",
    )
    tolerance: float = flag(
        "--tolerance", "SHARE", "How close to the target's level: 0.05 is 5 %", default=0.05, syntax="number"
    )
    range: tuple[float, ...] | None = flag(
        "--range",
        "LOW,HIGH",
        "Levels between which to look",
        default=None,
        syntax="levels",
        example="0.1,1000",
        by_default="SNR 0.1,1000, or the noise model's own",
    )

    def __post_init__(self) -> None:
        if self.range is not None and len(self.range) != 2:
            raise UsageError(f"--range: {len(self.range)} are given, not two; write for example --range 0.1,1000")


def margin(own: MarginFlags, given: Given, printer: Printer) -> None:
    """Find the most noise at which the accuracy still meets a target, for all layers together or each one alone."""
    from onnxnoise.cli.output import chips
    from onnxnoise.decisions.design import margins

    found = margins.margin(
        replace(from_flags(**given), sweeps=(own.sweep,), draws=own.draws),
        tolerance=own.tolerance,
        range_=(own.range[0], own.range[1]) if own.range else None,
        watching=printer.progress,
    )
    printer.result(lambda: margins.to_json(found), lambda shown: chips.margins(shown, found), found.warnings)
