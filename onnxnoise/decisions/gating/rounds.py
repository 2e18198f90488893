"""A gate's schedule: which draws are measured before the next look at the evidence."""

from __future__ import annotations

import time
from collections.abc import Sequence

from onnxnoise.decisions.gating.draws import GatedRun
from onnxnoise.decisions.gating.rule_state import Case
from onnxnoise.noise.base import Level
from onnxnoise.records import TallyKey
from onnxnoise.results.question import CellKey
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.jobs import Job
from onnxnoise.run.schedules import jobs
from onnxnoise.statistics.betting import most_draws, next_look
from onnxnoise.text import counted
from onnxnoise.words import SWEEPS

_SOON = 10
"""The draws after which a rule is decided whose limit is far."""


class Rounds:
    """A gate's schedule: some draws more for the places still open, until all are decided or the draws are used up."""

    def __init__(self, cases: Sequence[Case], experiment: Experiment, chunks: tuple[range, ...]) -> None:
        self.cases, self.chunks = cases, chunks
        self.images, self.level = experiment.count, experiment.spec.level
        self.one_chip = experiment.spec.deterministic
        self.most = 1 if self.one_chip else most_draws(self.images)
        self.looks: list[int] = []
        self._began = time.perf_counter()

    def about(self, _level: Level, /) -> str:
        if self.one_chip:
            return f"{counted(len(self.cases), 'rule')}, one chip on {counted(self.images, 'image')}"
        return f"{counted(len(self.cases), 'rule')}, at most {self.most:,} draws, each on {counted(len(self.chunks[0]), 'image')}"

    def round(self, store: RunStore) -> list[Job]:
        """The jobs before the next look, none when all is decided; looks at what is there first."""
        while (draws := next_look(self.looks[-1] if self.looks else 0, self.most)) is not None and any(
            case.open for case in self.cases
        ):
            if owed := self._jobs(draws, store.done()):
                return owed
            self.looks.append(draws)
            self.look(store)
        return []

    @property
    def cells(self) -> int:
        """The number of cells that the rules need."""
        return len(self._cells())

    @property
    def draws(self) -> int:
        """The most draws of a cell."""
        return self.most

    def ends(self, done: set[TallyKey]) -> tuple[list[Job], list[Job]]:
        """The jobs that are left, if all rules are decided early, and if none ever is."""
        return self._jobs(min(_SOON, self.most), done), self._jobs(self.most, done)

    def _jobs(self, draws: int, done: set[TallyKey]) -> list[Job]:
        """The jobs for the first draws of all cells that open places need, by chunk; one chip meets every chunk."""
        if self.one_chip:
            cells = dict.fromkeys(self._cells(), (0,))
            return [job for chunk in self.chunks for job in jobs((chunk,), cells, done)]
        return jobs(self.chunks, dict.fromkeys(self._cells(), range(draws)), done)

    def look(self, store: RunStore) -> None:
        """Count the evidence that is there, of rules that have any, and the time that the open rules took."""
        still = [case for case in self.cases if case.open]
        run = GatedRun(store) if still and store.done() else None
        for case in still:
            if run is not None:
                case.look(run, self.images, partial=True)
        now = time.perf_counter()
        for case in still:
            case.seconds += (now - self._began) / len(still)
        self._began = now

    def _cells(self) -> list[CellKey]:
        """The cells that open places need."""
        cells = {
            (case.rule.sweep, layer, case.rule.level)
            for case in self.cases
            for place in case.open
            for layer in place.layers
        }
        return sorted(cells, key=lambda cell: (SWEEPS.index(cell[0]), cell[1] or 0, self.level.order(cell[2])))
