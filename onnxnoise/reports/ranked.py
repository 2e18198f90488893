"""A ranking of several runs as a report shows it: made by whoever compares them, and shown before anything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxnoise.words import Metric


@dataclass(frozen=True)
class Row:
    """One run at one level: the level as people read it, the run's label, its rank with `=` where tied, accuracy, and / clean."""

    level: str
    run: str
    rank: str
    accuracy: str
    normalized: str


@dataclass(frozen=True)
class Ranking:
    """The ranks of several runs: who leads, a title and rows for each quantity they are ranked by, where curves cross, and notes.

    `refused` says why they can't be ranked; the rest is empty then.
    """

    leaders: tuple[str, ...] = ()
    tables: tuple[tuple[str, tuple[Row, ...]], ...] = ()
    crossings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refused: str | None = None


Ranker = Callable[[Sequence[tuple[str, Path]], Metric], Ranking]
"""A function that ranks runs, given as (label, run file), by a metric."""

HEADINGS = ("model", "rank", "accuracy", "accuracy / clean")
"""The headings of a ranking's columns, after that of the level."""
