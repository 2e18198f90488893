"""`onnxnoise show`: the tables of finished runs again."""

from __future__ import annotations

from dataclasses import dataclass

from onnxnoise.cli.options import Printer
from onnxnoise.errors import UsageError
from onnxnoise.fields import flag
from onnxnoise.words import METRICS, Metric


@dataclass(frozen=True, kw_only=True)
class ShownFlags:
    """The flags that say which runs are shown, and how."""

    runs: tuple[str, ...] = flag("", "RUN", "Run files, as bench --out makes them", many=True)
    metric: Metric | None = flag(
        "--metric", None, "What the tables show", default=None, choices=METRICS, by_default="as the run was asked"
    )
    verbose: bool = flag("-v --verbose", None, "Every layer in the table", default=False)


def show_runs(own: ShownFlags, printer: Printer) -> None:
    """Print what run files hold, as the end of `bench` does; needs neither the model nor its images."""
    from onnxnoise.cli.output import profile
    from onnxnoise.results.as_json import to_json
    from onnxnoise.results.reading import results_of

    if printer.json is not None and len(own.runs) > 1:
        raise UsageError(f"--json: is for one run file, and {len(own.runs)} are given; ask for one at a time")
    results = [results_of(path, own.metric) for path in own.runs]
    for i, result in enumerate(results):
        if i and printer.json != "-":
            printer.shown.print()
        printer.result(
            lambda result=result: to_json(result),  # type: ignore[misc]
            lambda shown, result=result: profile.result_tables(shown, result, all_layers=own.verbose),  # type: ignore[misc]
            result.warnings,
        )
