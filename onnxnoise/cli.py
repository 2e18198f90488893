"""The command line: flags become a spec, each command is one library call, errors become exit codes (the only typer)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxnoise.errors import OnnxNoiseError, RunFileError, UsageError

if TYPE_CHECKING:
    from onnxnoise.console import LiveProgress
    from onnxnoise.records import Tally
    from onnxnoise.runner import Run

INTERRUPTED, BUG = 130, 70

app = typer.Typer(
    name="onnxnoise",
    help="Which trained network survives the noise of analog hardware, and which of its layers break first.",
    no_args_is_help=True,
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
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="An ONNX file, or a bundled model's name (resnet20-cifar10).")
]
BnOption = Annotated[
    str, typer.Option("--bn", metavar="POLICY", help="Batch norms: group, raw, affine, fold or clean.")
]
ScopeOption = Annotated[
    str, typer.Option("--sigma-scope", metavar="SCOPE", help="One sigma_w for each tensor, or one for each layer.")
]
LayersOption = Annotated[
    str | None,
    typer.Option(
        "--layers", metavar="PATTERN", help="Only these: globs on the name, kinds, indices or ranges, by commas."
    ),
]
OutputOption = Annotated[str | None, typer.Option("--output", metavar="NAME", help="The graph output with the logits.")]
JsonOption = Annotated[str | None, typer.Option("--json", metavar="FILE|-", help="Write the result as JSON.")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no warnings.")]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Every layer in the table.")]


@app.command()
def bench(
    model: ModelArgument,
    card: Annotated[
        str | None,
        typer.Option("--card", metavar="FILE|NAME", help="How the model wants its images (default: beside the model)."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="PATH|NAME", help="The images (default: the bundled sample, where there is one)."
        ),
    ] = None,
    snr: Annotated[
        str | None,
        typer.Option("--snr", metavar="LIST", help="sigma_w / sigma_noise, e.g. 100,10,5 (default: the paper's six)."),
    ] = None,
    sweep: Annotated[
        str, typer.Option("--sweep", metavar="LIST", help="single (one layer at a time), all (together).")
    ] = "single,all",
    draws: Annotated[int, typer.Option("--draws", metavar="N", help="Noise realizations (chips) for each cell.")] = 3,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of the noise.")] = 40,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol", metavar="paper", help="The paper's: --sigma-scope layer --bn group and its six SNRs."
        ),
    ] = None,
    layers: LayersOption = None,
    bn: BnOption = "group",
    sigma_scope: ScopeOption = "tensor",
    metric: Annotated[
        str | None, typer.Option("--metric", metavar="top1|top5", help="What the tables show (default: the card's).")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", help="Only the first N images.")] = None,
    provider: Annotated[
        str, typer.Option("--provider", metavar="NAME", help="auto, cpu, cuda or an execution provider.")
    ] = "auto",
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="FILE", help="The run file, continued if it is there (default: by model and digest)."
        ),
    ] = None,
    json_file: JsonOption = None,
    output: OutputOption = None,
    clean_check: Annotated[
        bool, typer.Option("--clean-check/--no-clean-check", help="Stop where the clean accuracy can't be the card's.")
    ] = True,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
    context: typer.Context = None,  # type: ignore[assignment]
) -> None:
    """Measure how a model's accuracy falls under weight noise, layer by layer and all together."""
    from onnxnoise import console as screen  # noqa: PLC0415
    from onnxnoise import results, runner  # noqa: PLC0415
    from onnxnoise.noise import PAPER_SNRS  # noqa: PLC0415
    from onnxnoise.spec import BenchSpec, parse_snrs, parse_sweeps  # noqa: PLC0415

    if protocol is not None:
        if protocol != "paper":
            raise UsageError(f"--protocol: {protocol!r} is not known; use paper")
        given = {name for name in ("snr", "bn", "sigma_scope") if _explicit(context, name)}
        if given:
            flags = ", ".join("--" + name.replace("_", "-") for name in sorted(given))
            raise UsageError(f"--protocol paper sets {flags} itself; leave out one of the two")
        sigma_scope = "layer"
    spec = BenchSpec(
        model=model,
        card=card,
        data=data,
        snrs=PAPER_SNRS if snr is None else parse_snrs(snr),
        sweeps=parse_sweeps(sweep),
        draws=draws,
        seed=seed,
        layers=layers,
        bn=bn,  # type: ignore[arg-type]
        sigma_scope=sigma_scope,  # type: ignore[arg-type]
        metric=metric,  # type: ignore[arg-type]
        limit=limit,
        provider=provider,
        output=output,
        out=out,
        clean_check=clean_check,
    )
    shown, aside = screen.consoles(quiet=quiet)
    with _Progress(screen.LiveProgress(aside)) as watcher:
        result = runner.bench(spec, watcher)
    if json_file is not None:
        _write(json_file, results.to_json(result))
    if json_file != "-":
        screen.result_tables(shown, result, all_layers=verbose)
    screen.warnings(aside, result.warnings)


