"""Flags that several commands share, and the files they write."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxnoise.errors import RunFileError

# For help and completion, without the time that importing their types from records.py takes; a test compares them.
POLICIES = ("group", "raw", "affine", "fold", "clean")
SIGMA_SCOPES = ("tensor", "layer")
METRICS = ("top1", "top5")
SWEEPS = ("single", "cumulative", "all")
PROVIDERS = ("auto", "cpu", "cuda")


def any_of(choices: tuple[str, ...]) -> dict[str, Any]:
    return {"metavar": "|".join(choices), "autocompletion": completing(choices)}


def completing(choices: tuple[str, ...]) -> Callable[[str], list[str]]:
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
        **any_of(POLICIES),
        help="Batch norms: noise on all four tensors, a negative variance stored as 0 (group, the default) or kept (raw); "
        "on scale and shift (affine); merged into the layer before (fold); none (clean).",
    ),
]
ScopeOption = Annotated[
    str | None,
    typer.Option(
        "--sigma-scope", **any_of(SIGMA_SCOPES), help="One sigma_w for each tensor (default), or pooled over a layer."
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


CardOption = Annotated[
    str | None,
    typer.Option("--card", metavar="FILE|NAME", help="How the model wants its images (default: beside the model)."),
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", metavar="PATH|NAME", help="The images (default: the bundled sample, if there is one)."),
]
SnrOption = Annotated[
    str | None,
    typer.Option(
        "--snr",
        metavar="LIST",
        help="sigma_w / sigma_noise, an amplitude ratio; inf is no noise (default: the paper's 100,10,5,2.5,1.67,1).",
    ),
]
SweepOption = Annotated[
    str | None,
    typer.Option(
        "--sweep",
        metavar="LIST",
        autocompletion=completing(SWEEPS),
        help="single: noise in one layer at a time; cumulative: in layers 1 to L, for every L; all: in all together "
        "(default: single,all).",
    ),
]
DrawsOption = Annotated[
    str | None, typer.Option("--draws", metavar="N", help="Noise realizations (chips) a cell (default: 3).")
]
SeedOption = Annotated[str | None, typer.Option("--seed", metavar="N", help="Seed of the noise (default: 40).")]
ProtocolOption = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        **any_of(("paper",)),
        help="Means --sigma-scope layer --bn group and its six SNRs (or those of --snr).",
    ),
]
MetricOption = Annotated[
    str | None,
    typer.Option("--metric", **any_of(METRICS), help="What the tables show (default: the card's, else top1)."),
]
LimitOption = Annotated[str | None, typer.Option("--limit", metavar="N", help="Only the first N images.")]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="SHARE",
        help="Accuracy / clean that a chip must reach to count in the yield (default: 0.95).",
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory", metavar="SIZE", help="Most memory to use, as 4GB (default: 2 GiB, or half of what is there)."
    ),
]
ProviderOption = Annotated[
    str | None,
    typer.Option(
        "--provider",
        metavar="auto|cpu|cuda|NAME",
        autocompletion=completing(PROVIDERS),
        help="ONNX Runtime's execution provider (default: auto, CUDA where a GPU works).",
    ),
]
OutOption = Annotated[
    str | None,
    typer.Option(
        "--out", metavar="FILE", help="Run file, continued if it is there (default: ./<model>-<digest>.sqlite)."
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="SHARE",
        help="Draws until the 95 % interval's half-width is this share of the clean accuracy (0.01), for each cell apart.",
    ),
]
MaxDrawsOption = Annotated[
    str | None,
    typer.Option("--max-draws", metavar="N", help="The most draws of a cell with --precision (default: 64)."),
]
BudgetOption = Annotated[
    str | None,
    typer.Option("--budget", metavar="TIME", help="Stop after this time (10m, 1h30m); says how precise it got."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Only say what there is to measure, and how long it will take.")
]
WorkersOption = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="N",
        help="So many processes on this machine: one for each GPU, or a share of the cores each (default: this process).",
    ),
]
ClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", metavar="ADDRESS", help="Measure on a Dask cluster's workers (tcp://scheduler:8786)."),
]
ResourcesOption = Annotated[
    str | None,
    typer.Option("--cluster-resources", metavar="NAME=N", help="What each task takes of its Dask worker (GPU=1)."),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N", help="Only every N-th chunk of images; `onnxnoise merge` joins the N run files."
    ),
]
CleanCheckOption = Annotated[
    bool, typer.Option("--clean-check/--no-clean-check", help="Stop where the clean accuracy can't be the card's.")
]


def check_target(json_file: str | None) -> None:
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


def write(target: str, text: str) -> None:
    if target == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    check_target(target)  # by now it may be the run file
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunFileError(
            f"{target}: can't be written: {error.strerror or error}; name another file with --json "
            "(the run file keeps the result, and the command will not measure it again)"
        ) from error
