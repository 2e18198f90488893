"""The noise of one draw on one layer: random arrays by initializer, and the noisy constants that a level makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from onnxnoise.engine.mapped import setting_in
from onnxnoise.noise.base import Drawn, Weights
from onnxnoise.noise.models import Chain, chain_of
from onnxnoise.records import VARIANCE, Codes, Floats, NoiseLayer, NoiseSetting, NoiseTensor

Array = npt.NDArray[Any]
Values = TypeVar("Values")


@dataclass(frozen=True)
class Initializer:
    """One clean initializer of a noise layer; `stored` is its shape in the graph."""

    tensor: NoiseTensor
    stored: tuple[int, ...]
    weights: Weights

    def as_stored(self, canonical: Array) -> Array:
        """Values of the canonical shape, or broadcastable to it, laid out as the graph stores the initializer."""
        if canonical.shape == self.stored and not self.tensor.transposed:
            return canonical
        full = canonical if canonical.shape == self.tensor.shape else np.broadcast_to(canonical, self.tensor.shape)
        return np.ascontiguousarray(full.swapaxes(-1, -2) if self.tensor.transposed else full).reshape(self.stored)


class Maker(Protocol[Values]):
    """A maker of noisy weights: NumPy in this process's memory (Host), or a provider's device."""

    def noisy(self, chain: Chain, clean: Initializer, drawn: tuple[Drawn, ...]) -> Callable[[float], Values]:
        """A function from a level to the noisy initializer, laid out as the graph stores it.

        `drawn` has the random arrays of each step of the chain, in the initializer's canonical shape.
        """

    def floored(self, values: Values) -> tuple[Values, int]:
        """(the values with those below 0 replaced by 0, how many there were)."""


@dataclass(frozen=True)
class LayerNoise(Generic[Values]):
    """The noise of one draw on one layer; `noisy` has a function of the level for each initializer, `nbytes` the draw's bytes.

    Under every policy but `raw` a batch norm's variance that the noise makes negative becomes 0.
    """

    layer: NoiseLayer
    keep_negative: bool
    noisy: tuple[Callable[[float], Values], ...]
    maker: Maker[Values]
    nbytes: int

    def at(self, level: float) -> tuple[dict[str, Values], int]:
        """(the layer's noisy constants by name, how many variances the noise made negative)."""
        made: dict[str, Values] = {}
        negative = 0
        for tensor, noisy in zip(self.layer.tensors, self.noisy, strict=True):
            values = noisy(level)
            if self.layer.kind == "batchnorm" and tensor.role == VARIANCE:
                floored, below = self.maker.floored(values)
                negative += below
                values = values if self.keep_negative else floored
            made[tensor.value] = values
        return made, negative


class Host:
    """The maker of noisy weights by NumPy in this process's memory."""

    def noisy(self, chain: Chain, clean: Initializer, drawn: tuple[Drawn, ...]) -> Callable[[float], Floats]:
        """A function from a level to the noisy initializer, laid out as the graph stores it."""
        made = chain.over(clean.weights, drawn)
        return lambda level: clean.as_stored(made(level))

    def floored(self, values: Floats) -> tuple[Floats, int]:
        """(the values with those below 0 replaced by 0, how many there were)."""
        below = values < 0
        if not below.any():
            return values, 0
        return np.where(below, np.float32(0), values), int(below.sum())


@dataclass(frozen=True)
class LayerSource:
    """One noise layer of a network, ready to be drawn: all that its draws share."""

    layer: NoiseLayer
    setting: NoiseSetting
    chain: Chain
    clean: tuple[Initializer, ...]

    @classmethod
    def of(cls, layer: NoiseLayer, constants: Mapping[str, Array], setting: NoiseSetting) -> LayerSource:
        """The source of one layer's noise; `constants` has the network's clean values by name."""
        own = setting_in(setting, layer)

        def initializer(tensor: NoiseTensor) -> Initializer:
            stored = constants[tensor.value]
            sigma = layer.sigma_w if setting.sigma_scope == "layer" and tensor.sigma_w else tensor.sigma_w
            weights = Weights(_canonical(tensor, stored), sigma, own.scale, _codes(tensor, stored))
            return Initializer(tensor, stored.shape, weights)

        return cls(layer, own, chain_of(own), tuple(map(initializer, layer.tensors)))

    def draw(self, draw: int, maker: Maker[Values]) -> LayerNoise[Values]:
        """The noise of draw number `draw`, counted from 0."""
        made = []
        size = 0
        for clean in self.clean:
            tensor = clean.tensor
            drawn = self.chain.draw(self.setting.seed, draw, self.layer.index, tensor.role, tensor.shape)
            if tensor.transposed:  # in memory as the graph stores them: noisy values need no transposition of their own
                drawn = tuple(tuple(_transposed_in_memory(each, tensor.shape) for each in arrays) for arrays in drawn)
            size += self.chain.shared_bytes(drawn, clean.weights.values.size)
            made.append(maker.noisy(self.chain, clean, drawn))
        return LayerNoise(self.layer, self.setting.bn == "raw", tuple(made), maker, size)


def in_memory(
    layer: NoiseLayer, constants: Mapping[str, Array], setting: NoiseSetting, draw: int
) -> LayerNoise[Floats]:
    """Draw the noise of one layer with NumPy as the maker: draw number `draw`, counted from 0, over its clean values by name."""
    return LayerSource.of(layer, constants, setting).draw(draw, Host())


def _transposed_in_memory(values: Array, shape: tuple[int, ...]) -> Array:
    """An array of the canonical shape as it lies transposed; any other, as the bits of each value, as it is."""
    if values.shape != shape:
        return values
    return np.ascontiguousarray(values.swapaxes(-1, -2)).swapaxes(-1, -2)


def _codes(tensor: NoiseTensor, stored: Array) -> Codes | None:
    """The codes of an initializer, with scale and zero point broadcastable to its canonical shape."""
    if tensor.codes is None:
        return None
    scale, zero = (
        each if each.ndim == 0 else _canonical(tensor, np.broadcast_to(each, stored.shape))
        for each in (tensor.codes.scale, tensor.codes.zero)
    )
    return replace(tensor.codes, scale=scale, zero=zero)


def _canonical(tensor: NoiseTensor, stored: Array) -> Array:
    """A view of an initializer in its canonical shape."""
    if not tensor.transposed:
        return stored.reshape(tensor.shape)
    *batch, rows, columns = tensor.shape
    return stored.reshape(*batch, columns, rows).swapaxes(-1, -2)
