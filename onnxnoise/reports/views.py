"""Runs as a report shows them: a label each, the estimates of one metric, and the small tables that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

from onnxnoise.noise.base import Level
from onnxnoise.noise.models import level_of as level_of_noise
from onnxnoise.records import Average, Cell, DrawHits, Estimate, LayerInfo, Result
from onnxnoise.results.reading import OpenedRun
from onnxnoise.statistics.correlation import RankCorrelation, spearman
from onnxnoise.text import shortened
from onnxnoise.words import Metric, Sweep

METRIC_TITLES: dict[Metric, str] = {"top1": "top-1", "top5": "top-5"}
_LABEL = 40


@dataclass(frozen=True)
class View:
    """One run under the label that the whole report uses for it; `opened` is its run file, None where it is not one."""

    label: str
    result: Result
    opened: OpenedRun | None = None

    @property
    def metric(self) -> Metric:
        """The metric that its figures show."""
        return self.result.told

    @cached_property
    def layers(self) -> dict[int, LayerInfo]:
        """The noise layers by index; those that bear noise here are `result.selected`."""
        return {layer.index: layer for layer in self.result.layers}

    @property
    def level(self) -> Level:
        """The kind of level that the run sweeps."""
        return level_of_noise(self.result.noise)

    @property
    def levels(self) -> tuple[float, ...]:
        """The levels of all cells, the least noise first."""
        return tuple(self.level.in_order(cell.level for cell in self.result.cells))

    @property
    def crossed(self) -> bool:
        """Whether every draw met every image, so that draws can be shown one by one."""
        return self.result.design == "crossed"

    @property
    def clean(self) -> float:
        """The accuracy without noise, a fraction of 1."""
        return self.result.clean_hits / self.result.clean.images

    @property
    def chance(self) -> float | None:
        """The accuracy of always giving the same answer, a fraction of 1; None where neither labels nor classes are known."""
        return None if self.result.chance is None else self.result.chance.of(self.metric)

    def cells(self, sweep: Sweep, level: float | None = None) -> list[Cell]:
        """The cells of a sweep, at one level or at all."""
        return [cell for cell in self.result.cells if cell.sweep == sweep and level in (None, cell.level)]

    def normalized(self, cell: Cell) -> Estimate | None:
        return cell.normalized(self.metric)

    def accuracy(self, cell: Cell) -> Estimate | None:
        return cell.accuracy(self.metric)

    def average(self, average: Average) -> Estimate | None:
        return average.of(self.metric)

    @cached_property
    def whole(self) -> dict[float, Estimate]:
        """The accuracy over the clean one with noise in all layers, by level, the least noise first; only what is defined."""
        found = {level: self.normalized(cell) for level in self.levels for cell in self.cells("all", level)}
        return {level: estimate for level, estimate in found.items() if estimate is not None}

    @cached_property
    def means(self) -> dict[int, float]:
        """The mean of A_i over the levels, by which layers are ranked, by layer; a layer without an estimate is left out."""
        found: dict[int, list[float]] = {}
        for cell in sorted(self.cells("single"), key=lambda cell: cell.layer or 0):
            if (estimate := self.normalized(cell)) is not None:
                found.setdefault(cell.layer or 0, []).append(estimate.mean)
        return {layer: fmean(values) for layer, values in found.items()}

    def draw(self, draw: DrawHits) -> tuple[float, float | None]:
        """(accuracy, accuracy / clean) of one draw; the second is None without a clean hit."""
        hits, clean = draw.top1_hits, draw.clean_top1_hits
        if self.metric == "top5":
            hits, clean = draw.top5_hits or 0, draw.clean_top5_hits or 0
        return hits / draw.images, hits / clean if clean else None


def level_of(found: Sequence[View]) -> Level:
    """The kind of level in the axes and headings of these runs together."""
    return found[0].level


def one_level(found: Sequence[View]) -> bool:
    """Whether the levels of these runs are all of one kind, so that they have an axis of noise in common."""
    return len({view.level.name for view in found}) == 1


def views(runs: Sequence[OpenedRun], metric: Metric | None = None) -> list[View]:
    """Each run with a label of its own and the metric that it shows.

    The metric is the run's own, or `metric` for all runs; it is top-1 where there are five classes or fewer.
    """
    return [
        View(label, replace(run.result, metric=metric or run.result.metric), run)
        for label, run in zip(_labels(runs), runs, strict=True)
    ]


_TRAITS: tuple[tuple[str, Callable[[View], str]], ...] = (
    ("data", lambda view: f"{view.result.dataset['name']}, {str(view.result.dataset.get('sha256', ''))[:8]}"),
    ("number of images", lambda view: f"{view.result.clean.images:,}"),
    ("design", lambda view: view.result.design),
    ("metric", lambda view: METRIC_TITLES[view.metric]),
    ("seed", lambda view: str(view.result.seed)),
    ("provider", lambda view: view.result.provider),
)


def differences(found: Sequence[View]) -> list[tuple[str, list[str]]]:
    """The traits in which runs differ, so that they can't be compared, each with its values in the order of the runs."""
    values = [(name, [trait(view) for view in found]) for name, trait in _TRAITS]
    settings = [view.result.noise.parts() for view in found]
    values[2:2] = [(name, [setting[name] for setting in settings]) for name in settings[0]]
    return [(name, said) for name, said in values if len(set(said)) > 1]


def _labels(runs: Sequence[OpenedRun]) -> list[str]:
    """A label for each run: its model's name; where several share it, also the trait they differ in, or the file's name."""
    names = [shortened(run.result.model["name"], _LABEL) for run in runs]
    labels = []
    for name, run in zip(names, runs, strict=True):
        twins = [each for other, each in zip(names, runs, strict=True) if other == name]
        said = [trait(run) for trait in _LABELLED if len({trait(twin) for twin in twins}) > 1]
        labels.append(f"{name} ({', '.join(said)})" if said else name)
    return [
        label
        if labels.count(label) == 1
        else f"{label} [{labels[:i].count(label) + 1}: {shortened(runs[i].path.name, _LABEL)}]"
        for i, label in enumerate(labels)
    ]


_LABELLED: tuple[Callable[[OpenedRun], str], ...] = (
    lambda run: f"bn {run.result.bn}",
    lambda run: f"sigma per {run.result.sigma_scope}",
    lambda run: run.result.model["sha256"][:8],
    lambda run: f"seed {run.result.seed}",
    lambda run: f"{run.result.clean.images:,} images",
    lambda run: run.result.provider,
)


@dataclass(frozen=True)
class Depth:
    """The rank correlation of A_i with the layer's index at one level; `draws` has the rho of each draw alone."""

    level: float
    correlation: RankCorrelation | None
    draws: tuple[float, ...]


def depths(view: View) -> Iterator[Depth]:
    """The rank correlation at each level of the single sweep at which all selected layers were measured."""
    for level in view.levels:
        cells = sorted(view.cells("single", level), key=lambda cell: cell.layer or 0)
        estimates = [view.normalized(cell) for cell in cells]
        if len(cells) < len(view.result.selected) or None in estimates:
            continue
        indices = [float(cell.layer or 0) for cell in cells]
        values = [each.mean for each in estimates if each is not None]
        draws = []
        for d in range(len(cells[0].draws) if view.crossed else 0):
            alone = spearman(indices, [view.draw(cell.draws[d])[0] for cell in cells])
            draws += [alone.rho] if alone else []
        yield Depth(level, spearman(indices, values), tuple(draws))