def _explicit(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


class _Progress:
    """Turns a run's events into the console's words."""

    def __init__(self, live: LiveProgress) -> None:
        self.live = live
        self.names: dict[int, str] = {}

    def started(self, run: Run) -> None:
        self.names = {layer.index: layer.name for layer in run.subject.layers}
        question = run.question
        self.live.begin(
            run.missing,
            f"{run.subject.network.name}: {len(run.subject.layers)} layers, {len(question.snrs)} SNRs, {question.draws} draws, "
            f"{question.images:,} images of {run.images.name}; run file {run.store.path}"
            + ("" if run.todo else " (complete)"),
        )

    def measured(self, tally: Tally) -> None:
        import numpy as np  # noqa: PLC0415

        hits = int(np.unpackbits(np.frombuffer(tally.top1, np.uint8)).sum())
        self.live.advance(tally, hits, self.names.get(tally.layer or 0, ""))

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.live.end()


@app.command()
def layers(
    model: ModelArgument,
    bn: BnOption = "group",
    sigma_scope: ScopeOption = "tensor",
    pattern: LayersOption = None,
    json_file: JsonOption = None,
    output: OutputOption = None,
    quiet: QuietOption = False,
) -> None:
    """Show a model's noise layers: what would be perturbed, in canonical order. Needs no card and no images."""
    from typing import get_args  # noqa: PLC0415

    from onnxnoise import console as screen  # noqa: PLC0415
    from onnxnoise import runner  # noqa: PLC0415
    from onnxnoise.records import Policy, SigmaScope  # noqa: PLC0415
    from onnxnoise.spec import one_of  # noqa: PLC0415

    one_of("--bn", [bn], get_args(Policy))
    one_of("--sigma-scope", [sigma_scope], get_args(SigmaScope))
    subject = runner.open_model(model, bn=bn, layers=pattern, output=output)
    infos = [runner.layer_info(layer) for layer in subject.layers]
    shown, aside = screen.consoles(quiet=quiet)
    if json_file is not None:
        content: dict[str, Any] = {
            "schema": "onnxnoise/layers/1",
            "model": {"name": subject.network.name, "sha256": subject.network.sha256},
            "bn": bn,
            "sigma_scope": sigma_scope,
            "layers": [asdict(info) for info in infos],
            "warnings": [asdict(notice) for notice in subject.network.notices],
        }
        _write(json_file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if json_file != "-":
        screen.layers_table(shown, subject.network.name, infos, bn, sigma_scope)
    screen.warnings(aside, subject.network.notices)


def _write(target: str, text: str) -> None:
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunFileError(f"{target}: can't be written: {error.strerror or error}") from error


def main() -> None:
    """The `onnxnoise` command."""
    with _exit_codes():
        app()


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Every error becomes one line for the person who must act, and its exit code."""
    try:
        yield
    except OnnxNoiseError as error:
        _say(str(error))
        code = error.exit_code
    except KeyboardInterrupt:
        _say("interrupted; what was measured is in the run file: the same command goes on from there")
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if os.environ.get("ONNXNOISE_TRACEBACK"):
            raise
        _say(
            f"a bug in onnxnoise, not in what you did: {type(error).__name__}: {error}; "
            "please report it with the output of the same command under ONNXNOISE_TRACEBACK=1"
        )
        code = BUG
    else:
        return
    sys.exit(code)


def _say(message: str) -> None:
    from onnxnoise import console as screen  # noqa: PLC0415

    screen.error_message(screen.consoles(quiet=False)[1], message)
