"""Phase-change memory: programming noise, drift and read noise of differential pairs, after AIHWKIT's model."""

from __future__ import annotations

import numpy as np

from onnxnoise.noise.ages import age
from onnxnoise.noise.base import Doubles
from onnxnoise.noise.blocks import polynomial
from onnxnoise.noise.pairs import Conductances
from onnxnoise.noise.phase_change import PhaseChange, clipped

_PROGRAMMING = (0.26348 / 25, 1.9650 / 25, -1.1731 / 25)
"""The polynomial, from c0 up, of the programming noise's sigma as a share of G."""


class Pcm(PhaseChange):
    """The conductances of phase-change memory, measured on a million devices; `gmax` is G in microsiemens."""

    name = "pcm"
    level = age()
    formula = (
        "g+ = max(w, 0) G/a, g- = max(-w, 0) G/a with a = max|w|, r = g/G. Programming: g_p = max(g + (0.26348 + 1.9650 r - "
        "1.1731 r^2) G/25 z, 0). Drift: g_d = g_p ((t + 20)/20)^-nu with nu = |mu + s z|, mu = clip(-0.0155 ln r + 0.0244, "
        "0.049, 0.1), s = clip(-0.0125 ln r - 0.0059, 0.008, 0.045), r at least 1e-7. Read: g = max(g_d + g_d Q "
        "sqrt(ln((t + 20 + tr)/(2 tr))) z, 0), Q = min(0.0088/max((g_p/G)^0.65, 1e-3), 0.2), tr = 250 ns. w' = (g+ - g-) a/G. "
        "t = 0: programming only. Normals: z1, z2 programming of + and -, z3, z4 exponents, z5, z6 reading"
    )
    source = "AIHWKIT 1.1.0, PCMLikeNoiseModel; Nandakumar et al., ICECS 2020"
    omits = "converters, IR drop, reading noise that differs from product to product, temperature"
    t0, read = 20.0, 250e-9

    def __init__(self, gmax: float = 25.0) -> None:
        super().__init__(gmax)

    def programming(self, target: Conductances) -> Conductances:
        """A polynomial of degree 2 in r."""
        sigma: Conductances = polynomial(_PROGRAMMING, target)
        return sigma

    def exponent(self, target: Conductances) -> tuple[Conductances, Conductances]:
        """Mean and sigma of nu, linear in ln r and clipped."""
        log = np.log(np.maximum(target, 1e-7))
        return clipped(-0.0155, log, 0.0244, 0.049, 0.1), clipped(-0.0125, log, -0.0059, 0.008, 0.045)

    def reading(self, programmed: Doubles) -> Doubles:
        """min(0.0088 / max(q^0.65, 1e-3), 0.2); above 0.2 is q^0.65 below 0.044, so that the 1e-3 never counts."""
        size: Doubles = np.log(np.maximum(programmed, 0.044 ** (1 / 0.65)))
        size *= -0.65
        np.exp(size, out=size)
        size *= 0.0088
        return size


MODEL = Pcm
