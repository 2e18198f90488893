"""Gaussian noise in units of the largest weight: w' = w + eta max|w| z."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnoise.errors import UsageError
from onnxnoise.noise.base import ByNormals, Doubles, Drawn, Level, Weights, extreme
from onnxnoise.records import Floats

ETA = Level(
    name="eta",
    title="size of the noise",
    definition="sigma_noise / max |w|",
    hint="0.05 is noise of 5 %, 0 is none",
    example="0.02,0.05,0.1",
    less="smaller",
    defaults=(0.01, 0.02, 0.05, 0.1, 0.2),
    search=(2.0, 0.0005),
    percent=lambda eta: 100.0 * eta,
    inverse="p / 100",
    reference="max |w|",
)


class Relative(ByNormals):
    """White Gaussian noise whose size is a share of a device's range: of the largest weight, or of the range of the weights.

    `range` is 1 for max w - min w in place of max |w|, else 0.
    """

    name = "relative"
    level = ETA
    formula = "w' = w + eta max|w| z1; with range=1: (max w - min w) in place of max|w|"
    source = "the weight modifiers of AIHWKIT (add_normal), and most papers on hardware-aware training"
    omits = "gain errors such as drift, noise that depends on the weight, converters"
    kernel = """<ir_version: 8, opset_import: ["": 13]> relative (float w, float z1, double size) => (float noisy)
    {z = Cast <to = 11> (z1)  wide = Cast <to = 11> (w)  scaled = Mul (z, size)  sum = Add (wide, scaled)
     noisy = Cast <to = 1> (sum)}"""

    def __init__(self, range: float = 0.0) -> None:  # noqa: A002
        if range not in (0.0, 1.0):
            raise UsageError(f"--noise: relative:range={range:g} is not known; 1 takes max w - min w, 0 takes max |w|")
        self._range = range == 1.0

    def at(self, weights: Weights, drawn: Drawn, level: float) -> Floats:
        """`w + eta a z` computed in float64 and rounded to float32 once."""
        factors = self.factors(weights, level)
        if factors is None:
            return weights.values
        noisy: Doubles = weights.values + factors["size"] * drawn[0]
        return noisy.astype(np.float32)

    def factors(self, weights: Weights, level: float) -> Mapping[str, npt.NDArray[Any]] | None:
        """The kernel's `size` of the noise, float64: a scalar, or one number a channel or tile."""
        if not level:
            return None
        return {"size": np.asarray(level * self._largest(weights), np.float64)}

    def _largest(self, weights: Weights) -> Doubles:
        if not self._range:
            return weights.largest
        high, low = (extreme(weights.values, weights.scale, which) for which in (np.maximum, np.minimum))
        return high - low


MODEL = Relative
