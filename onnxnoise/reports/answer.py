"""The answer of a report in sentences: what noise in all layers leaves of the accuracy, and which layers suffer most."""

from __future__ import annotations

from collections.abc import Iterator

from onnxnoise.records import Estimate
from onnxnoise.reports.views import METRIC_TITLES, View
from onnxnoise.results.falls import cumulative, first_at
from onnxnoise.text import ranged, shortened

_NAMED = 3
_LOSS = 0.01
"""The loss of accuracy / clean from which on a layer is said to suffer."""


def answer(view: View) -> str:
    """The sentences about one run."""
    return " ".join(_sentences(view))


def _sentences(view: View) -> Iterator[str]:
    target, level, means = view.result.target, view.level, view.whole
    if any(notice.code == "probed" for notice in view.result.warnings):
        yield f"`margin` looked for the most noise at which {view.label} keeps {target:.0%} of its accuracy."
    if means:
        held = [each for each in means if means[each].mean >= target]
        lost = [each for each in means if means[each].mean < target]
        clean = f"its clean {METRIC_TITLES[view.metric]} accuracy ({view.clean:.1%})"
        if held and lost:
            yield (
                f"With noise in all layers {view.label} keeps {_share(means[held[-1]])} of {clean} at "
                f"{level.text(held[-1])}, and {_share(means[lost[0]])} at {level.text(lost[0])}."
            )
        elif held:
            yield (
                f"With noise in all layers {view.label} keeps {_share(means[held[-1]])} of {clean} at "
                f"{level.text(held[-1])}, the most noise that was measured."
            )
        else:
            yield (
                f"With noise in all layers {view.label} keeps only {_share(means[lost[0]])} of {clean} at "
                f"{level.text(lost[0])} already, the least noise that was measured."
            )
    yield from _layers(view)
    for each in reversed(view.levels):
        if (half := first_at(cumulative(view.result, each), view.metric, 0.5)) is not None:
            yield f"At {level.text(each)} noise in the first {half} layers takes half of the accuracy away."
            break


def _layers(view: View) -> Iterator[str]:
    ranked = sorted(view.means, key=lambda index: (view.means[index], index))
    if not ranked:
        return
    loudest = [each for each in view.levels if view.cells("single", each)][-1]
    named: list[str] = []
    for index in ranked:
        estimate = next(view.normalized(cell) for cell in view.cells("single", loudest) if cell.layer == index)
        if estimate is not None and estimate.mean <= 1 - _LOSS and len(named) < _NAMED:
            named.append(f"{index} ({shortened(view.layers[index].name, 40)}) {estimate.mean:.0%}")
    at = view.level.text(loudest)
    if named:
        yield f"One noisy layer at a time, at {at} these suffer most: layer {', layer '.join(named)}."
    else:
        yield f"One noisy layer at a time, none of the {len(ranked)} layers costs a hundredth of the accuracy at {at}."


def _share(estimate: Estimate) -> str:
    return ranged(estimate.mean, estimate.sampled, ".1%")
