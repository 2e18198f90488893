"""Phase-change memory of IBM's Hermes chip: programming noise, drift and read noise of differential pairs."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxnoise.errors import UsageError
from onnxnoise.noise.ages import age
from onnxnoise.noise.base import Doubles
from onnxnoise.noise.blocks import chosen, polynomial
from onnxnoise.noise.pairs import Conductances
from onnxnoise.noise.phase_change import PhaseChange, clipped

_PROGRAMMING = {
    2: tuple(each / 20.7 for each in (0.16603222, 4.71806468, -8.48101252, 4.68961419)),
    1: tuple(each / 10.35 for each in (0.15781817, 2.32443916, -2.16310839, 0.68841818)),
}
"""Polynomials, from c0 up, of the programming noise's sigma as a share of G, by the devices of a conductance."""

_EXPONENT = {
    2: (0.3055, (-0.0117, -0.0057, 0.0091, 0.04), (0.0073, 0.0093, -0.0118)),
    1: (0.3039, (-0.0120, -0.0023, 0.0124, 0.04), (0.0104, 0.0116, -0.0165)),
}
"""The sigma of the exponent: below which r it is linear in ln r (slope, offset, low, high), and its polynomial from there on."""

_READING = {
    2: (0.16, (-0.0117, -0.0069, 0.015, 0.04), (0.0123, 0.0211, -0.0280, 0.0069)),
    1: (0.1591, (-0.0078, 0.0038, 0.0179, 0.04), (0.0088, 0.0768, -0.1352, 0.0664)),
}
"""The size of the read noise, likewise, of q = g_p/G."""

_MEAN = (0.0945, (-0.0387, -0.0182, 0.0720, 0.13), (0.0736, -0.0126, -0.0436))
"""The mean of the exponent, likewise."""

_Piecewise = tuple[float, tuple[float, float, float, float], tuple[float, ...]]


class Hermes(PhaseChange):
    """The conductances of phase-change memory, each of `devices` (2 or 1) devices; `gmax` is G in microsiemens."""

    name = "hermes"
    level = age()
    formula = (
        "g+ = max(w, 0) G/a, g- = max(-w, 0) G/a with a = max|w|, r = g/G at least 1e-7. Two devices (reference 20.7, "
        "t0 = 300 s): "
        "g_p = max(g + (0.16603222 + 4.71806468 r - 8.48101252 r^2 + 4.68961419 r^3) G/20.7 z, 0); g_d = g_p ((t + t0)/t0)^-nu, "
        "nu = |mu + s z|, mu = clip(-0.0387 ln r - 0.0182, 0.0720, 0.13) for r < 0.0945, else -0.0436 r^2 - 0.0126 r + 0.0736; "
        "s = clip(-0.0117 ln r - 0.0057, 0.0091, 0.04) for r < 0.3055, else -0.0118 r^2 + 0.0093 r + 0.0073; "
        "g = max(g_d + g_d Q sqrt(ln((t + t0 + tr)/(2 tr))) z, 0), tr = 512 ns, with q = g_p/G: "
        "Q = clip(-0.0117 ln q - 0.0069, 0.015, 0.04) for q < 0.16, else 0.0069 q^3 - 0.0280 q^2 + 0.0211 q + 0.0123. "
        "devices=1 (reference 10.35, t0 = 200 s): other constants of the same formulas. w' = (g+ - g-) a/G. "
        "t = 0: programming only. Normals: z1, z2 programming of + and -, z3, z4 exponents, z5, z6 reading"
    )
    source = "AIHWKIT 1.1.0, its noise models of the Hermes chip; Le Gallo et al., Nature Electronics 2023"
    omits = "converters, IR drop, reading noise that differs from product to product, temperature, the chip's own compensation"
    read = 512e-9

    def __init__(self, devices: float = 2, gmax: float = 20.7) -> None:
        super().__init__(gmax)
        if devices not in (1, 2):
            raise UsageError(f"--noise: hermes:devices={devices:g} is not known; a conductance has 2 devices, or 1")
        self._devices = int(devices)
        self.t0 = {2: 300.0, 1: 200.0}[self._devices]

    def programming(self, target: Conductances) -> Conductances:
        """A polynomial of degree 3 in r."""
        sigma: Conductances = polynomial(_PROGRAMMING[self._devices], target)
        return sigma

    def exponent(self, target: Conductances) -> tuple[Conductances, Conductances]:
        """Mean and sigma of nu: linear in ln r and clipped for small r, else polynomials."""
        r = np.maximum(target, 1e-7)
        log = np.log(r)
        return _piecewise(_MEAN, r, log), _piecewise(_EXPONENT[self._devices], r, log)

    def reading(self, programmed: Doubles) -> Doubles:
        """Q of q: linear in ln q and clipped for small q, else a polynomial."""
        q = np.maximum(programmed, 1e-7)
        size: Doubles = _piecewise(_READING[self._devices], q, np.log(q))
        return size


def _piecewise(parts: _Piecewise, of: Any, log: Any) -> Any:
    below, (slope, offset, low, high), coefficients = parts
    mask = of < below
    if np.all(mask):  # as of all idle devices
        return clipped(slope, log, offset, low, high)
    large = polynomial(coefficients, of)
    if not isinstance(of, np.ndarray):
        return large
    small: Any = clipped(slope, log, offset, low, high)
    return chosen(mask, small, large)


MODEL = Hermes
