"""A rule on its way to a verdict: the places that it looks at, the readings of their draws, and the words for them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from onnxnoise.decisions.gating.records import CellVerdict, RuleVerdict
from onnxnoise.decisions.gating.rules import CLEAN, WORST, Rule
from onnxnoise.errors import RunFileError, UsageError
from onnxnoise.records import NoiseSetting, Verdict
from onnxnoise.results.run_hits import RunHits, same_layers
from onnxnoise.selection import Selectable, select_layers
from onnxnoise.statistics.contrasts import Contrast, Side, absolute, contrast, normalized, ratio
from onnxnoise.statistics.sequential import Range, Reading, overall, read, unread
from onnxnoise.text import shortened
from onnxnoise.words import SWEEPS


@dataclass(frozen=True)
class Place:
    """A place that a rule looks at, whose value is the mean over `layers`; `layer` and `name` where that is one layer."""

    layer: int | None
    name: str | None
    layers: tuple[int | None, ...]


def title(rule: Rule) -> str:
    """The rule's name as errors write it."""
    return f"rule {rule.name!r}"


def places(rule: Rule, layers: Sequence[Selectable]) -> list[Place]:
    """The places that a rule looks at, of layers that bear noise; raises UsageError for a pattern that matches none."""
    if rule.sweep == "all":
        return [Place(None, None, (None,))]
    if rule.layer is None:
        return [Place(None, None, tuple(layer.index for layer in layers))]
    try:
        chosen = layers if rule.layer == WORST else select_layers(layers, rule.layer)
    except UsageError as error:
        raise UsageError(f"{title(rule)}: layer = {str(error).removeprefix('--layers: ')}") from error
    return [Place(layer.index, layer.name, (layer.index,)) for layer in chosen]


class Case:
    """A rule and the readings of its places. A place that has passed or failed at one look stays so.

    `baseline` is the open run file of a rule that is relative to a run file.
    """

    def __init__(self, rule: Rule, where: Sequence[Place], baseline: RunHits | None) -> None:
        self.rule, self.places, self.baseline = rule, where, baseline
        self.readings: dict[Place, Reading] = {}

    @property
    def verdict(self) -> Verdict:
        if any(reading.verdict == "fail" for reading in self.readings.values()):
            return "fail"
        if len(self.readings) < len(self.places):
            return "inconclusive"
        return overall([reading.verdict for reading in self.readings.values()])

    @property
    def open(self) -> list[Place]:
        """The places that need more draws; none once the rule has failed."""
        if self.verdict == "fail":
            return []
        return [each for each in self.places if self._known(each) == "inconclusive"]

    def _known(self, place: Place) -> Verdict:
        return self.readings[place].verdict if place in self.readings else "inconclusive"

    def look(self, run: RunHits, draws: int | None, error: float, images: int, *, rare: float) -> None:
        """Read the open places from the draws numbered below `draws` (None: from all); `error`, `rare` as `sequential.read`.

        Raises RunFileError where no draw is complete, there is no clean hit, or the baseline lacks what is needed.
        """
        for place in self.open:
            numbers, side = self._side(run, place, images)
            wanted = [number for number in numbers if draws is None or number < draws]
            value, law, possible = self._estimate(run, place, wanted, side.first(len(wanted)), images)
            self.readings[place] = (
                unread(value)
                if law is None
                else read(law, self.rule.limit, possible, error, peers=len(self.places), rare=rare)
            )

    def _side(self, run: RunHits, place: Place, images: int) -> tuple[list[int], Side]:
        rule = self.rule
        found = run.side(rule.sweep, place.layers, rule.level, rule.metric, images)
        if found is None:
            raise RunFileError(
                f"{run.path}: {title(rule)}: no draw of the sweep {rule.sweep} at {run.level.text(rule.level)} is complete on "
                f"{images:,} images; run its `onnxnoise bench` again to go on with it"
            )
        if not found[1].clean.any():
            raise RunFileError(f"{run.path}: no image is classified correctly without noise: there is nothing to judge")
        return found

    def _estimate(
        self, run: RunHits, place: Place, numbers: list[int], side: Side, images: int
    ) -> tuple[float, Contrast | None, Range]:
        """The rule's value, its law (None with one draw), and the range of possible values."""
        if self.baseline is not None:
            return self._over_baseline(run, place, numbers, side, images)
        clean = float(side.clean.mean())
        if self.rule.relative_to == CLEAN:
            value, each, image, decisions = normalized(side)
            return value, contrast(value, [each], image, decisions), Range(0.0, 1.0 / clean)
        value, each, image, decisions = absolute(side)
        if not self.rule.from_clean:
            return value, contrast(value, [each], image, decisions), Range(0.0, 1.0)
        return (
            value - clean,
            contrast(value - clean, [each], -side.clean.astype(np.float64), decisions),
            Range(-clean, 1.0 - clean),
        )

    def _over_baseline(
        self, run: RunHits, place: Place, numbers: list[int], side: Side, images: int
    ) -> tuple[float, Contrast | None, Range]:
        rule, baseline = self.rule, self.baseline
        assert baseline is not None
        there = place.layers if rule.sweep == "all" or place.layer is not None else baseline.selected
        found = baseline.side(rule.sweep, there, rule.level, rule.metric, images)
        if found is None or found[1].mean == 0.0:
            raise RunFileError(
                f"{baseline.path}: {title(rule)}: a baseline needs a complete draw of the sweep {rule.sweep} at "
                f"{run.level.text(rule.level)} on {images:,} images, with some hits; bench it again"
            )
        theirs, base = found
        by_draw = same_layers(run, baseline) and run.identity["seed"] == baseline.identity["seed"]
        if by_draw:
            common = [number for number in numbers if number in theirs]
            if not common:
                raise RunFileError(f"{baseline.path}: {title(rule)}: has none of the draws measured; bench it again")
            side = side.chosen([numbers.index(number) for number in common])
            base = base.chosen([theirs.index(number) for number in common])
        return side.mean / base.mean, ratio(side, base, by_draw=by_draw), Range(0.0, 1.0 / base.mean)

    def judged(self) -> RuleVerdict:
        """The rule with its verdict; the place with that verdict and the lowest value decides."""
        rule, verdict = self.rule, self.verdict
        place = min(
            (each for each in self.readings if self.readings[each].verdict == verdict),
            key=lambda each: self.readings[each].value,
        )
        reading = self.readings[place]
        return RuleVerdict(
            name=rule.name,
            verdict=verdict,
            message=_message(self, place, reading),
            sweep=rule.sweep,
            layer=rule.layer,
            level=rule.level,
            metric=rule.metric,
            relative_to=rule.relative_to,
            min=rule.min,
            max_drop=rule.max_drop,
            confidence=rule.confidence,
            quantity=rule.quantity,
            limit=rule.limit,
            value=reading.value,
            low=reading.low,
            high=reading.high,
            draws=reading.draws,
            cells=tuple(
                CellVerdict(each.layer, each.name, f.draws, f.value, f.low, f.high, f.p_pass, f.p_fail, f.verdict)
                for each, f in self.readings.items()
            ),
        )


