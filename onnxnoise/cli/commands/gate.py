"""`onnxnoise gate`: may this build be deployed?"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxnoise.cli.options import (
    BnOption,
    CardOption,
    DataOption,
    JsonOption,
    LimitOption,
    OutOption,
    OutputOption,
    ProtocolOption,
    ProviderOption,
    QuietOption,
    ScopeOption,
    SeedOption,
    any_of,
    check_target,
    write,
)
from onnxnoise.errors import RunFileError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from onnxnoise.decisions.gating.records import GateVerdict
    from onnxnoise.decisions.gating.rules import Rules

FAILED, INCONCLUSIVE = 1, 5
ON_INCONCLUSIVE = {"pass": 0, "fail": FAILED, "5": INCONCLUSIVE}


def gate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL|RUN", help="An ONNX file, a bundled model's name, or a run file.")
    ],
    rules: Annotated[
        str | None,
        typer.Option(
            "--rules",
            metavar="FILE",
            help="TOML with the rules (default: ./onnxnoise.toml, else [tool.onnxnoise.gate] in ./pyproject.toml).",
        ),
    ] = None,
    card: CardOption = None,
    data: DataOption = None,
    seed: SeedOption = None,
    protocol: ProtocolOption = None,
    bn: BnOption = None,
    sigma_scope: ScopeOption = None,
    limit: LimitOption = None,
    provider: ProviderOption = None,
    out: OutOption = None,
    output: OutputOption = None,
    clean_check: Annotated[
        bool | None,
        typer.Option("--clean-check/--no-clean-check", help="Stop where the clean accuracy can't be the card's."),
    ] = None,
    on_inconclusive: Annotated[
        str,
        typer.Option(
            "--on-inconclusive", **any_of(tuple(ON_INCONCLUSIVE)), help="What an inconclusive verdict exits with."
        ),
    ] = "5",
    json_file: JsonOption = None,
    junit: Annotated[
        str | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML, a test case for each rule.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Hold a model to rules: pass (exit 0), fail (1) or inconclusive (5).

    A model's draws are measured until each rule is decided, 40 at most. Flags go before the rules file's [bench] table.
    In GitHub Actions it also writes a summary and annotations.
    """
    from onnxnoise.cli.output import terminal, verdicts
    from onnxnoise.decisions.gating import github
    from onnxnoise.decisions.gating.junit import junit_xml
    from onnxnoise.decisions.gating.records import to_json
    from onnxnoise.decisions.gating.rules import find_rules, load_rules
    from onnxnoise.spec import one_of

    if on_inconclusive not in ON_INCONCLUSIVE:
        one_of("--on-inconclusive", on_inconclusive, tuple(ON_INCONCLUSIVE))
    given: dict[str, Any] = {
        "card": card,
        "data": data,
        "seed": seed,
        "protocol": protocol,
        "bn": bn,
        "sigma_scope": sigma_scope,
        "limit": limit,
        "provider": provider,
        "output": output,
        "clean_check": clean_check,
    }
    given = {key: value for key, value in given.items() if value is not None}
    rulebook = load_rules(find_rules(rules))
    check_target(json_file)
    _check_junit(junit)
    on_github = os.environ.get("GITHUB_ACTIONS") == "true"
    told = sys.stderr if json_file == "-" else sys.stdout  # the runner reads both
    with github.untrusted(told) if on_github else nullcontext():
        shown, aside = terminal.consoles(quiet=quiet)
        result = _gated(model, rulebook, given, out, aside)
        if json_file is not None:
            write(json_file, to_json(result))
        if junit is not None:
            _write_junit(junit, junit_xml(result, on_inconclusive))  # type: ignore[arg-type]
        if json_file != "-":
            verdicts.verdict_table(shown, result)
        terminal.warnings(aside, result.warnings)
        sys.stdout.flush()
    if on_github:
        _append_summary(github.summary(result), aside)
        for line in github.commands(result, inconclusive_stops=on_inconclusive != "pass"):
            told.write(f"{line}\n")
    raise typer.Exit(_code(result, on_inconclusive))


def _gated(model: str, rulebook: Rules, given: dict[str, Any], out: str | None, aside: Console) -> GateVerdict:
    """The verdict on a run file as it is, or on a model under the rules file's settings and the flags, which go first."""
    from onnxnoise.cli.output.progress import LiveProgress
    from onnxnoise.decisions.gating import gate as gating
    from onnxnoise.results.run_hits import is_run_file
    from onnxnoise.spec import from_flags

    if is_run_file(model):
        for key in given.keys() - {"limit"}:
            raise UsageError(
                f"--{key.replace('_', '-')}: says how a model is benched, but {model} is a run file; leave it out"
            )
    spec = from_flags(model, out=out, **{**rulebook.bench, **given})
    return gating.gate(model, rulebook, spec, lambda: LiveProgress(aside))


def _code(result: GateVerdict, on_inconclusive: str) -> int:
    return {"pass": 0, "fail": FAILED, "inconclusive": ON_INCONCLUSIVE[on_inconclusive]}[result.verdict]


def _check_junit(target: str | None) -> None:
    """Refuse a --junit that can't be written before any work is done, and one that would overwrite something else."""
    if target is None:
        return
    if target in ("", "-"):
        raise UsageError("--junit: name a file to write; standard output is for the table, or for --json -")
    path = Path(target)
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"can't be written: there is no folder {str(path.parent)!r}"
        raise RunFileError(f"{target}: {what}; name a file with --junit")
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if not file.read(64).lstrip().startswith(b"<"):
                raise RunFileError(f"{target}: is there and no XML, so it stays; name another file with --junit")


def _write_junit(target: str, text: str) -> None:
    _check_junit(target)
    try:
        Path(target).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise RunFileError(
            f"{target}: can't be written: {error.strerror or error}; name another file with --junit"
        ) from error


def _append_summary(text: str, aside: Console) -> None:
    """Where the runner wants a step's summary, if it does. One that can't be written does not change the verdict."""
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
        terminal.warnings(aside, [Notice("summary", f"{target}: the step's summary can't be written: {reason}")])
