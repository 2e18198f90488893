"""`onnxnoise bench`: measure a noise profile."""

from __future__ import annotations

from dataclasses import dataclass

from onnxnoise.cli.options import Printer
from onnxnoise.errors import UsageError
from onnxnoise.fields import flag
from onnxnoise.flags import Given, from_flags


@dataclass(frozen=True, kw_only=True)
class BenchFlags:
    """The flags of `bench` that say how it measures and what it shows, beside those that ask for a profile."""

    dry_run: bool = flag(
        "--dry-run", None, "Only say what there is to measure, and how long it will take", default=False
    )
    verbose: bool = flag("-v --verbose", None, "Every layer in the table", default=False)


def bench(given: Given, own: BenchFlags, printer: Printer) -> None:
    """Measure how a model's accuracy falls under weight noise, layer by layer and all together."""
    from onnxnoise.cli.output import forecasts, profile, shards
    from onnxnoise.results.as_json import to_json
    from onnxnoise.run import forecast, runner

    spec = from_flags(**given)
    if spec.shard is not None and printer.json is not None:
        raise UsageError("--json: a shard has no result of its own; ask for it once the shards are merged")
    if own.dry_run:
        told = forecast.forecast(spec)
        printer.result(lambda: forecast.to_json(told), lambda shown: forecasts.forecast(shown, told))
        return
    if spec.shard is not None:
        with printer.progress() as progress:
            done = runner.measure_shard(spec, progress)
        shards.shard_done(printer.shown, done)
        return
    with printer.progress() as progress:
        result = runner.bench(spec, progress)
    printer.result(
        lambda: to_json(result),
        lambda shown: profile.result_tables(shown, result, all_layers=own.verbose),
        result.warnings,
    )
    if progress.run_file is not None:
        profile.next_steps(printer.aside, progress.run_file, chunked=spec.chunked, deterministic=spec.deterministic)
