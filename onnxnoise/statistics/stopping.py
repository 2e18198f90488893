"""The rule by which a cell that is measured to a precision has draws enough.

Looking at an interval after every draw from the first on, and stopping when it happens to be narrow, would favour draws that
happen to agree: a cell whose chips collapse now and then would stop before the first collapse. So a cell gets `FEWEST` draws
whatever they show, three times as many where some chips are known to collapse (`RARE`); from then on it is looked at every
twentieth more of its draws, and stops at the first look that finds it precise. So it ends within a few percent of what was asked
for. Half of the way to where the last look lets its end expect is gone without looking, so that there is enough to do at a time
for many processes.

Measured on families with formulas and on hits of real chips (tests/test_coverage.py prints both): of all cells 94 to 97 % of the
intervals hold the truth, and as many of those that stop early. Stopping so from 16 draws on would leave 82 to 86 % where one chip
in ten collapses. Where a precision is reached by one cell in ten within the draws allowed, those that reach it are the lucky ones
and their intervals miss more often: such a cell is named in a warning in nine runs of ten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf

from onnxnoise.records import Estimate

FEWEST = 32
"""The draws that every cell gets before its interval is looked at."""

RARE = 96
"""The draws before the first look at a cell of which one chip in some dozens may lose everything: 32 have often met none."""

_STEP = 1.05
"""The number of draws at a look, over that at the look before; the half-width falls by its root."""


def half_width(estimate: Estimate) -> float:
    """Half of the length of `sampled`, in the unit of the mean; infinite without one."""
    return (estimate.sampled[1] - estimate.sampled[0]) / 2 if estimate.sampled else inf


@dataclass(frozen=True)
class StoppingRule:
    """The rule by which a cell stops: when the half-width of `sampled` is at most `precision`, or at `max_draws` draws.

    `fewest` is the number of draws at the first look.
    """

    precision: float
    max_draws: int
    fewest: int = FEWEST

    def next(self, draws: int, width: Callable[[int], float]) -> int | None:
        """The number of draws that a cell with `draws` of them needs before it is looked at again; None when it has enough.

        `width(n)` is the half-width that its first n draws give. The answer depends on nothing else, so a run that was
        interrupted goes on as it would have.
        """
        look = self.fewest
        while look < self.max_draws:
            if draws < look:
                return look
            found = width(look)
            if found <= self.precision:
                return None
            look = self._after(look, found)
        return self.max_draws if draws < self.max_draws else None

    def _after(self, look: int, width: float) -> int:
        """The next look: one step on, or half of the way to where the half-width, falling as 1/sqrt(draws), is precise."""
        step = ceil(look * _STEP)
        if self.precision <= 0.0 or width == inf:
            return max(step, 2 * look)
        expected = look * (width / self.precision) ** 2
        return max(step, int(look + (min(expected, 2.0 * self.max_draws) - look) / 2.0))
