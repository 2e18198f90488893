"""A question to a run file, about some cells and images, and the answer: cells and averages as far as they are measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnxnoise.records import CHUNKED, DEALT, Average, Cell, CleanHits
from onnxnoise.statistics.stopping import StoppingRule
from onnxnoise.words import Metric, Sweep

CellKey = tuple[Sweep, int | None, float]
"""(sweep, layer, level of the noise)."""


@dataclass(frozen=True)
class Question:
    """The part of a run file that is asked for; `layers` are the indices of the `single` and `cumulative` sweeps.

    `target` is the share of the clean accuracy that a draw must keep to count in a yield. In a chunked run `draws` is the most
    that a cell may have, and `precision` the half-width of `sampled` at which the cell stops; None: at the most draws.
    """

    levels: tuple[float, ...]
    sweeps: tuple[Sweep, ...]
    draws: int
    images: int
    layers: tuple[int, ...]
    metric: Metric
    target: float = 0.95
    precision: float | None = None

    @property
    def stopping(self) -> StoppingRule:
        """The rule that decides when a cell of a chunked run has draws enough."""
        return StoppingRule(self.precision or 0.0, self.draws)

    @property
    def planned(self) -> int:
        """The number of passes over all images: one for each draw of each cell."""
        return len(self.levels) * self.draws * sum(len(self.layers_of(sweep)) for sweep in self.sweeps)

    def layers_of(self, sweep: Sweep) -> tuple[int | None, ...]:
        """The layers of a sweep's cells; None stands for the one cell of `all`."""
        return (None,) if sweep == "all" else self.layers


@dataclass(frozen=True)
class Answer:
    """The answer of a run file to a question, as far as it is measured; `planned` counts passes."""

    clean: CleanHits
    cells: list[Cell]
    averages: list[Average]
    planned: int


def is_chunked(identity: Mapping[str, Any]) -> bool:
    """Whether the run file of this identity is of the chunked design: each chunk of images meets draws of its own."""
    return bool(identity.get("design", "crossed") == CHUNKED)


def is_dealt(identity: Mapping[str, Any]) -> bool:
    """Whether the images of the run file of this identity were dealt to chunks in a random order, not in the data's."""
    return bool(identity.get("order") == DEALT)
