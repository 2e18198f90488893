"""Reports that begin with a decision: several runs are ranked, as `compare` ranks them, before they are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from onnxnoise.decisions.comparing import ranking, wording
from onnxnoise.decisions.comparing.ranking import Asked
from onnxnoise.decisions.comparing.records import QUANTITIES, Comparison, Quantity
from onnxnoise.errors import OnnxNoiseError
from onnxnoise.noise.models import level_of
from onnxnoise.reports import writing
from onnxnoise.reports.ranked import Ranking, Row
from onnxnoise.results.reading import OpenedRun
from onnxnoise.text import ranged
from onnxnoise.words import Metric


def report(
    runs: Sequence[Path | str],
    output: Path | str,
    *,
    metric: str | None = None,
    figure: str | None = None,
    rows: str | None = None,
) -> list[OpenedRun]:
    """Write a report of runs to `output`, as `reports.writing.report` does, with the ranking of several runs at its head.

    Raises what that function raises.
    """
    return writing.report(runs, output, metric=metric, figure=figure, rows=rows, ranker=ranked)


def ranked(runs: Sequence[tuple[str, Path]], metric: Metric) -> Ranking:
    """The ranking of run files under the labels that a report has for them; where they can't be compared, the reason."""
    try:
        found = ranking.compare([path for _, path in runs], Asked(metric=metric))
    except OnnxNoiseError as error:
        return Ranking(refused=str(error))
    names = {model.label: label for model, (label, _) in zip(found.models, runs, strict=True)}
    there = [quantity for quantity in QUANTITIES if any(each.quantity == quantity for each in found.figures)]
    return Ranking(
        leaders=tuple(_leaders(found, quantity, names) for quantity in there),
        tables=tuple(
            (
                wording.counted_title(quantity, (each for each in found.figures if each.quantity == quantity)),
                tuple(_rows(found, quantity, names)),
            )
            for quantity in there
        ),
        crossings=tuple(wording.crossing(found, each, names) for each in found.crossings if each.clear),
        notes=(*wording.notes(found), *(notice.message for notice in found.warnings)),
    )


def _leaders(found: Comparison, quantity: Quantity, names: Mapping[str, str]) -> str:
    """A sentence on which models are first at which levels."""
    level = level_of(found.noise)
    first: dict[tuple[str, ...], list[str]] = {}
    placings = [placing for placing in found.figures if placing.quantity == quantity]
    for value in dict.fromkeys(placing.level for placing in placings):
        best = [each for each in placings if each.level == value and wording.first_standing(each).rank == 1]
        first.setdefault(tuple(names[each.model] for each in best), []).append(level.number(value))
    parts = (
        f"{', '.join(best)} {'tie for first' if len(best) > 1 else 'leads'} at {level.name} {', '.join(values)}"
        for best, values in first.items()
    )
    return f"{wording.TITLES[quantity].partition(',')[0].partition(':')[0]}: {'; '.join(parts)}."


def _rows(found: Comparison, quantity: Quantity, names: Mapping[str, str]) -> Iterator[Row]:
    placings = [placing for placing in found.figures if placing.quantity == quantity]
    level = level_of(found.noise)
    for value in dict.fromkeys(placing.level for placing in placings):
        here = [placing for placing in placings if placing.level == value]
        for placing in sorted(here, key=lambda each: -wording.first_standing(each).mean):
            rank = wording.rank(wording.first_standing(placing))
            accuracies = (ranged(each.mean, each.sampled) for each in (placing.absolute, placing.normalized))
            yield Row(level.text(value), names[placing.model], rank, *accuracies)
