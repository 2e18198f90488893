"""The noise of every (layer, draw) that a sweep meets: drawn once and kept as far as memory allows."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from onnxnoise.engine.layer_noise import LayerNoise, Place, layer_noise
from onnxnoise.model.network import Network
from onnxnoise.records import NoiseLayer, NoiseSetting

KEPT_BYTES = 128 << 20
"""A draw of the whole of a ResNet-50: its levels and the sweeps share it."""

KEPT_ON_DEVICE = 1 << 30
"""On a device random arrays are uploaded too, and memory is not the user's to spare: a draw of the whole of a VGG16."""


class Draws:
    """The layers' noise by draw, made at `place`; beyond `most` bytes those not used for longest go first."""

    def __init__(self, network: Network, setting: NoiseSetting, place: Place[Any], most: int = KEPT_BYTES) -> None:
        self.network, self.setting, self.place, self.most = network, setting, place, most
        self._kept: OrderedDict[tuple[int, int], LayerNoise[Any]] = OrderedDict()
        self._bytes = 0

    def of(self, layer: NoiseLayer, draw: int) -> LayerNoise[Any]:
        """The noise of one layer in one draw."""
        key = (layer.index, draw)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        noise = layer_noise(layer, self.network.constants, self.setting, draw, self.place)
        self._kept[key] = noise
        self._bytes += noise.nbytes
        while self._bytes > self.most and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return noise
