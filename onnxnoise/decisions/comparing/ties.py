"""Differences between models, which of them are ties, and where curves cross."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from onnxnoise.decisions.comparing.chunks import AnyRun, ChunkSide
from onnxnoise.decisions.comparing.records import SCALES, Crossing, Difference, Quantity, Scale
from onnxnoise.noise.base import Level
from onnxnoise.results.run_hits import same_layers
from onnxnoise.statistics.contrasts import Contrast, Measure, Side, absolute, difference, holm, normalized

ERROR = 0.05
"""The chance, at most, that any two equal models of one ranking are told apart."""

Pair = tuple[str, str]
Found = tuple[float, Contrast | None, bool]
"""A difference's mean, its law (None with one draw), and whether it is paired by draw."""


@dataclass(frozen=True)
class ModelSide:
    """One model's hits at one level (`side`), with the numbers of their draws; `clean` is its clean accuracy."""

    run: AnyRun
    draws: list[int]
    side: Side | ChunkSide
    clean: float


def scaled(side: Side, scale: Scale) -> Measure:
    return normalized(side) if scale == "normalized" else absolute(side)


def pairs(models: Mapping[str, ModelSide], scale: Scale) -> dict[Pair, Found]:
    """The difference of every pair of models: (mean, law, whether paired by draw)."""
    found = {}
    for (first, one), (second, other) in combinations(models.items(), 2):
        by_draw = same_layers(one.run, other.run)
        first_side, second_side = one.side, other.side
        if isinstance(first_side, ChunkSide) and isinstance(second_side, ChunkSide):
            value, law = first_side.less(second_side, scale)
            found[first, second] = (value, law, by_draw and first_side.size == second_side.size)
            continue
        assert isinstance(first_side, Side), "run files that are compared are of one design"
        assert isinstance(second_side, Side), "run files that are compared are of one design"
        if by_draw:
            common = [draw for draw in one.draws if draw in other.draws]
            first_side, second_side = (
                side.chosen([each.draws.index(draw) for draw in common])
                for side, each in ((first_side, one), (second_side, other))
            )
        mine, theirs = scaled(first_side, scale), scaled(second_side, scale)
        found[first, second] = (mine[0] - theirs[0], difference(mine, theirs, by_draw=by_draw), by_draw)
    return found


def judged(
    raw: Mapping[tuple[Quantity, float], Mapping[Scale, Mapping[Pair, Found]]],
) -> Iterator[Difference]:
    """Every difference, which is a tie or not by Holm's method over the pairs and levels of its ranking."""
    for quantity in dict.fromkeys(quantity for quantity, _ in raw):
        for scale in SCALES:
            rows = [
                (level, pair, each)
                for (kind, level), scales in raw.items()
                if kind == quantity
                for pair, each in scales[scale].items()
            ]
            p_values = [1.0 if law is None else law.p_zero() for _, _, (_, law, _) in rows]
            for (level, (first, second), (mean, law, by_draw)), p, adjusted in zip(
                rows, p_values, holm(p_values), strict=True
            ):
                yield Difference(
                    first,
                    second,
                    quantity,
                    scale,
                    level,
                    "image and draw" if by_draw else "image",
                    mean,
                    None if law is None else law.interval(),
                    None if law is None else p,
                    None if law is None else adjusted,
                    None if law is None else adjusted > ERROR,
                )


def crossings(differences: Sequence[Difference], level: Level) -> Iterator[Crossing]:
    """Clear crossings between the nearest levels without a tie; where there are none, crossings of neighbouring means."""
    curves: dict[tuple[Quantity, Scale, str, str], list[Difference]] = {}
    for each in sorted(differences, key=lambda each: level.order(each.level)):
        curves.setdefault((each.quantity, each.scale, each.first, each.second), []).append(each)
    for curve in curves.values():
        clear = [
            (one, other)
            for one, other in pairwise([each for each in curve if each.tied is False])
            if one.mean * other.mean < 0.0
        ]
        means = [each for each in curve if each.mean != 0.0]
        crossed = [(one, other) for one, other in pairwise(means) if one.mean * other.mean < 0.0]
        covered = [
            pair
            for pair in crossed
            if not any(
                curve.index(one) <= curve.index(pair[0]) and curve.index(pair[1]) <= curve.index(other)
                for one, other in clear
            )
        ]
        for pairs, sure in ((clear, True), (covered, False)):
            for one, other in pairs:
                names = (one.first, one.second) if one.mean > 0.0 else (one.second, one.first)
                yield Crossing(*names, one.quantity, one.scale, one.level, other.level, sure)