def _message(case: Case, place: Place, reading: Reading) -> str:
    rule = case.rule
    where = f"layer {place.layer} {shortened(place.name or '', 60)}: " if place.layer is not None else ""
    if len(case.places) > 1:
        where = f"worst of {len(case.places)} layers, {where}"
    said = f"{where}{rule.quantity} {reading.value:.4f}"
    if reading.low is None:
        return f"{said} in one draw, which shows nothing of how chips differ; bench 10 draws or more"
    said += f" [{reading.low:.4f}, {reading.high:.4f}] in {reading.draws} draws"
    if reading.lacking is not None:
        return f"{said} is clear of {rule.limit:g}, but so few can hide chips that collapse: it takes {reading.lacking}"
    ends = {"pass": "is at least", "fail": "is below", "inconclusive": "can't be told from"}
    return f"{said} {ends[reading.verdict]} {rule.limit:g}"


def opened_baseline(rule: Rule, noise: NoiseSetting, data: str, images: int, stack: ExitStack) -> RunHits | None:
    """The rule's baseline (None where it has none), checked against the noise setting and the data's digest of the gated run.

    Raises RunFileError where the two can't be compared; the message says in what they differ, or what the baseline has.
    """
    if rule.baseline is None:
        return None
    baseline = stack.enter_context(RunHits.opened(rule.baseline))
    there = baseline.identity["data"]
    differing = baseline.noise.difference(noise)
    if there != data:
        differing = "data", f"{baseline.description['dataset']}, digest {there[:8]}", f"digest {data[:8]}"
    if differing:
        what, theirs, ours = differing
        raise RunFileError(
            f"{baseline.path}: {title(rule)}: the baseline was measured with another {what} "
            f"({theirs[:40]!r} there, {ours[:40]!r} here); bench it alike"
        )
    if baseline.images < images:
        raise RunFileError(
            f"{baseline.path}: {title(rule)}: the baseline has {baseline.images:,} images, fewer than the {images:,} here; "
            f"bench it on as many, or gate with --limit {baseline.images}"
        )
    for place in places(rule, [layer for layer in baseline.layers if layer.index in baseline.selected]):
        check_there(baseline, rule, place)
    return baseline


def check_there(run: RunHits, rule: Rule, place: Place) -> None:
    """Raise RunFileError, which lists the cells that the run file has, where it lacks those that a rule looks at."""
    if run.has(rule.sweep, place.layers, rule.level):
        return
    there = ", ".join(
        f"{sweep} at {run.level.name} {'/'.join(map(run.level.number, run.levels(sweep)))}"
        for sweep in SWEEPS
        if run.levels(sweep)
    )
    layer = f" for layer {place.layer}" if place.layer is not None else ""
    raise RunFileError(
        f"{run.path}: {title(rule)}: the run does not have the sweep {rule.sweep} at {run.level.text(rule.level)}{layer} "
        f"(it has {there or 'nothing but the clean pass'}); bench that too, or change the rule"
    )
