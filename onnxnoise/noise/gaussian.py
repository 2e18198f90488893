"""White Gaussian noise in units of sigma_w, the paper's: w' = w + sigma_w / SNR z."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnoise.noise.base import ByNormals, Drawn, Level, Weights
from onnxnoise.records import Floats
from onnxnoise.words import PAPER_SNRS

SNR = Level(
    name="SNR",
    title="signal-to-noise ratio",
    definition="sigma_w / sigma_noise",
    hint="10 is noise of 10 %, inf is none",
    example="100,10,5",
    less="larger",
    defaults=PAPER_SNRS,
    search=(0.1, 1000.0),
    percent=lambda snr: 100.0 / snr,
    inverse="100 / p",
    reference="sigma_w",
)


class Gaussian(ByNormals):
    """Zero-mean white Gaussian noise on every value of an initializer."""

    name = "gaussian"
    level = SNR
    formula = "w' = w + sigma_w / SNR z1"
    source = (
        "Fagbohungbe and Qian, Benchmarking Inference Performance of Deep Learning Models on Analog Devices, equation 1"
    )
    omits = "gain errors such as drift, noise that depends on the weight, converters, and noise between products"
    # A Mul and an Add are two kernels, each rounding to float32, and no optimizer may join them: a fused multiply-add rounds
    # once, and the weights would differ from NumPy's in their last bit.
    kernel = """<ir_version: 8, opset_import: ["": 13]> gaussian (float w, float z1, float sigma) => (float noisy)
    {scaled = Mul (z1, sigma)  noisy = Add (w, scaled)}"""

    def at(self, weights: Weights, drawn: Drawn, level: float) -> Floats:
        """`w + sigma z` in float32, with sigma = sigma_w / level rounded to float32 first."""
        sigma = _sigma_noise(weights, level)
        if not sigma:
            return weights.values
        noisy = sigma * drawn[0]
        noisy += weights.values
        return noisy

    def factors(self, weights: Weights, level: float) -> Mapping[str, npt.NDArray[Any]] | None:
        """The kernel's `sigma`, a scalar."""
        sigma = _sigma_noise(weights, level)
        return {"sigma": np.asarray(sigma)} if sigma else None


def _sigma_noise(weights: Weights, snr: float) -> np.float32:
    return np.float32(weights.sigma_w / snr)


MODEL = Gaussian
