"""A rule on its way to a verdict: the places that it looks at, the evidence from their draws, and the words for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxnoise.decisions.gating.draws import Draws, GatedRun
from onnxnoise.decisions.gating.records import CellVerdict, RuleVerdict
from onnxnoise.decisions.gating.rules import CLEAN, WORST, Rule
from onnxnoise.errors import DataError, RunFileError, UsageError
from onnxnoise.records import NoiseSetting, Verdict
from onnxnoise.results.chance import CAUSES
from onnxnoise.selection import Selectable, select_layers
from onnxnoise.statistics.betting import Bets, against_all, bounds, evidence, most
from onnxnoise.text import counted, ranged, shortened
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
    """A rule and what its places have shown so far. A place that has passed stays so, and needs no more draws; one that has met
    all draws of its baseline can't get any.

    `baseline` is the open run file of a rule that is relative to a run file. `seconds` is the time that was spent on the
    rule.
    """

    def __init__(self, rule: Rule, where: Sequence[Place], baseline: GatedRun | None) -> None:
        self.rule, self.places, self.baseline = rule, where, baseline
        self.bets: dict[Place, Bets] = {}
        self._bases: dict[Place, Draws | None] = {}
        self._used_up: set[Place] = set()
        self.for_it: dict[Place, float] = {}
        self.against: dict[Place, float] = {}
        self.against_all = 0.0
        self.seconds = 0.0

    @property
    def needed(self) -> float:
        """The evidence, as a logarithm, that decides."""
        return -math.log(1.0 - self.rule.confidence)

    @property
    def verdict(self) -> Verdict:
        if self.against_all >= self.needed:
            return "fail"
        return "pass" if all(map(self._passed, self.places)) else "inconclusive"

    @property
    def open(self) -> list[Place]:
        """The places that need more draws, and can get some; none once the rule has failed."""
        if self.verdict == "fail":
            return []
        return [each for each in self.places if not self._passed(each) and each not in self._used_up]

    def _passed(self, place: Place) -> bool:
        return self.for_it.get(place, 0.0) >= self.needed

    def _verdict(self, place: Place) -> Verdict:
        """The verdict of one place; it fails alone where it would in each of the rule's places at once (Bonferroni)."""
        if self._passed(place):
            return "pass"
        return "fail" if self.against[place] >= self.needed + math.log(len(self.places)) else "inconclusive"

    def look(self, run: GatedRun, images: int, *, partial: bool = False) -> None:
        """Count the evidence of the open places, from all the draws that are there.

        Raises RunFileError where no draw is complete, unless the run is `partial`, where there is no clean hit, or where the
        baseline lacks what is needed.
        """
        limit = self.rule.limit
        for place in self.open:
            found = self._draws(run, place, images)
            if partial and (found is None or not (found.clean.any() or found.met(images))):
                continue
            bets = self._bets(run, place, self._usable(run, found, images), partial=partial)
            if bets is None:
                continue
            self.bets[place] = bets
            certain = limit <= bets.possible[0]
            self.for_it[place] = math.inf if certain else most(bets.above(limit))
            self.against[place] = 0.0 if certain else most(bets.below(limit))
        if self.bets:
            self.against_all = against_all([(bets, limit) for bets in self.bets.values()], len(self.places))

    def _bets(self, run: GatedRun, place: Place, found: Draws, *, partial: bool) -> Bets | None:
        """The chunks to bet on, with the value that is held against the limit; None for a baseline's that had no hit so far."""
        rule = self.rule
        accuracy, clean = found.accuracy, found.clean_accuracy
        if rule.baseline is not None:
            return self._over_baseline(run, place, found, partial=partial)
        hits, kept = found.shares(found.hits, found.clean, one_chip=run.one_chip)
        more = {**self._chunks(found), "at_once": found.crossed and not run.one_chip, "one_chip": run.one_chip}
        if rule.relative_to == CLEAN:
            return Bets(accuracy / clean, hits, kept, highest=1.0 / clean, **more)
        value, floor = (accuracy - clean, -1.0) if rule.from_clean else (accuracy, 0.0)
        gains = hits - kept if rule.from_clean else hits
        return Bets(value, gains, np.ones_like(gains), floor, 1.0, **more)

    def _chunks(self, found: Draws) -> dict[str, Any]:
        """The chunks of draws as `Bets` takes them: where they start, how many images each has, and the error of their test."""
        return {"starts": found.starts, "sizes": tuple(found.sizes), "error": 1.0 - self.rule.confidence}

    def _draws(self, run: GatedRun, place: Place, images: int) -> Draws | None:
        rule = self.rule
        return run.draws(rule.sweep, place.layers, rule.level, rule.metric, images, dealt=self.baseline is None)

    def _usable(self, run: GatedRun, found: Draws | None, images: int) -> Draws:
        rule = self.rule
        if found is None:
            raise RunFileError(
                f"{run.path}: {title(rule)}: no draw of the sweep {rule.sweep} at {run.level.text(rule.level)} is complete on "
                f"{images:,} images; run its `onnxnoise bench` again to go on with it"
            )
        if not found.clean.any():
            raise DataError(
                f"{run.path}: no image is classified correctly without noise, no more than by chance: there is nothing to judge. "
                f"{CAUSES}"
            )
        return found

    def _over_baseline(self, run: GatedRun, place: Place, found: Draws, *, partial: bool) -> Bets | None:
        """Bets on the same chunks of both: the draws of the same number, which met the same noise where seed and layers agree."""
        rule, baseline = self.rule, self.baseline
        assert baseline is not None
        if place not in self._bases:
            there = place.layers if rule.sweep == "all" or place.layer is not None else baseline.selected
            self._bases[place] = baseline.draws(
                rule.sweep, there, rule.level, rule.metric, baseline.laid_down, dealt=False
            )
        base = self._bases[place]
        if base is None or base.accuracy == 0.0:
            raise self._without_hits(run)
        known = set(base.numbers)
        common = [number for number in found.numbers if number in known]
        if not common:
            raise RunFileError(f"{baseline.path}: {title(rule)}: has none of the draws measured; bench it again")
        if len(common) == len(known):
            self._used_up.add(place)
        found, base = found.chosen(common), base.chosen(common)
        if found.crossed and base.crossed:
            order = run.order(found.hits.shape[1])
            shared = float(base.hits[:, : len(order)].mean())
            if shared == 0.0:
                raise self._without_hits(run)
            value = found.accuracy / shared
            hits, theirs = found.shares(found.hits[:, order], base.hits[:, order], one_chip=run.one_chip)
            return Bets(value, hits, theirs, at_once=not run.one_chip, one_chip=run.one_chip)
        if found.crossed:
            found = found.on_chunks_of(base, baseline.order(baseline.laid_down))
        elif base.crossed:
            base = base.on_chunks_of(found, run.order(run.laid_down))
        elif (found.starts, tuple(found.sizes)) != (base.starts, tuple(base.sizes)):
            raise RunFileError(
                f"{baseline.path}: {title(rule)}: the baseline's chunks have {base.sizes[0]:g} images, those of {run.path} "
                f"{found.sizes[0]:g}, so the same draws met other images; gate the model itself, with --out into a new file: "
                "then its chunks are made like the baseline's"
            )
        if base.accuracy == 0.0:
            if partial and place not in self._used_up:
                return None
            raise self._without_hits(run)
        hits, theirs = found.shares(found.hits, base.hits)
        return Bets(found.accuracy / base.accuracy, hits, theirs, **self._chunks(found))

    def _without_hits(self, run: GatedRun) -> RunFileError:
        rule, baseline = self.rule, self.baseline
        assert baseline is not None
        return RunFileError(
            f"{baseline.path}: {title(rule)}: a baseline needs a complete draw of the sweep {rule.sweep} at "
            f"{run.level.text(rule.level)}, with some hits on the images that are gated; bench it again, with more draws or "
            "images"
        )

    def judged(self) -> RuleVerdict:
        """The rule with its verdict; the place with that verdict and the lowest value decides."""
        rule, verdict = self.rule, self.verdict
        cells = [self._cell(place) for place in self.bets]
        deciding = [cell for cell in cells if cell.verdict == verdict] or cells
        chosen = min(deciding, key=lambda cell: cell.value, default=None)
        for_it = min((self.for_it.get(place, 0.0) for place in self.places), default=0.0)
        return RuleVerdict(
            name=rule.name,
            verdict=verdict,
            message=_message(self, chosen, for_it),
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
            value=chosen.value if chosen else None,
            low=chosen.low if chosen else None,
            high=chosen.high if chosen else None,
            draws=chosen.draws if chosen else 0,
            cells=tuple(cells),
            e_pass=evidence(for_it),
            e_fail=evidence(self.against_all),
        )

    def _cell(self, place: Place) -> CellVerdict:
        bets = self.bets[place]
        e_pass, e_fail = evidence(self.for_it[place]), evidence(self.against[place])
        low, high = bounds(bets, 1.0 - self.rule.confidence)
        return CellVerdict(
            place.layer,
            place.name,
            bets.draws,
            bets.value,
            low,
            high,
            min(1.0, 1.0 / e_pass),
            min(1.0, 1.0 / e_fail),
            self._verdict(place),
            e_pass,
            e_fail,
        )


