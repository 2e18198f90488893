"""The noise of every (layer, draw) that a sweep meets: drawn once and kept as far as memory allows."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from onnxnoise.engine.layer_noise import LayerNoise, LayerSource, Maker
from onnxnoise.model.network import Network
from onnxnoise.records import NoiseLayer, NoiseSetting

KEPT_BYTES = 128 << 20
"""Bytes of draws to keep in memory, enough for one of a whole ResNet-50, which all levels and sweeps share."""

KEPT_ON_DEVICE = 1 << 30
"""Bytes of draws to keep on a device, enough for one of a whole VGG16; a user needs that memory for nothing else."""


class Draws:
    """The layers' noise by draw, made by `maker`; beyond `most` bytes the noise not used for longest is dropped first."""

    def __init__(self, network: Network, setting: NoiseSetting, maker: Maker[Any], most: int = KEPT_BYTES) -> None:
        self.network, self.setting, self.maker, self.most = network, setting, maker, most
        self._sources: dict[int, LayerSource] = {}
        self._kept: OrderedDict[tuple[int, int], LayerNoise[Any]] = OrderedDict()
        self._bytes = 0

    def of(self, layer: NoiseLayer, draw: int) -> LayerNoise[Any]:
        """The noise of one layer in one draw."""
        key = (layer.index, draw)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if layer.index not in self._sources:
            self._sources[layer.index] = LayerSource.of(layer, self.network.constants, self.setting)
        noise = self._sources[layer.index].draw(draw, self.maker)
        self._kept[key] = noise
        self._bytes += noise.nbytes
        while self._bytes > self.most and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return noise
