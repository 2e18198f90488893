"""Noise margins: the most noise at which a network, or each of its layers, still meets a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Literal

from onnxnoise.errors import UsageError
from onnxnoise.noise.base import Level
from onnxnoise.noise.models import readable
from onnxnoise.records import Estimate, Interval, LayerInfo, MeasuredModel, Notice, TallyKey
from onnxnoise.results.as_json import measured_json
from onnxnoise.results.chunked import Widths, next_draws
from onnxnoise.results.question import CellKey, Question
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.results.summary import summarize
from onnxnoise.run.jobs import Job
from onnxnoise.run.runner import measured_run
from onnxnoise.run.schedules import CLEAN, jobs
from onnxnoise.run.watching import Watching, unwatched
from onnxnoise.spec import BenchSpec
from onnxnoise.text import counted
from onnxnoise.words import Kind, Metric

SCHEMA = "onnxnoise/margin/1"
TOLERANCE = 0.05
CLEAR = 2
"""The half-widths that must lie between a level's accuracy and the target before its precision is reached, to draw no further."""

Curve = tuple[Literal["all", "single"], int | None]
"""A curve of accuracy over level, by its noisy layers: all of them, or the single one of that index."""

Statistic = Callable[[Estimate], float]
"""The number of an estimate that is held against the target: its mean, or an end of its interval."""


@dataclass(frozen=True)
class Margin:
    """The noisiest level at which the accuracy over the clean one still meets the target, found to the tolerance.

    `layer` is None for all layers together. `level` is the noisiest level tried that meets the target: no noise at all where
    not even the quietest of the range meets it, the range's noisiest where that one does; `snr` is the same where it is a
    signal-to-noise ratio. `interval` has two levels, the smaller first: beyond the one of more noise even the upper end of the
    95 % `sampled` interval misses the target, from the one of less noise on the lower end meets it, too; None with one draw.
    `accuracy` is the estimate at `level`, None for no noise; `tried` are the levels that were measured. `readable` is the level
    as people say it: `3.2 days`, `4 bits`; empty for no noise.
    """

    layer: int | None
    name: str | None
    kind: Kind | None
    level: float
    interval: Interval | None
    accuracy: Estimate | None
    tried: tuple[float, ...]
    snr: float | None = None
    readable: str = ""


@dataclass(frozen=True)
class Margins(MeasuredModel):
    """Margins of one model: of all its layers together, or of each layer, in canonical order.

    `range` has the noisiest and the quietest level between which the margins were looked for. `draws` is the number that met
    every image at every level, None where each chunk of images met draws of its own. `chance` is the accuracy of always
    giving the same answer over the clean one, in the unit of the target; None where it isn't known.
    """

    metric: Metric
    target: float
    tolerance: float
    range: Interval
    draws: int | None
    margins: tuple[Margin, ...]
    warnings: tuple[Notice, ...]
    chance: float | None = None


