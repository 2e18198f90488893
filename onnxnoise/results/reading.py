"""Reads a run file by itself into a result: the largest part that is complete, and how far its last command got."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from onnxnoise.errors import RunFileError
from onnxnoise.noise.base import Level
from onnxnoise.noise.models import level_of
from onnxnoise.noise.settings import setting_of
from onnxnoise.records import Result, TallyKey
from onnxnoise.results.chance import classes_of
from onnxnoise.results.probes import levels_asked
from onnxnoise.results.question import Question, collapsing, is_chunked, streams_of
from onnxnoise.results.run_file.database import is_database
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.results.summary import over_layers, summarize
from onnxnoise.words import Metric, Sweep

_SWEEPS: tuple[Sweep, ...] = get_args(Sweep)

_FORMER_DRAWS = 64
"""The most draws of a cell with --precision and no --max-draws, before they followed from the number of images."""


@dataclass(frozen=True)
class OpenedRun:
    """A run file that was read: the result of its largest complete part, and how far its last command got.

    `classes` is the data set's number of them, None if the file doesn't say. The last command that measured asked for `planned`
    passes, of which `measured` are there; a pass is one image (in a chunked run one chunk of images) once through the network.
    """

    path: Path
    result: Result
    classes: int | None
    measured: int
    planned: int


def results_of(path: Path | str, metric: Metric | None = None) -> Result:
    """The result of the complete parts of a run file. Raises RunFileError as `open_run_file` does."""
    return open_run_file(path, metric).result


def open_run_file(path: Path | str, metric: Metric | None = None) -> OpenedRun:
    """Read a run file, which must exist. `metric` is the one that tables show, by default that of its last command.

    Raises RunFileError for a file that isn't a run file, is damaged, or has no complete clean pass.
    """
    path = Path(path)
    if path.is_file() and not is_database(path):
        raise RunFileError(f"{path}: not an onnxnoise run file; `onnxnoise bench MODEL --out FILE` makes one")
    with RunStore.existing(path) as store:
        return _opened(store, metric)


def questions_of(store: RunStore, metric: Metric = "top1") -> list[Question]:
    """Questions for the complete parts of a run file, one for each number of draws, all of the same images.

    Of all numbers of images (whole chunks from the first on) the one with the most image passes is chosen; then each (sweep,
    SNR) gets the number of draws at which the most passes are complete. The list has one Question unless draws differ, and
    none if no clean pass is complete. A chunked run has Questions for all of it, one where each sweep has the same levels.
    """
    if is_chunked(store.identity):
        return _of_chunked(store, metric)
    chunks = store.chunks()
    reach = _reach(store.done(), [chunk.start for chunk in chunks])
    clean = reach.pop(("clean", float("inf")), {None: [0]})[None][0]
    best: dict[tuple[str, float], int] = {}
    best_images, most = 0, -1
    for count in range(1, clean + 1):
        draws = {group: _draws(cells.values(), count) for group, cells in reach.items()}
        passes = sum(passes for _, passes in draws.values()) * chunks[count - 1].stop
        if passes >= most:
            best_images, most = chunks[count - 1].stop, passes
            best = {group: number for group, (number, passes) in draws.items() if passes}
    if not best_images:
        return []
    layers = tuple(store.identity["layers"])
    products = _products(best, level_of(setting_of(store.identity)))
    parts = [Question(levels, sweeps, draws, best_images, layers, metric) for draws, sweeps, levels in products]
    return parts or [Question((), (), 1, best_images, layers, metric)]


def _of_chunked(store: RunStore, metric: Metric) -> list[Question]:
    """Questions for the whole of a chunked run, whose cells need not be complete; none before its first tally."""
    done = store.done()
    begun = {(sweep, level) for sweep, _, level, _, _ in done if sweep != "clean"}
    last = _spec(store)
    chunks = store.chunks()
    draws = max([_most(last), *(draw + 1 for _, _, _, draw, _ in done)])
    images = max((chunk.stop for chunk in chunks), default=0)
    layers = tuple(store.identity["layers"])
    goal = last["goal"] if "goal" in last else last.get("precision")
    streams = streams_of(store)
    noisy = (each for each in store.description["layers"] if each["index"] in layers)
    rare = collapsing(store.identity["bn"], ((each["kind"], len(each["initializers"])) for each in noisy))
    products = _products(dict.fromkeys(begun, draws), level_of(setting_of(store.identity))) or [(draws, (), ())]
    return [
        Question(levels, sweeps, draws, images, layers, metric, precision=goal, streams=streams, collapsing=rare)
        for _, sweeps, levels in products
        if done
    ]


def _most(last: Mapping[str, Any]) -> int:
    """The most draws of a cell by the last command; files that are older than the default design name a fixed number."""
    if "most_draws" in last:
        return int(last["most_draws"])
    return int(last.get("max_draws") or (_FORMER_DRAWS if last.get("precision") else 1))


def _spec(store: RunStore) -> dict[str, Any]:
    """The spec of the last command that measured, as the file keeps it; empty if the file doesn't say."""
    runs = store.runs()
    return {**runs[-1].get("spec", {})} if runs else {}


