"""The noise of IBM's analog foundation models: polynomials of the weight, in tiles of 512 inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxnoise.noise.base import ByNormals, Doubles, Drawn, Weights
from onnxnoise.noise.blocks import by_blocks, chosen, polynomial, swapped_where, times
from onnxnoise.noise.fixed import ONE
from onnxnoise.records import Floats

_SMALL = (2.5797410660159494, 0.22419685954327148, -0.00371581208142707, 2.939751381126213e-05)
_LARGE = (2.110295720240385, 0.2453487119885723, -0.003054993405157235, 1.2329755395573392e-05)
_FROM, _DEAD = 52.5, 0.6


class Afm(ByNormals):
    """Measured noise of phase-change memory on weights in units of max |w| = 180."""

    name = "afm"
    level = ONE
    scale = "tile:512"
    formula = (
        "v = w 180/a, a = max|w| of a tile of 512 inputs. |v| <= 52.5: v + sigma(|v|) z1, and 0 where that is below 0.6 in size, "
        "sigma = 2.5797410660159494 + 0.22419685954327148 |v| - 0.00371581208142707 |v|^2 + 2.939751381126213e-05 |v|^3; above: "
        "v + sigma(|v|) z2, sigma = 2.110295720240385 + 0.2453487119885723 |v| - 0.003054993405157235 |v|^2 + "
        "1.2329755395573392e-05 |v|^3. w' = v a/180"
    )
    source = "IBM's analog-foundation-models, apply_noise_model.py"
    omits = "drift, quantized inputs and outputs of a tile, IR drop"
    normals = 2

    def at(self, weights: Weights, drawn: Drawn, level: float) -> Floats:  # noqa: ARG002
        """The weights after programming; where all of a tile are 0, 0."""

        def formula(w: Doubles, unit: Any, z1: Floats, z2: Floats) -> Doubles:
            w *= 180 / np.where(unit > 0, unit, 1.0)
            size = np.abs(w)
            small = size <= _FROM
            w += times(
                chosen(small, polynomial(_SMALL, size), polynomial(_LARGE, size)), swapped_where(small, z1, z2)[0]
            )
            w *= ~small | (np.abs(w) >= _DEAD)
            w += 0.0
            w *= unit / 180
            return w

        return by_blocks(formula, weights.values, [weights.largest], drawn)


MODEL = Afm
