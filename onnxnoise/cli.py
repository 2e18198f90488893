"""The command line: flags become a spec, each command is one library call, errors become exit codes (the only typer)."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from onnxnoise.cards_cli import cards
from onnxnoise.errors import InputError, OnnxNoiseError, RunFileError, UsageError

INTERRUPTED, BUG = 130, 70

# For help and completion, without the time that importing their types from records.py takes; a test compares them.
POLICIES = ("group", "raw", "affine", "fold", "clean")
SIGMA_SCOPES = ("tensor", "layer")
METRICS = ("top1", "top5")
SWEEPS = ("single", "all")
PROVIDERS = ("auto", "cpu", "cuda")


class _Commands(TyperGroup):
    """Runs a command where its errors are still its own: typer's main knows other exit codes, and no message for Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        with _exit_codes():
            return super().invoke(ctx)


app = typer.Typer(
    name="onnxnoise",
    cls=_Commands,
    help="Which trained network survives the noise of analog hardware, and which of its layers break first.",
    epilog="`onnxnoise bench resnet20-cifar10` works at once, with weights and images that come with the package.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"onnxnoise {version('onnxnoise')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def _any_of(choices: tuple[str, ...]) -> dict[str, Any]:
    return {"metavar": "|".join(choices), "autocompletion": _completing(choices)}


def _completing(choices: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Completes the last of comma-separated words."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + choice for choice in choices if choice.startswith(last)]

    return complete


ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="An ONNX file, or a bundled model's name (resnet20-cifar10).")
]
BnOption = Annotated[
    str | None,
    typer.Option(
        "--bn",
        **_any_of(POLICIES),
        help="Batch norms: noise on all four tensors, a negative variance stored as 0 (group, the default) or kept (raw); "
        "on scale and shift (affine); merged into the layer before (fold); none (clean).",
    ),
]
ScopeOption = Annotated[
    str | None,
    typer.Option(
        "--sigma-scope", **_any_of(SIGMA_SCOPES), help="One sigma_w for each tensor (default), or pooled over a layer."
    ),
]
LayersOption = Annotated[
    str | None,
    typer.Option(
        "--layers", metavar="PATTERN", help="Only these: globs on names, kinds, indices or ranges (conv1*,dense,1-10)."
    ),
]
OutputOption = Annotated[str | None, typer.Option("--output", metavar="NAME", help="The graph output with the logits.")]
JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE|-", help="Write the result as JSON; - for standard output.")
]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no warnings.")]


@app.command()
def bench(
    model: ModelArgument,
    card: Annotated[
        str | None,
        typer.Option("--card", metavar="FILE|NAME", help="How the model wants its images (default: beside the model)."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="PATH|NAME", help="The images (default: the bundled sample, if there is one)."),
    ] = None,
    snr: Annotated[
        str | None,
        typer.Option(
            "--snr",
            metavar="LIST",
            help="sigma_w / sigma_noise, an amplitude ratio; inf is no noise (default: the paper's 100,10,5,2.5,1.67,1).",
        ),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            "--sweep",
            metavar="LIST",
            autocompletion=_completing(SWEEPS),
            help="single: noise in one layer at a time; all: in all together (default: single,all).",
        ),
    ] = None,
    draws: Annotated[
        str | None, typer.Option("--draws", metavar="N", help="Noise realizations (chips) a cell (default: 3).")
    ] = None,
    seed: Annotated[str | None, typer.Option("--seed", metavar="N", help="Seed of the noise (default: 40).")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol", **_any_of(("paper",)), help="Means --sigma-scope layer --bn group and its six SNRs."
        ),
    ] = None,
    layers: LayersOption = None,
    bn: BnOption = None,
    sigma_scope: ScopeOption = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", **_any_of(METRICS), help="What the tables show (default: the card's, else top1)."),
    ] = None,
    limit: Annotated[str | None, typer.Option("--limit", metavar="N", help="Only the first N images.")] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            "--provider",
            metavar="auto|cpu|cuda|NAME",
            autocompletion=_completing(PROVIDERS),
            help="ONNX Runtime's execution provider (default: auto, CUDA where a GPU works).",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="FILE", help="Run file, continued if it is there (default: ./<model>-<digest>.sqlite)."
        ),
    ] = None,
    json_file: JsonOption = None,
    output: OutputOption = None,
    clean_check: Annotated[
        bool, typer.Option("--clean-check/--no-clean-check", help="Stop where the clean accuracy can't be the card's.")
    ] = True,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Every layer in the table.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Measure how a model's accuracy falls under weight noise, layer by layer and all together."""
    from onnxnoise import console, results, runner  # noqa: PLC0415
    from onnxnoise.progress import LiveProgress  # noqa: PLC0415
    from onnxnoise.spec import from_flags  # noqa: PLC0415

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
        limit=limit,
        provider=provider,
        out=out,
        output=output,
        clean_check=clean_check,
    )
    _check_target(json_file)
    shown, aside = console.consoles(quiet=quiet)
    with LiveProgress(aside) as progress:
        result = runner.bench(spec, progress)
    if json_file is not None:
        _write(json_file, results.to_json(result))
    if json_file != "-":
        console.result_tables(shown, result, all_layers=verbose)
    console.warnings(aside, result.warnings)


