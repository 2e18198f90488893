"""`onnxnoise plan`: which layers to keep digital."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnxnoise.cli.options import Decided, OutputFile, Printer
from onnxnoise.fields import flag
from onnxnoise.flags import Given, from_flags


@dataclass(frozen=True, kw_only=True)
class PlanFlags:
    """The flags that say what the plan is for, and how it is chosen and verified."""

    draws: int = flag(
        "--draws",
        "N",
        "Noise realizations (chips) that the choice is made on",
        default=5,
        syntax="whole",
        least=1,
    )
    fresh_draws: int = flag(
        "--fresh-draws", "N", "Further draws that the plan is verified on", default=10, syntax="whole"
    )
    max_share: float = flag(
        "--max-share", "SHARE", "Largest share of the parameters to keep digital", default=1.0, syntax="number"
    )
    map_out: str | None = flag(
        "--map-out", "FILE", "Write the plan as a noise map, which --noise-map takes", default=None, syntax="path"
    )

    dry_run: bool = flag(
        "--dry-run",
        None,
        "Only say what there is to measure, at least and at most, and how long it will take",
        default=False,
    )

    def __post_init__(self) -> None:
        if self.map_out is not None:
            _MAP.check(self.map_out)


_MAP = OutputFile("--map-out", b"#", "noise map")


def plan(own: PlanFlags, given: Given, printer: Printer) -> None:
    """Choose layers to keep digital so that the rest, all noisy, meets a target; verified on draws that did not choose.

    The choice is greedy: a smaller set may exist. Exits with 1 where the fresh draws miss the target.
    """
    from onnxnoise.cli.output import chips
    from onnxnoise.decisions.design import digital_layers

    spec = replace(from_flags(**given), draws=own.draws)
    if own.dry_run:
        from onnxnoise.cli.output import forecasts
        from onnxnoise.run.forecast import to_json

        told = digital_layers.plan_forecast(spec, max_share=own.max_share, fresh_draws=own.fresh_draws)
        cells = "sets of noisy layers, at most"
        printer.result(lambda: to_json(told), lambda shown: forecasts.forecast(shown, told, cells=cells))
        return
    made = digital_layers.plan(
        spec,
        max_share=own.max_share,
        fresh_draws=own.fresh_draws,
        tell=printer.aside.print,
    )
    if own.map_out is not None:
        _MAP.write(own.map_out, digital_layers.as_map(made))
    printer.result(lambda: digital_layers.to_json(made), lambda shown: chips.plan(shown, made), made.warnings)
    raise Decided(0 if made.met else 1)
