"""Stuck cells: some weights are 0, some the largest one, whatever was to be stored."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxnoise.errors import UsageError
from onnxnoise.noise.base import ByNormals, Doubles, Drawn, Place, Weights
from onnxnoise.noise.blocks import by_blocks, chosen
from onnxnoise.noise.uniform import below, probability
from onnxnoise.records import Floats


class Stuck(ByNormals):
    """Cells that are stuck at 0, or, a share `high` of them, at the largest weight with the weight's sign."""

    name = "stuck"
    place: Place = "either"
    level = probability(
        "the probability that a cell is stuck",
        "0.001 is one in a thousand",
        "all cells",
        "stuck cells",
        (0.0001, 0.001, 0.01, 0.1),
    )
    formula = (
        "u1 < p (1 - high): w' = 0; p (1 - high) <= u1 < p: w' = a with w's sign (0 counts as plus), a = max|w|; else w' = w. "
        "high = 0 unless given"
    )
    source = "faults stuck at a low or a high conductance, as in Chen et al., DATE 2017"
    omits = "whole rows and columns that fail, cells that get stuck with time, repair with spare columns"

    def __init__(self, high: float = 0.0) -> None:
        if not 0 <= high <= 1:
            raise UsageError(f"--noise: stuck:high={high:g} is no share; give a number from 0 to 1")
        self._high = high

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Drawn:
        """One array of uniform numbers, float32."""
        return (random.random(shape, dtype=np.float32),)

    def at(self, weights: Weights, drawn: Drawn, level: float) -> Floats:
        """The weights with those that are stuck replaced."""
        if not level:
            return weights.values
        low, all_stuck = below(level * (1 - self._high)), below(level)

        def formula(w: Doubles, unit: Any, u: Floats) -> Doubles:
            if self._high:
                largest_ones = np.copysign(unit, w + 0.0)  # -0 + 0 is 0, which counts as plus
                w = chosen((u >= low) & (u < all_stuck), largest_ones, w)
            w *= u >= low
            w += 0.0
            return w

        unit = weights.largest if self._high else np.zeros(())
        return by_blocks(formula, weights.values, [unit], drawn)


MODEL = Stuck
