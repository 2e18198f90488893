"""Noisy weights made where they are used: w and z go to the provider's device once, and w + sigma * z is computed there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import onnx

from onnxnoise.model.policies.batch_norms import LayerNoise
from onnxnoise.noise.gaussian import sigma_noise
from onnxnoise.records import VARIANCE
from onnxnoise.runtime.base import Provider
from onnxnoise.runtime.session import Session, Value, to_device, to_host

Array = npt.NDArray[Any]

# A Mul and an Add are two kernels, each rounding to float32, and no optimizer may join them: a fused multiply-add rounds once,
# and the weights would differ from NumPy's in their last bit.
_NOISE = """<ir_version: 8, opset_import: ["": 13]> noise (float w, float z, float sigma) => (float noisy)
{scaled = Mul (z, sigma)  noisy = Add (w, scaled)}"""
_FLOOR = """<ir_version: 8, opset_import: ["": 13]> floor (float v) => (bool below, float floored)
<float zero = {0}> {below = Less (v, zero)  floored = Where (below, zero, v)}"""


class Uploader:
    """Puts a network's weights and their normals on a provider's device, and adds them there.

    A layer's clean weights stay on the device as long as something made of them does, so the next draw finds them there.
    """

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._noise, self._floor = (_kernels(text, provider) for text in (_NOISE, _FLOOR))
        self._clean: WeakValueDictionary[str, Value] = WeakValueDictionary()

    def uploaded(self, noise: LayerNoise) -> UploadedNoise:
        """One draw on one layer, on the device."""
        clean = {name: self._clean.get(name) or to_device(value, self.provider) for name, value in noise.clean.items()}
        self._clean.update(clean)
        normals = {name: to_device(value, self.provider) for name, value in noise.normals.items()}
        return UploadedNoise(self, noise, clean, normals)

    def perturbed(self, clean: Value, normals: Value, sigma: np.float32) -> Value:
        """`w + sigma * z` in float32 on the device, to the bit what `noise.perturbed` computes."""
        if not sigma:
            return clean
        feeds = {"w": clean, "z": normals, "sigma": to_device(np.asarray(sigma), self.provider)}
        return self._noise.run(feeds)["noisy"]

    def floored(self, values: Value) -> tuple[Value, int]:
        """(the values, those below 0 replaced by 0; how many there were)."""
        made = self._floor.run({"v": values})
        return made["floored"], int(to_host(made["below"]).sum())


@dataclass(frozen=True)
class UploadedNoise:
    """As `LayerNoise`, with clean values and normals on a device."""

    uploader: Uploader
    noise: LayerNoise
    clean: Mapping[str, Value]
    normals: Mapping[str, Value]

    def at(self, snr: float) -> tuple[dict[str, Value], int]:
        """(the layer's noisy constants by name, on the device; how many variances the noise made negative)."""
        noisy, negative = {}, 0
        for tensor in self.noise.layer.tensors:
            name = tensor.value
            sigma = sigma_noise(self.noise.layer, tensor, snr, self.noise.scope)
            values = self.uploader.perturbed(self.clean[name], self.normals[name], sigma)
            if self.noise.layer.kind == "batchnorm" and tensor.role == VARIANCE:
                floored, below = self.uploader.floored(values)
                negative += below
                values = floored if self.noise.floor else values
            noisy[name] = values
        return noisy, negative


def _kernels(text: str, provider: Provider) -> Session:
    return Session(onnx.parser.parse_model(text).SerializeToString(), {}, provider, optimized=False)
