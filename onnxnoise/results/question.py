"""A question to a run file, about some cells and images, and the answer: cells and averages as far as they are measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from onnxnoise.records import CHUNKED, DEALT, Average, Cell, CleanHits
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.statistics.stopping import FEWEST, RARE, StoppingRule
from onnxnoise.words import Metric, Sweep

CellKey = tuple[Sweep, int | None, float]
"""(sweep, layer, level of the noise)."""


@dataclass(frozen=True)
class Question:
    """The part of a run file that is asked for; `layers` are the indices of the `single` and `cumulative` sweeps.

    `target` is the share of the clean accuracy that a draw must keep to count in a yield. In a chunked run `draws` is the most
    that a cell may have, and `precision` the half-width of `sampled` at which the cell stops; None: at the most draws. A run that
    was measured in n shards has n `streams`, each with every n-th chunk and its draws, which are looked at and end apart.
    `collapsing` says that some chips may collapse, as the function of that name tells.
    """

    levels: tuple[float, ...]
    sweeps: tuple[Sweep, ...]
    draws: int
    images: int
    layers: tuple[int, ...]
    metric: Metric
    target: float = 0.95
    precision: float | None = None
    streams: int = 1
    collapsing: bool = False

    def stopping(self, sweep: Sweep) -> StoppingRule:
        """The rule that decides when a cell of a chunked run has draws enough, or a stream of it: n of them make it precise."""
        rare = self.collapsing and sweep == "all"
        return StoppingRule((self.precision or 0.0) * math.sqrt(self.streams), self.draws, RARE if rare else FEWEST)

    @property
    def planned(self) -> int:
        """The number of passes over all images: one for each draw of each cell."""
        return self.draws * len(self.cells)

    @property
    def cells(self) -> list[CellKey]:
        """The cells, by sweep, level and layer."""
        pairs = product(self.sweeps, self.levels)
        return [(sweep, layer, level) for sweep, level in pairs for layer in self.layers_of(sweep)]

    def draws_of(self, stream: int, chunks: int) -> Sequence[int]:
        """The draws of one stream, in order, where the images lie in so many chunks: draw d meets chunk d mod their number."""
        if self.streams == 1:
            return range(self.draws)
        return [draw for draw in range(self.draws) if draw % chunks % self.streams == stream]

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


def streams_of(store: RunStore, shard: tuple[int, int] | None = None) -> int:
    """The number of streams of a chunked run: that of the shards in which it is, or was, measured; else 1."""
    told = (run.get("spec", {}).get("shard") for run in store.runs())
    return (
        max([shard[1] if shard else 1, *(int(each[1]) for each in told if each)]) if is_chunked(store.identity) else 1
    )


def collapsing(bn: str, layers: Iterable[tuple[str, int]]) -> bool:
    """Whether some chips may collapse: noise that takes a batch norm's variance to about 0 makes a channel explode.

    `bn` is the policy, `layers` has the kind and the number of initializers of each layer with noise; a batch norm that has its
    variance among them has at least four.
    """
    return bn in ("group", "raw") and any(kind == "batchnorm" and count >= 4 for kind, count in layers)


def is_chunked(identity: Mapping[str, Any]) -> bool:
    """Whether the run file of this identity is of the chunked design: each chunk of images meets draws of its own."""
    return bool(identity.get("design", "crossed") == CHUNKED)


def is_dealt(identity: Mapping[str, Any]) -> bool:
    """Whether the images of the run file of this identity were dealt to chunks in a random order, not in the data's."""
    return bool(identity.get("order") == DEALT)