def margin(
    spec: BenchSpec, *, tolerance: float = TOLERANCE, range_: Interval | None = None, watching: Watching = unwatched
) -> Margins:
    """Find the noise margin for `spec.target` (a share of the clean accuracy) by bisection in the logarithm of the level.

    `spec.sweeps` is `all` for the margin of all layers together, or `single` for that of each layer. All levels share their
    draws, so the accuracy falls smoothly; where it crosses the target several times, one of the crossings is found. Where each
    chunk of images meets draws of its own, a level whose accuracy is far from the target gets few of them. `tolerance`
    is the largest ratio, less 1, between the level found and one that misses the target. `range_` are the levels between which
    it is looked for, by default the noise model's own. All measurements are kept in the run file, and used from there.

    >>> spec = BenchSpec("resnet20-cifar10", sweeps=("all",), draws=2, limit=40, out="run.sqlite", target=0.5)
    >>> (found,) = margin(spec, tolerance=0.5).margins
    >>> found.layer, 1 < found.level < 100, found.interval[0] <= found.level <= found.interval[1]
    (None, True, True)

    Raises UsageError for an impossible tolerance or range, and what `runner.bench` raises.
    """
    level = spec.level
    if spec.only is not None or level.only is not None:
        raise UsageError(
            f"--noise: {readable(spec.setting)} has one level, so there is no margin to look for; bench says what it keeps"
        )
    low, high = range_ or sorted(level.search)
    if not 0 < low < high < inf:
        smaller, larger = map(level.number, sorted(level.search))
        raise UsageError(
            f"--range: {level.number(low)} to {level.number(high)} is no range of {level.name}s; write for example "
            f"{smaller},{larger}"
        )
    for end in (low, high):
        level.check(end, "--range")
    quiet, loud = level.in_order((low, high))
    if not 0.001 <= tolerance <= 1:
        raise UsageError(f"--tolerance: {tolerance:g} is out of range; give a share from 0.001 to 1, 0.05 is 5 %")
    if len(spec.sweeps) != 1 or spec.sweeps[0] == "cumulative":
        raise UsageError("--sweep: a margin is of `all` layers together or of each `single` layer; name one of the two")
    bisection_of = partial(Bisection, level=level, ends=(loud, quiet), tolerance=tolerance, crossed=not spec.chunked)
    with measured_run(spec.at(loud, quiet), watching, schedule_for=lambda _: bisection_of) as run:
        bisection = run.schedule
        assert isinstance(bisection, Bisection)
        ends_found = summarize(run.store, run.question)
        assert ends_found is not None, "a finished search has its clean pass"
        layers = {layer.index: layer for layer in ends_found.layers}
        found = tuple(bisection.margin(run.store, curve, layers) for curve in bisection.curves)
    return Margins(
        noise=spec.setting,
        model=ends_found.model,
        provider=ends_found.provider,
        dataset=ends_found.dataset,
        metric=ends_found.told,
        target=spec.target,
        tolerance=tolerance,
        range=(loud, quiet),
        draws=None if spec.chunked else spec.most_draws(1),
        margins=spec.setting.with_snr(found),
        warnings=tuple(each for each in ends_found.warnings if each.code != "not_precise"),  # of the range's ends
        chance=ends_found.normalized_chance,
    )


def to_json(margins: Margins) -> str:
    """The margins as one JSON document, schema `onnxnoise/margin/1`; an infinite level is written 1e999."""
    return measured_json(SCHEMA, margins)


def _mean(estimate: Estimate) -> float:
    return estimate.mean


def _upper(estimate: Estimate) -> float:
    return estimate.sampled[1] if estimate.sampled else estimate.mean


def _lower(estimate: Estimate) -> float:
    return estimate.sampled[0] if estimate.sampled else estimate.mean


