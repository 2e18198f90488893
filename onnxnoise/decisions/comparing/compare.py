"""Compares models that are benched on demand: the draws that a comparison lacks are measured first, into run files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from onnxnoise.decisions.comparing import ranking
from onnxnoise.decisions.comparing.chunks import AnyRun
from onnxnoise.decisions.comparing.ranking import Asked
from onnxnoise.decisions.comparing.records import QUANTITY_OF, Comparison
from onnxnoise.errors import UsageError
from onnxnoise.results.run_hits import is_run_file
from onnxnoise.run.loading import open_model
from onnxnoise.run.runner import measured_run
from onnxnoise.run.unattached import check_attached
from onnxnoise.run.watching import Watching, unwatched
from onnxnoise.spec import BenchSpec
from onnxnoise.words import Metric


def compare(
    subjects: Sequence[str | Path],
    spec: BenchSpec | None = None,
    *,
    asked: Asked | None = None,
    cards: Mapping[str, str] | None = None,
    folder: str | None = None,
    watching: Watching = unwatched,
) -> Comparison:
    """Rank models (paths, or bundled names) and run files under noise, as `onnxnoise compare` does; returns a record.

    Models are benched as `spec` says, but for its model and out. `asked` says what is compared: by default the levels, sweeps
    and draws of `spec`, or without a spec all that the run files have in common. `cards` has cards of single models, by the
    models as they are given, and `folder`, which is made, is the place for their run files.

    >>> from onnxnoise import BenchSpec, bench
    >>> spec = BenchSpec("resnet20-cifar10", snrs=(20.0,), sweeps=("all",), draws=2, limit=40)
    >>> runs = [bench(replace(spec, bn=bn, out=f"{bn}.sqlite")) for bn in ("group", "affine")]
    >>> compare(["group.sqlite", "affine.sqlite"])
    Traceback (most recent call last):
    onnxnoise.errors.RunFileError: group.sqlite and affine.sqlite differ in batch-norm policy: ...

    Raises UsageError for fewer than two subjects, and OnnxNoiseError's subclasses as `ranking.compare` and `runner.bench` do.
    """
    names = list(map(str, subjects))
    if len(names) < 2:
        raise UsageError("compare: needs two models or run files, or more; `onnxnoise bench` shows one")
    given = spec or BenchSpec("")
    paths, metric = run_files(names, given, cards, folder, watching)
    if asked is None and (spec is not None or not all(map(is_run_file, names))):
        quantities = tuple(QUANTITY_OF[sweep] for sweep in given.sweeps if sweep in QUANTITY_OF)
        asked = Asked(given.metric or metric or "top1", given.swept, quantities, given.draws, given.limit)
    return ranking.compare(paths, asked)


def run_files(
    names: Sequence[str],
    spec: BenchSpec,
    cards: Mapping[str, str] | None = None,
    folder: str | None = None,
    watching: Watching = unwatched,
) -> tuple[list[Path], Metric | None]:
    """(a run file for each name, the metric of the first model benched or None).

    The run file of a name is the file itself, or that of the model of that name, benched as `spec` says (but for its model).
    `cards` has cards of models, which go before the spec's; run files are made in `folder`. Raises UsageError for cards of
    models that are not among the names, and what `bench` raises.
    """
    cards = cards or {}
    for name in cards:
        if name not in names or is_run_file(name):
            raise UsageError(
                f"--card: {name!r} is none of the models compared; write MODEL=CARD with a model as it is given"
            )
    _check(names, spec)
    paths, metrics = [], []
    for name in names:
        if is_run_file(name):
            paths.append(Path(name))
            continue
        own = replace(spec, model=name, card=cards.get(name, spec.card), out=None)
        with measured_run(own, watching, folder=Path(folder) if folder else None) as run:
            paths.append(run.store.path)
            metrics.append(run.question.metric)
    return paths, metrics[0] if metrics else None


def _check(names: Sequence[str], spec: BenchSpec) -> None:
    """Raise, before anything is measured, for a name that can't be used."""
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"compare: {name} is given twice; a model is no rival of its own")
        if is_run_file(name):
            AnyRun.opened(Path(name)).close()
        else:
            opened = open_model(name, bn=spec.bn, analog=spec.setting.analog, output=spec.output)
            check_attached(opened.network, name, allowed=spec.allow_unattached)