def _reach(done: Iterable[TallyKey], starts: Sequence[int]) -> dict[tuple[str, float], dict[int | None, list[int]]]:
    """The numbers of chunks, from the first on, that draw 0, draws 0 and 1, ... have in common, by (sweep, level) and layer."""
    there: dict[tuple[str, float], dict[int | None, dict[int, set[int]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(set))
    )
    for sweep, layer, level, draw, start in done:
        there[sweep, level][layer][draw].add(start)
    reach: dict[tuple[str, float], dict[int | None, list[int]]] = {}
    for group, layers in there.items():
        reach[group] = {}
        for layer, draws in layers.items():
            counts: list[int] = []
            while len(counts) in draws:
                found = draws[len(counts)]
                lacking = (i for i, start in enumerate(starts) if start not in found)
                counts.append(min([next(lacking, len(starts)), *counts[-1:]]))
            reach[group][layer] = counts
    return reach


def _draws(cells: Iterable[Sequence[int]], chunks: int) -> tuple[int, int]:
    """(draws, passes): the number of draws with the most complete passes over the first `chunks` chunks, and their number."""
    complete = sorted((sum(count >= chunks for count in counts) for counts in cells), reverse=True)
    passes = [(number * (i + 1), number) for i, number in enumerate(complete)]
    most, draws = max(passes, default=(0, 0))
    return draws, most


def _products(
    draws: Mapping[tuple[str, float], int], order: Level
) -> list[tuple[int, tuple[Sweep, ...], tuple[float, ...]]]:
    """Products (draws, sweeps, levels) that together have all (sweep, level) pairs; one product where all draws are the same."""
    levels: dict[tuple[int, Sweep], list[float]] = defaultdict(list)
    for sweep in _SWEEPS:
        for (name, level), number in draws.items():
            if name == sweep:
                levels[number, sweep].append(level)
    sweeps: dict[tuple[int, tuple[float, ...]], list[Sweep]] = defaultdict(list)
    for (number, sweep), values in levels.items():
        sweeps[number, tuple(order.in_order(values))].append(sweep)
    found = [(number, tuple(names), values) for (number, values), names in sweeps.items()]
    return sorted(found, key=lambda part: (-part[0], _SWEEPS.index(part[1][0])))


def _opened(store: RunStore, metric: Metric | None) -> OpenedRun:
    runs = store.runs()
    last: dict[str, Any] = runs[-1] if runs else {}
    spec = _spec(store)
    shown: Metric = metric or last.get("metric") or spec.get("metric") or "top1"
    parts = [result for part in questions_of(store, shown) if (result := summarize(store, part)) is not None]
    if not parts:
        advice = (
            "merge it with the other shards first"
            if spec.get("shard")
            else "the same `onnxnoise bench` command goes on"
        )
        raise RunFileError(
            f"{store.path}: no pass over the first chunk of images is complete, not even the clean one; {advice}"
        )
    measured, planned = _progress(store, spec)
    if is_chunked(store.identity):
        measured, planned = sum(part.measured for part in parts), sum(part.planned for part in parts)
    return OpenedRun(store.path, _merged(parts), classes_of(store), measured, planned)


def _merged(parts: Sequence[Result]) -> Result:
    first, *others = parts
    if not others:
        return first
    order = level_of(first.noise).order
    realized = tuple(dict.fromkeys(each for part in parts for each in part.realized))
    return replace(
        first,
        cells=tuple(
            sorted(
                (cell for part in parts for cell in part.cells),
                key=lambda cell: (_SWEEPS.index(cell.sweep), cell.layer or 0, order(cell.level)),
            )
        ),
        a_avr=tuple(sorted((each for part in parts for each in part.a_avr), key=lambda each: order(each.level))),
        warnings=tuple(dict.fromkeys(notice for part in parts for notice in part.warnings)),
        measured=sum(part.measured for part in parts),
        planned=sum(part.planned for part in parts),
        realized=realized,
        realized_layers=tuple(over_layers(realized)),
    )


def _progress(store: RunStore, spec: Mapping[str, Any]) -> tuple[int, int]:
    """(measured, planned) image passes for the last command's `spec`; where it is empty, for the cells that are begun."""
    done = store.done()
    sizes = {chunk.start: len(chunk) for chunk in store.chunks()}
    begun = {(sweep, level) for sweep, _, level, _, _ in done if sweep != "clean"}
    sweeps = set(spec.get("sweeps") or (sweep for sweep, _ in begun))
    levels = set(levels_asked(spec) or (level for _, level in begun))
    draws = spec.get("draws") or max((key[3] for key in done), default=0) + 1
    limit = spec.get("limit") or max(sizes, default=0) + 1
    layers = store.identity["layers"]
    clean = ("clean", None, float("inf"), 0)
    passes = sum(len(levels) * draws * (1 if sweep == "all" else len(layers)) for sweep in sweeps)
    planned = sum(size for start, size in sizes.items() if start < limit) * (1 + passes)
    measured = sum(
        sizes[start]
        for sweep, layer, level, draw, start in done
        if start < limit
        and ((sweep, layer, level, draw) == clean or (sweep in sweeps and level in levels and draw < draws))
    )
    return measured, planned
