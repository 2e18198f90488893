"""Resistive memory as measured by Wan et al.: conductances of differential pairs that spread with the time since programming."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxnoise.noise.ages import DAY, age
from onnxnoise.noise.base import Doubles
from onnxnoise.noise.blocks import polynomial, times
from onnxnoise.noise.pairs import Conductances, OnPairs

_SIGMA = {
    1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
    DAY: (0.701, 22.086, -50.773, 47.095, -16.458),
    2 * DAY: (0.782, 20.274, -43.507, 37.062, -11.934),
}
"""Polynomials in r, from c0 up, of the conductances' sigma in microsiemens at G = 40, by the time in seconds."""


class ReramWan(OnPairs):
    """The conductances of resistive memory 1 s, 1 d or 2 d after programming; `gmax` is G in microsiemens."""

    name = "reram-wan"
    level = age(
        choices=tuple(_SIGMA), defaults=tuple(_SIGMA), limits="1s, 1d or 2d, the times at which it was measured"
    )
    formula = (
        "g+ = max(w, 0) G/a, g- = max(-w, 0) G/a with a = max|w|, r = g/G. g' = max(g + sigma(r) G/40 z, 0), "
        "sigma in microsiemens: "
        "1 s: 0.348 + 16.030 r - 43.853 r^2 + 45.393 r^3 - 16.815 r^4; 1 d: 0.701 + 22.086 r - 50.773 r^2 + 47.095 r^3 - "
        "16.458 r^4; 2 d: 0.782 + 20.274 r - 43.507 r^2 + 37.062 r^3 - 11.934 r^4. w' = (g+ - g-) a/G. Normals: z1 of +, z2 of -"
    )
    source = "Wan et al., Nature 2022; AIHWKIT 1.1.0, ReRamWan2022NoiseModel at its g_max of 40"
    omits = "a mean that shifts with the time, times between those measured, reading noise, converters, IR drop"
    normals = 2

    def __init__(self, gmax: float = 40.0) -> None:
        super().__init__(gmax)

    def device(self, target: Conductances, normals: Sequence[Any], level: float) -> Doubles:
        """Conductances with the spread of the time `level`."""
        stored = times(polynomial(tuple(each / 40 for each in _SIGMA[level]), target), normals[0])
        stored += target
        return np.maximum(stored, 0.0, out=stored)


MODEL = ReramWan
