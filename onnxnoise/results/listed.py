"""The run files of a folder in a few words each: what was measured, how far it is, and what it found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxnoise.errors import RunFileError
from onnxnoise.noise.models import headline, level_of
from onnxnoise.records import Estimate, Result
from onnxnoise.results.as_json import strict_json
from onnxnoise.results.reading import OpenedRun, open_run_file
from onnxnoise.results.run_file.database import is_database

SCHEMA = "onnxnoise/listing/1"


@dataclass(frozen=True)
class Found:
    """A run file in a folder: what it is about, or the `problem` that keeps it from being read; the rest is None then.

    `done` is the share of its last command's passes that are there, a fraction of 1. `found` has the accuracy over the clean one
    by level, `of` says with noise in what: all layers together, or the mean over single ones.
    """

    path: Path
    problem: str | None
    model: Mapping[str, str] | None = None
    dataset: Mapping[str, str | int] | None = None
    noise: str | None = None
    seed: int | None = None
    done: float | None = None
    clean: float | None = None
    of: str | None = None
    found: tuple[tuple[str, float], ...] = ()


def run_files(folder: Path) -> list[Found]:
    """The run files that lie in a folder itself, by name; one that can't be read has its problem. Other files are left out."""
    return [_found(path) for path in sorted(folder.iterdir()) if path.is_file() and is_database(path)]


def to_json(found: list[Found]) -> str:
    """The run files as one JSON document, schema `onnxnoise/listing/1`."""
    return strict_json({"schema": SCHEMA, "runs": [{**vars(each), "path": str(each.path)} for each in found]})


def _found(path: Path) -> Found:
    try:
        run = open_run_file(path)
    except RunFileError as error:
        return Found(path, str(error).removeprefix(f"{path}: "))
    return _described(run)


def _described(run: OpenedRun) -> Found:
    result = run.result
    of, estimates = _headline(result)
    level = level_of(result.noise)
    return Found(
        run.path,
        None,
        model=result.model,
        dataset={**result.dataset, "images": result.clean.images},
        noise=headline(result.noise),
        seed=result.seed,
        done=run.measured / run.planned if run.planned else 1.0,
        clean=result.clean_hits / result.clean.images,
        of=of,
        found=tuple((level.text(value), estimates[value].mean) for value in level.in_order(estimates)),
    )


def _headline(result: Result) -> tuple[str | None, dict[float, Estimate]]:
    """(what says most about the whole model, its estimates by level) of a result."""
    metric = result.told
    whole = {cell.level: each for cell in result.cells if cell.sweep == "all" and (each := cell.normalized(metric))}
    if whole:
        return "all layers", whole
    averages = {each.level: estimate for each in result.a_avr if (estimate := each.of(metric))}
    return ("A_avr", averages) if averages else (None, {})
