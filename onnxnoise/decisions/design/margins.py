"""Noise margins: the lowest signal-to-noise ratio at which a network, or each of its layers, still meets a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import inf, sqrt
from typing import Literal

from onnxnoise.errors import UsageError
from onnxnoise.records import Estimate, Interval, Kind, LayerInfo, Metric, Notice, Policy, SigmaScope, TallyKey
from onnxnoise.results.as_json import strict_json
from onnxnoise.results.question import Question
from onnxnoise.results.store import RunStore
from onnxnoise.results.summary import summarize
from onnxnoise.run.jobs import Job
from onnxnoise.run.runner import measured_run
from onnxnoise.run.schedules import CLEAN
from onnxnoise.run.watching import Watching, unwatched
from onnxnoise.spec import BenchSpec
from onnxnoise.text import counted

SCHEMA = "onnxnoise/margin/1"
RANGE = (0.1, 1000.0)
"""Linear SNRs between which a margin is looked for: noise of 1000 % and 0.1 %."""

TOLERANCE = 0.05

Subject = tuple[Literal["all", "single"], int | None]
"""What bears noise: all layers, or the one of that index alone."""

Crossing = Callable[[Estimate], float]
"""The figure whose way over the target is looked for."""


@dataclass(frozen=True)
class Margin:
    """The lowest SNR (linear) at which the accuracy over the clean one still meets the target, found to the tolerance.

    `layer` is None for all layers together. `snr` is the lowest SNR tried that meets the target: `inf` where not even the
    highest does, the range's lowest where that does already. `interval`: below its low end even the upper end of the 95 %
    `sampled` interval misses the target, from its high end on the lower end meets it, too; None with one draw. `accuracy` is
    the estimate at `snr`, None for `inf`; `tried` are the SNRs that were measured.
    """

    layer: int | None
    name: str | None
    kind: Kind | None
    snr: float
    interval: Interval | None
    accuracy: Estimate | None
    tried: tuple[float, ...]


@dataclass(frozen=True)
class Margins:
    """Margins of one model: of all its layers together, or of each layer, in canonical order."""

    model: dict[str, str]
    provider: str
    dataset: dict[str, str | int]
    seed: int
    bn: Policy
    sigma_scope: SigmaScope
    metric: Metric
    target: float
    tolerance: float
    range: Interval
    draws: int
    margins: tuple[Margin, ...]
    warnings: tuple[Notice, ...]


def margin(
    spec: BenchSpec, *, tolerance: float = TOLERANCE, range_: Interval = RANGE, watching: Watching = unwatched
) -> Margins:
    """Find the noise margin for `spec.target` (a share of the clean accuracy) by bisection in log SNR.

    `spec.sweeps` says of what: `all`, the layers together, or `single`, each layer. All SNRs share their draws, so the accuracy
    falls smoothly; where it does not fall monotonously, one of its ways over the target is found. `tolerance` is the largest
    ratio, less 1, between the SNR found and one that misses the target. What is measured goes to the run file, and is used
    from there.

    >>> spec = BenchSpec("resnet20-cifar10", sweeps=("all",), draws=2, limit=40, out="run.sqlite", target=0.5)
    >>> (found,) = margin(spec, tolerance=0.5).margins
    >>> found.layer, 1 < found.snr < 100, found.interval[0] <= found.snr <= found.interval[1]
    (None, True, True)

    Raises UsageError for a tolerance or range that is none, otherwise as `runner.bench`.
    """
    low, high = range_
    if not 0 < low < high < inf:
        raise UsageError(
            f"--range: {low:g} to {high:g} is no range of signal-to-noise ratios; write for example 0.1,1000"
        )
    if not 0.001 <= tolerance <= 1:
        raise UsageError(f"--tolerance: {tolerance:g} is out of range; give a share from 0.001 to 1, 0.05 is 5 %")
    if len(spec.sweeps) != 1 or spec.sweeps[0] == "cumulative":
        raise UsageError("--sweep: a margin is of `all` layers together or of each `single` layer; name one of the two")
    asked = replace(spec, snrs=range_)
    with measured_run(asked, watching, schedule_for=lambda _: partial(Search, ends=range_, tolerance=tolerance)) as run:
        search = run.schedule
        assert isinstance(search, Search)
        ends = summarize(run.store, run.question)
        assert ends is not None, "a finished search has its clean pass"
        layers = {layer.index: layer for layer in ends.layers}
        found = tuple(search.margin(run.store, subject, layers) for subject in search.subjects)
    return Margins(
        model=ends.model,
        provider=ends.provider,
        dataset=ends.dataset,
        seed=ends.seed,
        bn=ends.bn,
        sigma_scope=ends.sigma_scope,
        metric=ends.told,
        target=spec.target,
        tolerance=tolerance,
        range=range_,
        draws=spec.draws,
        margins=found,
        warnings=ends.warnings,
    )


def to_json(margins: Margins) -> str:
    """One JSON document, schema `onnxnoise/margin/1`; an infinite SNR is written 1e999."""
    return strict_json({"schema": SCHEMA, **asdict(margins)})


def _mean(estimate: Estimate) -> float:
    return estimate.mean


def _upper(estimate: Estimate) -> float:
    return estimate.sampled[1] if estimate.sampled else estimate.mean


def _lower(estimate: Estimate) -> float:
    return estimate.sampled[0] if estimate.sampled else estimate.mean


class Search:
    """A run's schedule: each round measures the next SNR of every bisection that is not done, found from the run file alone."""

    def __init__(self, question: Question, chunks: tuple[range, ...], ends: Interval, tolerance: float) -> None:
        self.question, self.chunks, self.ends, self.tolerance = question, chunks, ends, tolerance
        self.subjects: list[Subject] = (
            [("all", None)] if question.sweeps == ("all",) else [("single", layer) for layer in question.layers]
        )
        self._known: dict[Subject, dict[float, Estimate]] = {subject: {} for subject in self.subjects}

    @property
    def about(self) -> str:
        low, high = self.ends
        return f"SNRs from {low:g} to {high:g} by bisection, {counted(self.question.draws, 'draw')}"

    def round(self, store: RunStore) -> list[Job]:
        done = store.done()
        wanted: list[tuple[Subject, float]] = []
        for subject in self.subjects:
            wanted += [(subject, snr) for snr in dict.fromkeys(self._next(store, subject))]
        jobs = []
        for chunk in self.chunks:
            keys: list[TallyKey] = [(*CLEAN, chunk.start)]
            for (sweep, layer), snr in wanted:
                keys += [(sweep, layer, snr, draw, chunk.start) for draw in range(self.question.draws)]
            jobs.append(Job(chunk, tuple(key for key in keys if key not in done)))
        return [job for job in jobs if job.keys]

    def margin(self, store: RunStore, subject: Subject, layers: Mapping[int, LayerInfo]) -> Margin:
        """Of a finished search."""
        known = self._known[subject]
        _, snr = self._bisected(store, subject, _mean)
        below, _ = self._bisected(store, subject, _upper)
        _, above = self._bisected(store, subject, _lower)
        layer = None if subject[1] is None else layers[subject[1]]
        return Margin(
            layer=layer.index if layer else None,
            name=layer.name if layer else None,
            kind=layer.kind if layer else None,
            snr=snr,
            interval=(below, above) if self.question.draws > 1 else None,
            accuracy=known.get(snr),
            tried=tuple(sorted(known)),
        )

    def _next(self, store: RunStore, subject: Subject) -> list[float]:
        """SNRs that the bisections of mean and interval ends need next; none when they are done."""
        missing = [snr for snr in self.ends if self._at(store, subject, snr) is None]
        if missing:
            return missing
        found = []
        for crossing in (_mean, _upper, _lower):
            middle = self._middle(*self._bisected(store, subject, crossing))
            if middle is not None:
                found.append(middle)
        return found

    def _bisected(self, store: RunStore, subject: Subject, crossing: Crossing) -> Interval:
        """(highest SNR known to miss the target, lowest to meet it) as far as measured; 0 or inf where the range's end tells.

        0 stands for "the lowest of the range meets it", whose miss lies somewhere below.
        """
        low, high = self.ends
        target = self.question.target
        if self._meets(store, subject, low, crossing, target):
            return 0.0, low
        if not self._meets(store, subject, high, crossing, target):
            return high, inf
        while (middle := self._middle(low, high)) is not None:
            if self._at(store, subject, middle) is None:
                break
            if self._meets(store, subject, middle, crossing, target):
                high = middle
            else:
                low = middle
        return low, high

    def _middle(self, low: float, high: float) -> float | None:
        """The geometric mean in three digits; None where low and high are close enough, or at an end of the range."""
        if low == 0 or high == inf or high / low <= 1 + self.tolerance:
            return None
        middle = float(f"{sqrt(low * high):.3g}")
        return middle if low < middle < high else None

    def _meets(self, store: RunStore, subject: Subject, snr: float, crossing: Crossing, target: float) -> bool:
        estimate = self._at(store, subject, snr)
        return estimate is not None and crossing(estimate) >= target

    def _at(self, store: RunStore, subject: Subject, snr: float) -> Estimate | None:
        """The normalized accuracy, None where it is not measured yet."""
        known = self._known[subject]
        if snr not in known:
            sweep, layer = subject
            layers = self.question.layers if layer is None else (layer,)
            result = summarize(store, replace(self.question, snrs=(snr,), sweeps=(sweep,), layers=layers))
            if result is None or not result.cells:
                return None
            (cell,) = result.cells
            estimate = cell.normalized(result.told)
            if estimate is None:
                raise UsageError(
                    "the model has no hit without noise, so there is no accuracy to keep; check the card and the labels"
                )
            known[snr] = estimate
        return known[snr]
