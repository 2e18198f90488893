"""Resistive memory of conductive metal oxide and hafnium oxide, one device a weight: programming, decay and read noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxnoise.errors import UsageError
from onnxnoise.noise.ages import age
from onnxnoise.noise.base import ByNormals, Doubles, Drawn, Place, Weights, extreme
from onnxnoise.noise.blocks import by_blocks, times
from onnxnoise.records import Floats

_LOW, _HIGH = 9.0, 88.199997
"""The range of the conductances, in microsiemens."""

_PROGRAMMING = {0.2: (0.00081107, 0.00106879), 2.0: (0.0112185391, 0.01129027418)}
"""(c0, c1) of the programming noise's sigma c0 + c1 g, by the range within which programming accepts a device, in percent."""


class ReramCmo(ByNormals):
    """One device for each weight, from the smallest weight to the largest, programmed to within `accept` percent (2 or 0.2)."""

    name = "reram-cmo"
    place: Place = "devices"
    alone = True
    level = age(1.0, also=0.0, limits="0s, right after programming, or a time from 1s to 1000y")
    formula = (
        "g = (w - min w) (88.199997 - 9)/(max w - min w) + 9 in microsiemens. Programming: g_p = g + (c0 + c1 g) z1, "
        "accept=2 (percent): c0 = 0.0112185391, c1 = 0.01129027418; accept=0.2: 0.00081107, 0.00106879. Decay: "
        "g_d = g_p - 0.08900206 ln t + (0.04201137 ln t + 0.41183342) z2. Read: clip(g_d + 0.0277316483 log10(g_d) "
        "sqrt(ln((t + 1e-6)/2e-6)) z3, 9, 88.199997), and back to weights. t = 0: programming only"
    )
    source = "AIHWKIT 1.1.0, ReRamCMONoiseModel; Falcone et al., 2025"
    omits = "converters, IR drop, a column of references that would take the common shift of all weights away"
    normals = 3
    drifts = True

    def __init__(self, accept: float = 2.0) -> None:
        if accept not in _PROGRAMMING:
            raise UsageError(
                f"--noise: reram-cmo:accept={accept:g} is not known; devices were measured at 2 and 0.2 percent"
            )
        self._programming = _PROGRAMMING[accept]

    def at(self, weights: Weights, drawn: Drawn, level: float) -> Floats:
        """The weights that devices hold at `level`; where all of a tensor, channel or tile are equal, as they are."""
        high, low = (extreme(weights.values, weights.scale, which) for which in (np.maximum, np.minimum))
        c0, c1 = self._programming

        def formula(w: Doubles, span: Any, lowest: Any, z1: Floats, z2: Floats, z3: Floats) -> Doubles:
            unit = np.where(span > 0, span, 1.0) / (_HIGH - _LOW)
            g: Doubles = w - lowest
            g /= unit
            g += _LOW
            sigma = c1 * g
            sigma += c0
            g += times(sigma, z1)  # AIHWKIT clips what is read, not what is programmed
            if level:
                log = math.log(level)
                g += times(0.04201137 * log + 0.41183342, z2)
                g -= 0.08900206 * log
                read = np.maximum(g, 1.0)  # of what decayed below 0 there is no logarithm
                np.log(read, out=read)
                read *= 0.0277316483 / math.log(10) * math.sqrt(math.log((level + 1e-6) / 2e-6))
                g += times(read, z3)
                np.maximum(g, _LOW, out=g)
                np.minimum(g, _HIGH, out=g)
            g -= _LOW
            g *= unit
            g += lowest
            return g if np.all(span > 0) else np.where(span > 0, g, w)

        return by_blocks(formula, weights.values, [high - low, low], drawn)


MODEL = ReramCmo
