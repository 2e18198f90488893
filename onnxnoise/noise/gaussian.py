"""The noise itself, to the bit: one draw of a tensor, and what an SNR does to it."""

from __future__ import annotations

import numpy as np

from onnxnoise.records import Floats, NoiseLayer, NoiseTensor, SigmaScope


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
