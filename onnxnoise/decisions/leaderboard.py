"""Measures what a network keeps under noise, for its card; and holds it against what the card says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from onnxnoise.data.cards import Card
from onnxnoise.data.leaderboard import SNRS
from onnxnoise.data.measured_noise import TARGET, MeasuredNoise, Span
from onnxnoise.decisions.design.margins import margin
from onnxnoise.records import Estimate
from onnxnoise.run.runner import bench
from onnxnoise.run.watching import Watching, unwatched
from onnxnoise.spec import BenchSpec
from onnxnoise.words import Policy, SigmaScope

SETTINGS: tuple[tuple[Policy, SigmaScope], ...] = (("group", "layer"), ("affine", "tensor"))
"""The paper's own protocol, and what hardware holds of a batch norm: its scale and shift."""


def measured_noise(spec: BenchSpec, watching: Watching = unwatched) -> tuple[MeasuredNoise, ...]:
    """Measure the model of `spec` under each of SETTINGS: its accuracy over the clean one at SNRS, and its noise margin.

    What is measured lies in run files of the usual names, from which the same call goes on. Raises what `runner.bench` raises.
    """
    return tuple(_measured(replace(spec, bn=bn, sigma_scope=scope), watching) for bn, scope in SETTINGS)


def _measured(spec: BenchSpec, watching: Watching) -> MeasuredNoise:
    spec = replace(spec, sweeps=("all",), target=TARGET)
    with watching() as watcher:
        result = bench(replace(spec, snrs=SNRS), watcher)
    (found,) = margin(spec, watching=watching).margins
    span = None if found.interval is None or found.snr is None else (found.snr, *found.interval)
    return MeasuredNoise(
        bn=spec.bn,
        sigma_scope=spec.sigma_scope,
        images=result.clean.images,
        all_layers=tuple(
            (cell.level, _span(estimate))
            for cell in result.cells
            if (estimate := cell.normalized(result.told)) is not None
        ),
        margin=span,
    )


def _span(estimate: Estimate) -> Span:
    low, high = estimate.sampled or (0.0, 1.0)
    return estimate.mean, low, high


@dataclass(frozen=True)
class Compared:
    """A figure of a card beside the one found now; they agree where the two 95 % intervals overlap."""

    what: str
    card: Span | None
    found: Span | None

    @property
    def agrees(self) -> bool | None:
        """None where one of the two isn't there."""
        if self.card is None or self.found is None:
            return None
        return self.card[1] <= self.found[2] and self.found[1] <= self.card[2]


def compared(card: Card, found: Sequence[MeasuredNoise]) -> Iterator[Compared]:
    """Each figure found beside the card's."""
    said = {(each.bn, each.sigma_scope): each for each in card.measured.noise}
    for each in found:
        before = said.get((each.bn, each.sigma_scope))
        setting = f"--bn {each.bn} --sigma-scope {each.sigma_scope}"
        for snr, span in each.all_layers:
            yield Compared(f"{setting}, SNR {snr:g}", before.at(snr) if before else None, span)
        yield Compared(f"{setting}, margin", before.margin if before else None, each.margin)
