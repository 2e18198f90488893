"""`onnxnoise gate`: may this build be deployed?"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from onnxnoise.cli.options import Decided, OutputFile, Printer
from onnxnoise.errors import UsageError
from onnxnoise.fields import flag
from onnxnoise.flags import Given, bench_flags

if TYPE_CHECKING:
    from onnxnoise.decisions.gating.rules import Rules
    from onnxnoise.spec import BenchSpec

FAILED, INCONCLUSIVE = 1, 5
ON_INCONCLUSIVE = {"pass": 0, "fail": FAILED, "5": INCONCLUSIVE}
_JUNIT = OutputFile("--junit", b"<", "XML")


@dataclass(frozen=True, kw_only=True)
class GateFlags:
    """The flags that say what is gated by which rules, and how the verdict is reported."""

    model: str | None = flag("", "MODEL|RUN", "An ONNX file, a bundled model's name, or a run file", default=None)
    rules: str | None = flag(
        "--rules",
        "FILE",
        "TOML with the rules",
        default=None,
        by_default="./onnxnoise.toml, else [tool.onnxnoise.gate] in ./pyproject.toml",
    )
    on_inconclusive: Literal["pass", "fail", "5"] = flag(
        "--on-inconclusive",
        None,
        "What an inconclusive verdict exits with",
        default="5",
        choices=tuple(ON_INCONCLUSIVE),
    )
    junit: str | None = flag("--junit", "FILE", "Write JUnit XML, a test case for each rule", default=None)
    check: str | None = flag(
        "--check",
        "FILE",
        "Only read this rules file and say whether all in it can be used; no model is needed",
        default=None,
    )

    dry_run: bool = flag(
        "--dry-run",
        None,
        "Only say what there is to measure, at least and at most, and how long it will take",
        default=False,
    )

    def __post_init__(self) -> None:
        if self.junit in ("", "-"):
            raise UsageError("--junit: name a file to write; standard output is for the table, or for --json -")
        if self.junit is not None:
            _JUNIT.check(self.junit)


def gate(own: GateFlags, given: Given, printer: Printer) -> None:
    """Hold a model to rules: pass (exit 0), fail (1) or inconclusive (5).

    Draws of a model are measured, each on a chunk of images, until the evidence decides each rule. Flags override the rules
    file's [bench] table. In GitHub Actions it also writes a summary and annotations.
    """
    from onnxnoise.cli.output import verdicts
    from onnxnoise.decisions.gating import gate as gating
    from onnxnoise.decisions.gating import github
    from onnxnoise.decisions.gating.junit import junit_xml
    from onnxnoise.decisions.gating.records import to_json
    from onnxnoise.decisions.gating.rules import bench_spec, check_rules, find_rules, load_rules
    from onnxnoise.results.run_hits import is_run_file

    if own.check is not None:
        verdicts.checked(printer.shown, check_rules(Path(own.check)))
        return
    if own.model is None:
        raise UsageError(
            "gate: name an ONNX file, a bundled model or a run file; or give --check FILE to read rules alone"
        )
    rules = load_rules(find_rules(own.rules))
    on_github = os.environ.get("GITHUB_ACTIONS") == "true"
    told = sys.stderr if printer.json == "-" else sys.stdout  # the runner reads both
    with github.untrusted(told) if on_github else nullcontext():
        if is_run_file(own.model):
            _refuse_settings(own.model, given)
        spec = bench_spec(own.model, rules, given)
        if own.dry_run:
            _say_forecast(own.model, spec, rules, printer)
            return
        result = gating.gate(own.model, rules, spec, printer.progress)
        if own.junit is not None:
            _JUNIT.write(own.junit, junit_xml(result, own.on_inconclusive))
        printer.result(lambda: to_json(result), lambda shown: verdicts.verdict_table(shown, result), result.warnings)
        sys.stdout.flush()
    if on_github:
        _append_summary(github.summary(result), printer)
        for line in github.commands(result, inconclusive_stops=own.on_inconclusive != "pass"):
            told.write(f"{line}\n")
    codes = {"pass": 0, "fail": FAILED, "inconclusive": ON_INCONCLUSIVE[own.on_inconclusive]}
    raise Decided(codes[result.verdict])


def _say_forecast(model: str, spec: BenchSpec, rules: Rules, printer: Printer) -> None:
    """Show what a gate of a model would measure; raises UsageError for a run file, of which nothing is measured."""
    from onnxnoise.cli.output import forecasts
    from onnxnoise.decisions.gating.gate import gate_forecast
    from onnxnoise.results.run_hits import is_run_file
    from onnxnoise.run.forecast import to_json

    if is_run_file(model):
        raise UsageError(f"--dry-run: {model} is a run file, which is gated as it is; leave it out")
    told = gate_forecast(spec, rules)
    printer.result(lambda: to_json(told), lambda shown: forecasts.forecast(shown, told, decides=True))


def _refuse_settings(run_file: str, given: Given) -> None:
    """Raise UsageError for a flag that says how a model is benched; a run file was benched already."""
    for name, each in bench_flags("gate").items():
        if name in given and name != "limit":
            raise UsageError(f"{each.name}: says how a model is benched, but {run_file} is a run file; leave it out")


def _append_summary(text: str, printer: Printer) -> None:
    """Add `text` to the file that GitHub's runner shows as a step's summary; if it can't be written, the verdict stays."""
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if not target:
        return
    try:
        with Path(target).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        from onnxnoise.cli.output import terminal
        from onnxnoise.records import Notice

        reason = error.strerror or str(error)
        terminal.warnings(
            printer.aside, [Notice("summary", f"{target}: the step's summary can't be written: {reason}")]
        )
