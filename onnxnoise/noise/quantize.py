"""Weights of few bits: rounded to the nearest of the levels from -max|w| to max|w|, which are equally far apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxnoise.noise.base import ByNormals, Doubles, Drawn, Level, Weights
from onnxnoise.noise.blocks import by_blocks
from onnxnoise.records import Floats

BITS = Level(
    name="bits",
    title="number of bits",
    definition="the bits of a weight",
    hint="4 bits are 15 levels, inf leaves the weights as they are",
    example="6,5,4,3",
    less="larger",
    defaults=(8.0, 6.0, 5.0, 4.0, 3.0),
    search=(2.0, 16.0),
    percent=lambda bits: 100 / (2**bits - 2) if bits < 1000 else 0.0,
    inverse="log(100 / p + 2) / LN2",
    reference="max |w|",
    limits="a whole number from 2 to 32",
    least=2.0,
    most=32.0,
    whole=True,
    measure="half a step",
)


class Quantize(ByNormals):
    """Rounding to 2^(b-1) - 1 levels of either sign and 0. Nothing is random: every draw is the same chip."""

    name = "quantize"
    level = BITS
    deterministic = True
    formula = "w' = a rint(w/a n)/n with a = max|w|, n = 2^(b-1) - 1; ties to even"
    source = "symmetric uniform quantization, the usual one of weights"
    omits = "quantized activations, zero points, ranges that are cut, training that knows of it"
    normals = 0

    def at(self, weights: Weights, drawn: Drawn, level: float) -> Floats:  # noqa: ARG002
        """The rounded weights, computed in float64 and rounded to float32 once."""
        if math.isinf(level):
            return weights.values
        n = 2.0 ** (level - 1) - 1

        def formula(w: Doubles, unit: Any) -> Doubles:
            w /= np.where(unit > 0, unit, 1.0)
            w *= n
            np.rint(w, out=w)
            w *= unit
            w /= n
            return w

        return by_blocks(formula, weights.values, [weights.largest], ())


MODEL = Quantize
