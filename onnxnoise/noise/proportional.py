"""Gaussian noise in units of each weight itself: w' = w (1 + eta z)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxnoise.noise.base import ByNormals, Doubles, Drawn, Weights
from onnxnoise.noise.blocks import by_blocks
from onnxnoise.noise.relative import ETA
from onnxnoise.records import Floats


class Proportional(ByNormals):
    """White Gaussian noise whose size is a share of the weight that it is on."""

    name = "proportional"
    level = replace(ETA, definition="sigma_noise / |w|", hint="0.1 is noise of 10 %, 0 is none", reference="|w|")
    formula = "w' = w (1 + eta z1)"
    source = "CrossSim's NormalProportional; AIHWKIT's weight modifier mult_normal; Xiao et al. 2022"
    omits = "noise of devices that store 0, limits of the conductance, drift, converters"

    def at(self, weights: Weights, drawn: Drawn, level: float) -> Floats:
        """`w (1 + eta z)` computed in float64 and rounded to float32 once."""
        if not level:
            return weights.values

        def formula(w: Doubles, z: Floats) -> Doubles:
            factor = np.float64(level) * z
            factor += 1.0
            factor *= w
            return factor

        return by_blocks(formula, weights.values, (), drawn)


MODEL = Proportional
