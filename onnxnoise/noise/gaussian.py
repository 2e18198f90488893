"""The noise itself, to the bit: standard deviations and draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from onnxnoise.records import Floats, NoiseLayer, NoiseTensor, SigmaScope

DEFAULT_SEED = 40
PAPER_SNRS = (100.0, 10.0, 5.0, 2.5, 1.67, 1.0)
"""The paper's noise of 1, 10, 20, 40, 60 and 100 percent."""


_BLOCK = 1 << 22
"""Values that are summed at a time, so that a kernel of 400 MB needs no float64 copy of itself."""


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


def unit_normals(seed: int, draw: int, layer: int, role: int, shape: tuple[int, ...]) -> Floats:
    """Float32 standard normals of `shape` for one initializer of one draw ("one chip").

    Philox keyed by SeedSequence(seed, spawn_key=(draw, layer index, role)): independent of every other draw and of any order.
    """
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(draw, layer, role))
    return np.random.Generator(np.random.Philox(sequence)).standard_normal(shape, dtype=np.float32)


def stored_normals(seed: int, draw: int, layer: NoiseLayer, tensor: NoiseTensor, shape: tuple[int, ...]) -> Floats:
    """Unit normals laid out as the graph stores the initializer (`shape`): drawn in its canonical shape, then transposed."""
    z = unit_normals(seed, draw, layer.index, tensor.role, tensor.shape)
    return np.ascontiguousarray(z.swapaxes(-1, -2) if tensor.transposed else z).reshape(shape)


def sigma_noise(layer: NoiseLayer, tensor: NoiseTensor, snr: float, scope: SigmaScope) -> np.float32:
    """Standard deviation of the noise on one initializer: sigma_w / snr; 0 where its own sigma is 0 or for infinite snr."""
    if tensor.sigma_w == 0:
        return np.float32(0)
    return np.float32((tensor.sigma_w if scope == "tensor" else layer.sigma_w) / snr)


def perturbed(values: Floats, z: Floats, sigma: np.float32) -> Floats:
    """`w + sigma * z` in float32; all three of the same shape."""
    if not sigma:
        return values
    noisy = sigma * z
    noisy += values
    return noisy
