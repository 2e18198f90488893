"""Schedules, which choose the tallies to measure in the next round, among those that a question needs and a run file lacks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from onnxnoise.noise.base import Level
from onnxnoise.records import TallyKey
from onnxnoise.results.chunked import Widths, next_draws
from onnxnoise.results.question import CellKey, Question
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.run.jobs import Job
from onnxnoise.spec import UNLIMITED_DRAWS
from onnxnoise.text import counted

CLEAN = ("clean", None, float("inf"), 0)
"""The key of a chunk's clean pass, but for the chunk's start."""


class Schedule(Protocol):
    """A plan that decides from a run file which tallies are measured next."""

    def about(self, level: Level, /) -> str:
        """The levels and draws in words for people; `level` is their kind."""

    def round(self, store: RunStore) -> list[Job]:
        """The jobs to measure before the next decision, by chunk, in order; empty when the question is answered."""


@dataclass(frozen=True)
class Crossed:
    """The schedule of the crossed design, in which every draw meets every image: one round measures all."""

    question: Question
    chunks: tuple[range, ...]

    def about(self, level: Level) -> str:
        return f"{counted(len(self.question.levels), level.noun)}, {counted(self.question.draws, 'draw')}"

    def round(self, store: RunStore) -> list[Job]:
        done = store.done()
        owed = ((chunk, tuple(key for key in self._keys(chunk.start) if key not in done)) for chunk in self.chunks)
        return [Job(chunk, keys) for chunk, keys in owed if keys]

    def _keys(self, start: int) -> list[TallyKey]:
        """All tallies that a chunk owes, in the order in which they are measured."""
        question = self.question
        variants = [(level, draw) for draw in range(question.draws) for level in question.levels]
        keys: list[TallyKey] = [(*CLEAN, start)]
        if "all" in question.sweeps:
            keys += [("all", None, level, draw, start) for level, draw in variants]
        for sweep in ("single", "cumulative"):
            if sweep in question.sweeps:
                keys += [(sweep, layer, level, draw, start) for layer in question.layers for level, draw in variants]
        return keys


@dataclass(frozen=True)
class Chunked:
    """The schedule of the chunked design: draw d meets chunk d mod their number; a round takes each cell to its next look.

    `stream` is the one stream of the question's that a shard measures; None for all of them. `widths` keeps what the looks of
    earlier rounds found.
    """

    question: Question
    chunks: tuple[range, ...]
    stream: int | None = None
    widths: Widths = field(default_factory=dict, compare=False, repr=False)

    def about(self, level: Level) -> str:
        question = self.question
        until = "as long as the time allows" if question.precision is None else f"until +-{question.precision:g}"
        most = f", at most {question.draws:,}" if question.draws < UNLIMITED_DRAWS else ""
        each = f"each on {counted(len(self.chunks[0]), 'image')}"
        return f"{counted(len(question.levels), level.noun)}, draws {until}{most}, {each}"

    def round(self, store: RunStore) -> list[Job]:
        done = store.done()
        return jobs(self.chunks, next_draws(store, self.question, self.stream, done=done, widths=self.widths), done)

    def draws(self, most: int) -> list[int]:
        """The first draws of a cell, at most so many in each stream that is measured."""
        streams = range(self.question.streams) if self.stream is None else (self.stream,)
        return [draw for stream in streams for draw in self.question.draws_of(stream, len(self.chunks))[:most]]


def jobs(chunks: Sequence[range], draws: Mapping[CellKey, Iterable[int]], done: Collection[TallyKey]) -> list[Job]:
    """Jobs for the tallies of each cell's draws that are not done, by chunk, with the clean passes that they lack."""
    owed: dict[range, list[TallyKey]] = {}
    for cell, numbers in draws.items():
        for draw in numbers:
            chunk = chunks[draw % len(chunks)]
            key = (*cell, draw, chunk.start)
            if key not in done:
                owed.setdefault(chunk, []).append(key)
    clean = {chunk: (*CLEAN, chunk.start) for chunk in owed}
    return [
        Job(chunk, (*([clean[chunk]] if clean[chunk] not in done else []), *owed[chunk]))
        for chunk in chunks
        if chunk in owed
    ]
