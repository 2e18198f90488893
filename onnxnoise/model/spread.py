"""The standard deviation of an initializer's values, or of several initializers' together: sigma_w."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_BLOCK = 1 << 22
"""The number of values summed at a time, so that a kernel of 400 MB needs no float64 copy of itself."""


def _moments(values: npt.NDArray[np.floating]) -> tuple[float, float]:
    """(mean, population variance) in float64."""
    flat = values.ravel()
    if flat.size <= _BLOCK:
        wide = flat.astype(np.float64)
        return float(wide.mean()), float(wide.var())
    blocks = [flat[i : i + _BLOCK] for i in range(0, flat.size, _BLOCK)]
    mean = sum(float(block.sum(dtype=np.float64)) for block in blocks) / flat.size
    squares = (np.square(np.subtract(block, mean, dtype=np.float64)).sum() for block in blocks)
    return mean, sum(float(square) for square in squares) / flat.size


def sigma(values: npt.NDArray[np.floating]) -> float:
    """Population standard deviation of an initializer's values, computed in float64, in the initializer's units."""
    return float(np.sqrt(_moments(values)[1])) if values.size > 1 else 0.0


def pooled_sigma(tensors: Sequence[npt.NDArray[np.floating]]) -> float:
    """Population standard deviation of all values of several initializers together (the paper's equation 1)."""
    count = sum(values.size for values in tensors)
    moments = [(values.size, *_moments(values)) for values in tensors if values.size]
    mean = sum(size * each for size, each, _ in moments) / count
    variance = sum(size * (spread + (each - mean) ** 2) for size, each, spread in moments) / count
    return float(np.sqrt(variance)) if count > 1 else 0.0
