"""The depth at which noise in layers 1 to L has taken away a share of the accuracy, and at which it meets chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnxnoise.noise.models import level_of
from onnxnoise.records import Cell, Estimate, Result
from onnxnoise.results.chance import is_at_chance
from onnxnoise.words import Metric

_SHARES = (0.9, 0.5)
"""The shares of the clean accuracy for which a table says how deep the noise must reach."""

REACHED = (*(f"to {share:g}" for share in _SHARES), "to chance")
"""The headings of the columns that `reached` fills."""


@dataclass(frozen=True)
class Fall:
    """The place where the cumulative curve of one level meets chance: from `cell` on, no accuracy can be told from it.

    `cell` is None where the curve never meets it. `above` is the last L whose accuracy is surely above chance, and `below` the
    first L from which on all are surely below twice chance; None where there is no such L. With few draws the two lie far apart.
    """

    level: float
    cell: Cell | None
    above: int | None
    below: int | None


def cumulative(result: Result, level: float) -> list[Cell]:
    """The cells of the cumulative sweep at one level, by L."""
    cells = [cell for cell in result.cells if cell.sweep == "cumulative" and cell.level == level]
    return sorted(cells, key=lambda cell: cell.layer or 0)


def falls(result: Result, metric: Metric, chance: float | None) -> Iterator[Fall]:
    """The Fall of the cumulative sweep's curve at each level; empty where chance isn't known.

    An accuracy can't be told from chance where the lower end of its 95 % interval (for other draws and images) is at or below
    it; with one draw, which has no interval, where the accuracy itself is. So fewer draws mean an earlier L.
    """
    if chance is None:
        return
    for level in level_of(result.noise).in_order(cell.level for cell in result.cells):
        cells = cumulative(result, level)
        above = [cell for cell in cells if _ends(cell.accuracy(metric))[0] > chance]
        last = above[-1].layer if above else None
        after = [cell for cell in cells if (cell.layer or 0) > (last or 0)]
        open_ = [cell.layer or 0 for cell in cells if _ends(cell.accuracy(metric))[1] >= 2 * chance]
        below = [cell.layer for cell in cells if (cell.layer or 0) > max(open_, default=0)]
        if cells:
            yield Fall(level, after[0] if after else None, last, below[0] if below else None)


def reached(result: Result, metric: Metric, cells: Sequence[Cell]) -> tuple[str, ...]:
    """The first L, as text, at which a cumulative curve (its cells, by L) has fallen as far as each of the headings REACHED says.

    It is a dash where no L has fallen so far, and `?` where chance isn't known.
    """
    shares = [_text(first_at(cells, metric, share)) for share in _SHARES]
    if result.chance is None:
        return (*shares, "?")
    return (*shares, _text(_first_at_chance(cells, metric, result.clean.images, result.chance.of(metric))))


def _text(layer: int | None) -> str:
    return "-" if layer is None else str(layer)


def first_at(cells: Sequence[Cell], metric: Metric, share: float) -> int | None:
    """The first L of a cumulative curve at which the mean accuracy is at most `share` of the clean one; None where none is."""
    for cell in cells:
        estimate = cell.normalized(metric)
        if estimate is not None and estimate.mean <= share:
            return cell.layer
    return None


def _first_at_chance(cells: Sequence[Cell], metric: Metric, images: int, chance: float) -> int | None:
    """The first L at which the mean accuracy can't be told from chance on so many images; None where it always can."""
    for cell in cells:
        estimate = cell.accuracy(metric)
        if estimate is not None and is_at_chance(round(estimate.mean * images), images, chance):
            return cell.layer
    return None


def _ends(estimate: Estimate | None) -> tuple[float, float]:
    """The ends of the interval; without an interval the mean, twice; without an estimate all of 0 to 1."""
    if estimate is None:
        return 0.0, 1.0
    return estimate.sampled or (estimate.mean, estimate.mean)
