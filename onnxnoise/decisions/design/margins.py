"""Noise margins: the most noise at which a network, or each of its layers, still meets a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Literal

from onnxnoise.errors import UsageError
from onnxnoise.noise.base import Level
from onnxnoise.records import Estimate, Interval, LayerInfo, MeasuredModel, Notice, TallyKey
from onnxnoise.results.as_json import measured_json
from onnxnoise.results.question import Question
from onnxnoise.results.store import RunStore
from onnxnoise.results.summary import summarize
from onnxnoise.run.jobs import Job
from onnxnoise.run.runner import measured_run
from onnxnoise.run.schedules import CLEAN
from onnxnoise.run.watching import Watching, unwatched
from onnxnoise.spec import BenchSpec
from onnxnoise.text import counted
from onnxnoise.words import Kind, Metric

SCHEMA = "onnxnoise/margin/1"
TOLERANCE = 0.05

Subject = tuple[Literal["all", "single"], int | None]
"""What bears noise: all layers, or the one of that index alone."""

Crossing = Callable[[Estimate], float]
"""The figure whose way over the target is looked for."""


@dataclass(frozen=True)
class Margin:
    """The noisiest level at which the accuracy over the clean one still meets the target, found to the tolerance.

    `layer` is None for all layers together. `level` is the noisiest one tried that meets the target: the level without any noise
    where not even the quietest of the range does, the range's noisiest where that one does already; `snr` is the same where it is
    a signal-to-noise ratio. `interval` has two levels, the smaller first: beyond the one of more noise even the upper end of the
    95 % `sampled` interval misses the target, from the one of less noise on the lower end meets it, too; None with one draw.
    `accuracy` is the estimate at `level`, None for no noise; `tried` are the levels that were measured.
    """

    layer: int | None
    name: str | None
    kind: Kind | None
    level: float
    interval: Interval | None
    accuracy: Estimate | None
    tried: tuple[float, ...]
    snr: float | None = None


@dataclass(frozen=True)
class Margins(MeasuredModel):
    """Margins of one model: of all its layers together, or of each layer, in canonical order.

    `range` has the noisiest and the quietest level between which they were looked for.
    """

    metric: Metric
    target: float
    tolerance: float
    range: Interval
    draws: int
    margins: tuple[Margin, ...]
    warnings: tuple[Notice, ...]


def margin(
    spec: BenchSpec, *, tolerance: float = TOLERANCE, range_: Interval | None = None, watching: Watching = unwatched
) -> Margins:
    """Find the noise margin for `spec.target` (a share of the clean accuracy) by bisection in the logarithm of the level.

    `spec.sweeps` says of what: `all`, the layers together, or `single`, each layer. All levels share their draws, so the accuracy
    falls smoothly; where it does not fall monotonously, one of its ways over the target is found. `tolerance` is the largest
    ratio, less 1, between the level found and one that misses the target. `range_` are the levels between which it is looked for,
    by default the noise model's own. What is measured goes to the run file, and is used from there.

    >>> spec = BenchSpec("resnet20-cifar10", sweeps=("all",), draws=2, limit=40, out="run.sqlite", target=0.5)
    >>> (found,) = margin(spec, tolerance=0.5).margins
    >>> found.layer, 1 < found.level < 100, found.interval[0] <= found.level <= found.interval[1]
    (None, True, True)

    Raises UsageError for a tolerance or range that is none, otherwise as `runner.bench`.
    """
    level = spec.level
    low, high = range_ or sorted(level.search)
    if not 0 < low < high < inf:
        smaller, larger = sorted(level.search)
        raise UsageError(
            f"--range: {low:g} to {high:g} is no range of {level.name}s; write for example {smaller:g},{larger:g}"
        )
    quiet, loud = level.in_order((low, high))
    if not 0.001 <= tolerance <= 1:
        raise UsageError(f"--tolerance: {tolerance:g} is out of range; give a share from 0.001 to 1, 0.05 is 5 %")
    if len(spec.sweeps) != 1 or spec.sweeps[0] == "cumulative":
        raise UsageError("--sweep: a margin is of `all` layers together or of each `single` layer; name one of the two")
    search_of = partial(Search, level=level, ends=(loud, quiet), tolerance=tolerance)
    with measured_run(spec.at(loud, quiet), watching, schedule_for=lambda _: search_of) as run:
        search = run.schedule
        assert isinstance(search, Search)
        ends_found = summarize(run.store, run.question)
        assert ends_found is not None, "a finished search has its clean pass"
        layers = {layer.index: layer for layer in ends_found.layers}
        found = tuple(search.margin(run.store, subject, layers) for subject in search.subjects)
    return Margins(
        noise=spec.setting,
        model=ends_found.model,
        provider=ends_found.provider,
        dataset=ends_found.dataset,
        metric=ends_found.told,
        target=spec.target,
        tolerance=tolerance,
        range=(loud, quiet),
        draws=spec.draws,
        margins=spec.setting.with_snr(found),
        warnings=ends_found.warnings,
    )


def to_json(margins: Margins) -> str:
    """One JSON document, schema `onnxnoise/margin/1`; an infinite level is written 1e999."""
    return measured_json(SCHEMA, margins)


def _mean(estimate: Estimate) -> float:
    return estimate.mean


def _upper(estimate: Estimate) -> float:
    return estimate.sampled[1] if estimate.sampled else estimate.mean


def _lower(estimate: Estimate) -> float:
    return estimate.sampled[0] if estimate.sampled else estimate.mean


class Search:
    """A run's schedule: each round measures the next level of every bisection that is not done, found from the run file alone."""

    def __init__(
        self, question: Question, chunks: tuple[range, ...], *, level: Level, ends: Interval, tolerance: float
    ) -> None:
        self.question, self.chunks, self.level, self.ends, self.tolerance = question, chunks, level, ends, tolerance
        self.subjects: list[Subject] = (
            [("all", None)] if question.sweeps == ("all",) else [("single", layer) for layer in question.layers]
        )
        self._known: dict[Subject, dict[float, Estimate]] = {subject: {} for subject in self.subjects}

    def about(self, level: Level) -> str:
        loud, quiet = map(level.number, self.ends)
        return f"{level.name}s from {loud} to {quiet} by bisection, {counted(self.question.draws, 'draw')}"

    def round(self, store: RunStore) -> list[Job]:
        done = store.done()
        wanted: list[tuple[Subject, float]] = []
        for subject in self.subjects:
            wanted += [(subject, level) for level in dict.fromkeys(self._next(store, subject))]
        jobs = []
        for chunk in self.chunks:
            keys: list[TallyKey] = [(*CLEAN, chunk.start)]
            for (sweep, layer), level in wanted:
                keys += [(sweep, layer, level, draw, chunk.start) for draw in range(self.question.draws)]
            jobs.append(Job(chunk, tuple(key for key in keys if key not in done)))
        return [job for job in jobs if job.keys]

    def margin(self, store: RunStore, subject: Subject, layers: Mapping[int, LayerInfo]) -> Margin:
        """Of a finished search."""
        known = self._known[subject]
        _, level = self._bisected(store, subject, _mean)
        misses, _ = self._bisected(store, subject, _upper)
        _, meets = self._bisected(store, subject, _lower)
        layer = None if subject[1] is None else layers[subject[1]]
        return Margin(
            layer=layer.index if layer else None,
            name=layer.name if layer else None,
            kind=layer.kind if layer else None,
            level=level,
            interval=(min(misses, meets), max(misses, meets)) if self.question.draws > 1 else None,
            accuracy=known.get(level),
            tried=tuple(sorted(known)),
        )

    def _next(self, store: RunStore, subject: Subject) -> list[float]:
        """Levels that the bisections of mean and interval ends need next; none when they are done."""
        missing = [level for level in self.ends if self._at(store, subject, level) is None]
        if missing:
            return missing
        found = []
        for crossing in (_mean, _upper, _lower):
            middle = self._middle(*self._bisected(store, subject, crossing))
            if middle is not None:
                found.append(middle)
        return found

    def _bisected(self, store: RunStore, subject: Subject, crossing: Crossing) -> Interval:
        """(quietest level known to miss the target, noisiest to meet it), as far as they are measured.

        Where the range's noisiest level meets the target, what misses it is endless noise; where its quietest one misses it, what
        meets it is no noise.
        """
        loud, quiet = self.ends
        target = self.question.target
        if self._meets(store, subject, loud, crossing, target):
            return self.level.endless, loud
        if not self._meets(store, subject, quiet, crossing, target):
            return quiet, self.level.silent
        while (middle := self._middle(loud, quiet)) is not None:
            if self._at(store, subject, middle) is None:
                break
            if self._meets(store, subject, middle, crossing, target):
                quiet = middle
            else:
                loud = middle
        return loud, quiet

    def _middle(self, loud: float, quiet: float) -> float | None:
        """The level between two; None where they are close enough, or at an end of the range."""
        low, high = sorted((loud, quiet))
        if low == 0 or high == inf or high / low <= 1 + self.tolerance:
            return None
        middle = self.level.between(low, high)
        return middle if low < middle < high else None

    def _meets(self, store: RunStore, subject: Subject, level: float, crossing: Crossing, target: float) -> bool:
        estimate = self._at(store, subject, level)
        return estimate is not None and crossing(estimate) >= target

    def _at(self, store: RunStore, subject: Subject, level: float) -> Estimate | None:
        """The normalized accuracy, None where it is not measured yet."""
        known = self._known[subject]
        if level not in known:
            sweep, layer = subject
            layers = self.question.layers if layer is None else (layer,)
            result = summarize(store, replace(self.question, levels=(level,), sweeps=(sweep,), layers=layers))
            if result is None or not result.cells:
                return None
            (cell,) = result.cells
            estimate = cell.normalized(result.told)
            if estimate is None:
                raise UsageError(
                    "the model has no hit without noise, so there is no accuracy to keep; check the card and the labels"
                )
            known[level] = estimate
        return known[level]