class Bisection:
    """A run's schedule: each round measures the next level of every curve whose bisection isn't done, by the run file alone."""

    def __init__(
        self,
        question: Question,
        chunks: tuple[range, ...],
        *,
        level: Level,
        ends: Interval,
        tolerance: float,
        crossed: bool = True,
    ) -> None:
        self.question, self.chunks, self.level, self.ends, self.tolerance = question, chunks, level, ends, tolerance
        self.crossed = crossed
        self.curves: list[Curve] = (
            [("all", None)] if question.sweeps == ("all",) else [("single", layer) for layer in question.layers]
        )
        self._known: dict[Curve, dict[float, Estimate]] = {curve: {} for curve in self.curves}
        self._done: set[TallyKey] = set()
        self._widths: Widths = {}

    def about(self, level: Level) -> str:
        loud, quiet = map(level.number, self.ends)
        draws = counted(self.question.draws, "draw")
        return f"{level.name}s from {loud} to {quiet} by bisection, {'' if self.crossed else 'at most '}{draws}"

    def round(self, store: RunStore) -> list[Job]:
        done = self._done = store.done()
        wanted: list[tuple[Curve, float]] = []
        for curve in self.curves:
            wanted += [(curve, level) for level in dict.fromkeys(self._next(store, curve))]
        if not self.crossed:
            owed: dict[CellKey, list[int]] = {}
            for curve, level in wanted:
                owed |= next_draws(store, self._asked(curve, level), done=done, widths=self._widths)
            return jobs(self.chunks, owed, done)
        crossed = []
        for chunk in self.chunks:
            keys: list[TallyKey] = [(*CLEAN, chunk.start)]
            for (sweep, layer), level in wanted:
                keys += [(sweep, layer, level, draw, chunk.start) for draw in range(self.question.draws)]
            crossed.append(Job(chunk, tuple(key for key in keys if key not in done)))
        return [job for job in crossed if job.keys]

    def margin(self, store: RunStore, curve: Curve, layers: Mapping[int, LayerInfo]) -> Margin:
        """The margin of one curve, once its bisection is done."""
        known, self._done = self._known[curve], store.done()
        _, level = self._bisected(store, curve, _mean)
        misses, _ = self._bisected(store, curve, _upper)
        _, meets = self._bisected(store, curve, _lower)
        layer = None if curve[1] is None else layers[curve[1]]
        return Margin(
            layer=layer.index if layer else None,
            name=layer.name if layer else None,
            kind=layer.kind if layer else None,
            level=level,
            interval=(min(misses, meets), max(misses, meets)) if self.question.draws > 1 else None,
            accuracy=known.get(level),
            tried=tuple(sorted(known)),
            readable="" if level == self.level.silent else self.level.words(level),
        )

    def _next(self, store: RunStore, curve: Curve) -> list[float]:
        """The levels that the bisections of mean and interval ends need next; none when they are done."""
        missing = [level for level in self.ends if self._at(store, curve, level) is None]
        if missing:
            return missing
        found = []
        for statistic in (_mean, _upper, _lower):
            middle = self._middle(*self._bisected(store, curve, statistic))
            if middle is not None:
                found.append(middle)
        return found

    def _bisected(self, store: RunStore, curve: Curve, statistic: Statistic) -> Interval:
        """(quietest level known to miss the target, noisiest known to meet it), by the levels measured so far.

        Where the range's noisiest level meets the target, endless noise is taken to miss it; where the quietest one misses it,
        no noise is taken to meet it.
        """
        loud, quiet = self.ends
        target = self.question.target
        if self._meets(store, curve, loud, statistic, target):
            return self.level.endless, loud
        if not self._meets(store, curve, quiet, statistic, target):
            return quiet, self.level.silent
        while (middle := self._middle(loud, quiet)) is not None:
            if self._at(store, curve, middle) is None:
                break
            if self._meets(store, curve, middle, statistic, target):
                quiet = middle
            else:
                loud = middle
        return loud, quiet

    def _middle(self, loud: float, quiet: float) -> float | None:
        """The level between two; None where they are close enough, or where one lies beyond the range."""
        low, high = sorted((loud, quiet))
        if self.level.choices:
            inside = sorted(each for each in self.level.choices if low < each < high)
            return inside[len(inside) // 2] if inside else None
        if low == 0 or high == inf or high / low <= 1 + self.tolerance or (self.level.whole and high - low <= 1):
            return None
        middle = self.level.between(low, high)
        return middle if low < middle < high else None

    def _meets(self, store: RunStore, curve: Curve, level: float, statistic: Statistic, target: float) -> bool:
        estimate = self._at(store, curve, level)
        return estimate is not None and statistic(estimate) >= target

    def _asked(self, curve: Curve, level: float) -> Question:
        """The question for one point of a curve."""
        sweep, layer = curve
        layers = self.question.layers if layer is None else (layer,)
        return replace(self.question, levels=(level,), sweeps=(sweep,), layers=layers)

    def _at(self, store: RunStore, curve: Curve, level: float) -> Estimate | None:
        """The normalized accuracy at a level, None where it is not measured yet."""
        known = self._known[curve]
        if level not in known:
            asked = self._asked(curve, level)
            owed = not self.crossed and bool(next_draws(store, asked, done=self._done, widths=self._widths))
            if owed and not self._is_at_a_look(store, asked):
                return None
            result = summarize(store, asked)
            if result is None or not result.cells:
                return None
            (cell,) = result.cells
            estimate = cell.normalized(result.told)
            if owed and not self._is_clear(estimate):
                return None
            if estimate is None:
                raise UsageError(
                    "the model has no hit without noise, so there is no accuracy to keep; check the card and the labels"
                )
            known[level] = estimate
        return known[level]

    def _is_clear(self, estimate: Estimate | None) -> bool:
        """Whether more draws are unlikely to change the side of the target: an interval CLEAR times as wide is all on it."""
        if estimate is None or estimate.sampled is None:
            return False
        low, high = (estimate.mean + CLEAR * (end - estimate.mean) for end in estimate.sampled)
        return not low < self.question.target < high

    def _is_at_a_look(self, store: RunStore, asked: Question) -> bool:
        """Whether the one cell of a question has all draws of a look and no others.

        A run that was killed on the way to a look goes on to it, and so decides as it would have.
        """
        (cell,) = asked.cells
        drawn = {key[3]: key for key in self._done if key[:3] == cell}
        if not drawn or max(drawn) != len(drawn) - 1:
            return False
        look = next_draws(store, asked, done=self._done - {drawn[max(drawn)]}, widths=self._widths)
        return len(look[cell]) == len(drawn)
