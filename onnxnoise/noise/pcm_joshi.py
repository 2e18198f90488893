"""The programming noise of phase-change memory after Joshi et al.: differential pairs whose idle device holds a hundredth of G.

The protocol `joshi2020` uses it as the step `pcm-joshi`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxnoise.noise.base import ByNormals, Doubles, Drawn, Place, Weights
from onnxnoise.noise.blocks import by_blocks, polynomial, times
from onnxnoise.noise.fixed import ONE
from onnxnoise.records import Floats

_SIGMA = (0.28638599, 0.07585724, -0.00178767)
_G, _IDLE = 25.0, 0.25
"""The largest conductance and that of an idle device, in microsiemens."""


class PcmJoshi(ByNormals):
    """Pairs between G/100 and G = 25 microsiemens, right after programming."""

    name = "pcm-joshi"
    place: Place = "devices"
    alone = True
    level = ONE
    formula = (
        "g+ = max(w, 0) (G - gmin)/a + gmin, g- = max(-w, 0) (G - gmin)/a + gmin, a = max|w|, G = 25 and gmin = 0.25 "
        "microsiemens. "
        "g' = max(g + max(-0.00178767 g^2 + 0.07585724 g + 0.28638599, 0) z, 0), w' = (g+ - g-) a/(G - gmin). Normals: z1 of +, "
        "z2 of -"
    )
    source = "Joshi et al., Nature Communications 2020; CrossSim's PCM_Joshi.py"
    omits = "drift (which they compensate), read noise, converters"
    normals = 2

    def at(self, weights: Weights, drawn: Drawn, level: float) -> Floats:  # noqa: ARG002
        """The weights that pairs hold right after programming."""

        def formula(w: Doubles, unit: Any, z1: Floats, z2: Floats) -> Doubles:
            step = np.where(unit > 0, unit, 1.0) / (_G - _IDLE)
            plus, minus = (_programmed(np.maximum(side, 0.0) / step + _IDLE, z) for side, z in ((w, z1), (-w, z2)))
            plus -= minus
            plus *= step
            return plus if np.all(unit > 0) else np.where(unit > 0, plus, w)

        return by_blocks(formula, weights.values, [weights.largest], drawn)


def _programmed(g: Doubles, z: Floats) -> Doubles:
    g += times(np.maximum(polynomial(_SIGMA, g), 0.0), z)
    return np.maximum(g, 0.0, out=g)


MODEL = PcmJoshi