@app.command()
def layers(
    model: ModelArgument,
    bn: BnOption = None,
    sigma_scope: ScopeOption = None,
    pattern: LayersOption = None,
    json_file: JsonOption = None,
    output: OutputOption = None,
    quiet: QuietOption = False,
) -> None:
    """Show a model's noise layers: what would be perturbed, in canonical order. Needs no card and no images."""
    from onnxnoise import console, results, subject  # noqa: PLC0415
    from onnxnoise.spec import from_flags  # noqa: PLC0415

    spec = from_flags(model, layers=pattern, bn=bn, sigma_scope=sigma_scope, output=output)
    _check_target(json_file)
    opened = subject.open_model(model, bn=spec.bn, layers=spec.layers, output=spec.output)
    infos = [subject.layer_info(layer) for layer in opened.layers]
    shown, aside = console.consoles(quiet=quiet)
    if json_file is not None:
        about = {"name": opened.network.name, "sha256": opened.network.sha256}
        _write(json_file, results.layers_json(about, spec.bn, spec.sigma_scope, infos, opened.network.notices))
    if json_file != "-":
        console.layers_table(shown, opened.network.name, infos, spec.bn, spec.sigma_scope)
    console.warnings(aside, opened.network.notices)


def _check_target(json_file: str | None) -> None:
    """Refuse a --json that can't be written before any work is done, and one that would overwrite something else."""
    if json_file in (None, "-"):
        return
    path = Path(json_file or "")
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"can't be written: there is no folder {str(path.parent)!r}"
        raise RunFileError(f"{json_file}: {what}; name a file with --json, or - for standard output")
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(1) != b"{":
                raise RunFileError(
                    f"{json_file}: is there and no JSON result, so it stays; name another file with --json"
                )


def _write(target: str, text: str) -> None:
    if target == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    _check_target(target)  # by now it may be the run file
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunFileError(
            f"{target}: can't be written: {error.strerror or error}; name another file with --json "
            "(the run file keeps the result, and the command will not measure it again)"
        ) from error


app.add_typer(cards, name="cards")


def main() -> None:
    """The `onnxnoise` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a model's names may have letters that the terminal's encoding lacks
    logging.getLogger().addHandler(logging.NullHandler())  # what libraries log is not for who must act
    with _exit_codes():
        sys.exit(app(prog_name="onnxnoise", standalone_mode=False))


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Every error becomes one line for the person who must act, and its exit code."""
    try:
        yield
    except typer.Exit:
        raise
    except OnnxNoiseError as error:
        _say(str(error))
        code = error.exit_code
    except KeyboardInterrupt:
        _say("interrupted; the run file keeps what was measured: the same command goes on from there")
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        _say(
            f"{error.filename or 'a file'}: {error.strerror or error}; check the path, its permissions and the free space"
        )
        code = InputError.exit_code
    except Exception as error:
        if hasattr(error, "format_message"):
            _say(_usage(error))
            code = UsageError.exit_code
        else:
            if os.environ.get("ONNXNOISE_TRACEBACK"):
                traceback.print_exc()
            _say(
                f"a bug in onnxnoise, not in what you did: {type(error).__name__}: {error}; "
                "please report it with the output of the same command under ONNXNOISE_TRACEBACK=1"
            )
            code = BUG
    else:
        return
    sys.exit(code)


def _usage(error: Any) -> str:
    """What typer's parser found (its error classes moved between versions), and where to look."""
    found = error.format_message().rstrip(".")
    command = getattr(getattr(error, "ctx", None), "command_path", "onnxnoise")
    return f"{found[:1].lower()}{found[1:]}; `{command} --help` shows what it takes"


def _say(message: str) -> None:
    from onnxnoise import console  # noqa: PLC0415

    console.error_message(console.consoles(quiet=False)[1], message)
