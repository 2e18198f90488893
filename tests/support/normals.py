"""What noise models draw, from the package's random streams."""

from __future__ import annotations

import numpy as np

from onnxnoise.noise.normals import stream
from onnxnoise.records import Floats


def unit_normals(seed: int, draw: int, layer: int, role: int, shape: tuple[int, ...]) -> Floats:
    """Float32 standard normals of `shape` from the first step's stream of one initializer in one draw."""
    return stream(seed, draw, layer, role).standard_normal(shape, dtype=np.float32)