def _message(case: Case, cell: CellVerdict | None, for_it: float) -> str:
    rule, verdict = case.rule, case.verdict
    if cell is None or cell.low is None or cell.high is None:
        return "not measured yet: no draw is complete"
    where = f"layer {cell.layer} {shortened(cell.name or '', 60)}: " if cell.layer is not None else ""
    if len(case.places) > 1:
        where = f"worst of {len(case.places)} layers, {where}"
    bets = next(iter(case.bets.values()))
    many, one = (bets.chunks, "image") if bets.one_chip else (cell.draws, "draw")
    met = f"{'on' if bets.one_chip else 'in'} {counted(many, one)}"
    said = f"{where}{rule.quantity} {ranged(cell.value, (cell.low, cell.high), '.4f')} {met}"
    if verdict != "inconclusive":
        ends, log = ("is at least", for_it) if verdict == "pass" else ("is below", case.against_all)
        return f"evidence {odds(log)}: {said} {ends} {rule.limit:g}"
    said = (
        f"evidence {odds(for_it)} for it, {odds(case.against_all)} against it, {odds(case.needed)} decides: {said} can't be told "
        f"from {rule.limit:g}"
    )
    ratio = cell.value / rule.limit if rule.limit > 0.0 else 1.0
    if ratio > 1.0 and case.needed > (many * math.log(ratio)):
        enough = math.ceil(1.5 * case.needed / math.log(ratio))
        rare = "images that lose it" if bets.one_chip else "chips that lose everything"
        said += f"; so few {one}s can't rule out rare {rare}: about {enough:,} would do"
        said += ", the same passes without --draws too" if bets.at_once else ""
    if case.baseline is not None and not case.open:
        said += f"; {case.baseline.path} has no more draws: bench it with a smaller --precision, or more --draws"
    return said


