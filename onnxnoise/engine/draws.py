"""The noise of every (layer, draw) that a sweep meets: drawn once and kept as far as memory allows."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from onnxnoise.engine.device_noise import UploadedNoise, Uploader
from onnxnoise.model.network import Network
from onnxnoise.model.policies.batch_norms import LayerNoise
from onnxnoise.records import NoiseLayer, Policy, SigmaScope

_KEPT_BYTES = 128 << 20
"""A draw of the whole of a ResNet-50: its signal-to-noise ratios and the sweeps share it."""

_KEPT_ON_DEVICE = 1 << 30
"""There normals are uploaded too, and memory is not the user's to spare: a draw of the whole of a VGG16."""


@dataclass(frozen=True)
class NoiseSpec:
    """What a draw's number means: seed, scope of sigma, batch-norm policy."""

    seed: int
    scope: SigmaScope
    policy: Policy


class Draws:
    """The layers' noise by draw, on the device of an `uploader`; those not used for longest go first."""

    def __init__(self, network: Network, spec: NoiseSpec, uploader: Uploader | None = None) -> None:
        self.network, self.spec, self.uploader = network, spec, uploader
        self._kept: OrderedDict[tuple[int, int], tuple[LayerNoise | UploadedNoise, int]] = OrderedDict()
        self._bytes = 0

    def of(self, layer: NoiseLayer, draw: int) -> LayerNoise | UploadedNoise:
        key = (layer.index, draw)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        spec = self.spec
        drawn = LayerNoise.drawn(
            layer, self.network.constants, seed=spec.seed, draw=draw, scope=spec.scope, policy=spec.policy
        )
        size = sum(normals.nbytes for normals in drawn.normals.values())
        noise = self.uploader.uploaded(drawn) if self.uploader else drawn
        self._kept[key] = noise, size
        self._bytes += size
        while self._bytes > (_KEPT_ON_DEVICE if self.uploader else _KEPT_BYTES) and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1][1]
        return noise
