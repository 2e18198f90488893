"""What a run still owes: the tallies that its question needs and its run file lacks, round by round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from onnxnoise.records import TallyKey
from onnxnoise.results import Question
from onnxnoise.store import RunStore
from onnxnoise.work import Job

CLEAN = ("clean", None, float("inf"), 0)
"""The clean pass of a chunk, as a key without the chunk's start."""


class Plan(Protocol):
    """Decides what is measured next from what is there."""

    def round(self, store: RunStore) -> list[Job]:
        """What to measure before the next decision, by chunk, in order; empty when the question is answered."""


@dataclass(frozen=True)
class Crossed:
    """Every draw meets every image: one round is all."""

    question: Question
    chunks: tuple[range, ...]

    def round(self, store: RunStore) -> list[Job]:
        done = store.done()
        owed = ((chunk, tuple(key for key in self._keys(chunk.start) if key not in done)) for chunk in self.chunks)
        return [Job(chunk, keys) for chunk, keys in owed if keys]

    def _keys(self, start: int) -> list[TallyKey]:
        """All tallies that a chunk owes, in the order in which they are measured."""
        question = self.question
        variants = [(snr, draw) for draw in range(question.draws) for snr in question.snrs]
        keys: list[TallyKey] = [(*CLEAN, start)]
        if "all" in question.sweeps:
            keys += [("all", None, snr, draw, start) for snr, draw in variants]
        for sweep in ("single", "cumulative"):
            if sweep in question.sweeps:
                keys += [(sweep, layer, snr, draw, start) for layer in question.layers for snr, draw in variants]
        return keys