def odds(log: float) -> str:
    """Evidence in words, from its logarithm: `31 to 1`."""
    if log >= math.log(1e6):
        return "over a million to 1"
    return f"{math.exp(log):.0f} to 1" if log >= math.log(9.5) else f"{math.exp(log):.1f} to 1"


def opened_baseline(rule: Rule, noise: NoiseSetting, data: str, images: int, stack: ExitStack) -> GatedRun | None:
    """The rule's baseline (None where it has none), checked against the noise setting and the data's digest of the gated run.

    Raises RunFileError where the two can't be compared; the message says in what they differ, or what the baseline has.
    """
    if rule.baseline is None:
        return None
    baseline = stack.enter_context(GatedRun.opened(rule.baseline))
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
    there_are = baseline.laid_down if baseline.chunked else baseline.images
    if there_are < images:
        raise RunFileError(
            f"{baseline.path}: {title(rule)}: the baseline has {there_are:,} images, fewer than the {images:,} here; "
            f"bench it on as many, or gate with --limit {there_are}"
        )
    if baseline.chunked and there_are != images:
        raise RunFileError(
            f"{baseline.path}: {title(rule)}: the baseline has dealt {there_are:,} images to its draws, here it is {images:,}, "
            f"so the same draws would meet other images; gate with --limit {there_are}, or bench it with --limit {images}"
        )
    for place in places(rule, [layer for layer in baseline.layers if layer.index in baseline.selected]):
        check_there(baseline, rule, place)
    return baseline


def check_there(run: GatedRun, rule: Rule, place: Place) -> None:
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
