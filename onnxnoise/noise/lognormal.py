"""Log-normal noise: each weight times a factor whose logarithm is Gaussian, w' = w exp(s z)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxnoise.noise.base import ByNormals, Doubles, Drawn, Weights
from onnxnoise.noise.blocks import by_blocks
from onnxnoise.noise.relative import ETA
from onnxnoise.records import Floats


class Lognormal(ByNormals):
    """Noise that multiplies, as the spread of resistances does; the factor's median is 1, its mean exp(s^2/2)."""

    name = "lognormal"
    level = replace(
        ETA,
        name="s",
        title="spread",
        definition="the standard deviation of ln(w'/w)",
        hint="0.1 is about 10 % of each weight, 0 is none",
        example="0.1,0.3,0.5",
        reference="|w|",
        measure="s, about the noise",
        limits="a number above 0, up to 10",
        most=10.0,
    )
    formula = "w' = w exp(s z1)"
    source = "the usual model of resistance variation, as in Chen et al., DATE 2017"
    omits = "noise of devices that store 0, limits of the conductance, drift, converters"

    def at(self, weights: Weights, drawn: Drawn, level: float) -> Floats:
        """`w exp(s z)` computed in float64 and rounded to float32 once."""
        if not level:
            return weights.values

        def formula(w: Doubles, z: Floats) -> Doubles:
            factor = np.float64(level) * z
            np.exp(factor, out=factor)
            factor *= w
            return factor

        return by_blocks(formula, weights.values, (), drawn)


MODEL = Lognormal
