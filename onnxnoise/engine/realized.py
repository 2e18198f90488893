"""Measures realized noise: what the draws of any noise model do to a layer's values, in terms of the paper's axis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnoise.engine.layer_noise import Host, LayerSource
from onnxnoise.records import NoiseLayer, NoiseSetting, Realized

Array = npt.NDArray[Any]

MOST_DRAWS = 10
"""The most draws that realized noise is averaged over: it is an average over a layer's values already."""

_MOST_VALUES = 1 << 26
"""Values times draws beyond which fewer draws are taken, so that a large network's run is not slower by it."""

_BLOCK = 1 << 16
"""Values that are summed at a time, few enough to stay in a processor's cache."""


def realized_draws(layers: Sequence[NoiseLayer], draws: int) -> int:
    """The number of draws that realized noise is averaged over, of the first `draws` ones of a run."""
    values = sum(math.prod(tensor.shape) for layer in layers for tensor in layer.tensors)
    return max(1, min(draws, MOST_DRAWS, _MOST_VALUES // max(1, values)))


def realized(
    layers: Sequence[NoiseLayer],
    constants: Mapping[str, Array],
    setting: NoiseSetting,
    levels: Mapping[float, int],
) -> Iterator[Realized]:
    """Yield the realized noise of each layer at each of `levels`, by the number of first draws that it is averaged over.

    `constants` has the network's clean values by name. See `Realized` for the formulas (NumPy's population moments in float64,
    over all values of a layer that bear noise).
    """
    for layer in layers:
        source = LayerSource.of(layer, constants, setting)
        found: dict[float, list[_Sums]] = {level: [] for level in levels}
        for draw in range(max(levels.values(), default=0)):
            noise = source.draw(draw, Host())
            for level, draws in levels.items():
                if draw < draws:
                    noisy, _ = noise.at(level)
                    found[level].append(_Sums.of([(constants[name], values) for name, values in noisy.items()]))
        for level, sums in found.items():
            yield Realized(
                layer.index,
                level,
                _mean([each.snr for each in sums]),
                _mean([each.gain for each in sums]),
                _mean([each.offset for each in sums]),
                len(sums),
            )


@dataclass(frozen=True)
class _Sums:
    """Sums over `count` clean values w and errors d = w' - w of a layer: of w, w w, d, d d and w d."""

    count: int
    w: float
    ww: float
    d: float
    dd: float
    wd: float

    @classmethod
    def of(cls, pairs: Sequence[tuple[Array, Array]]) -> _Sums:
        """The sums over pairs (clean, noisy) of tensors of equal shapes."""
        total = np.zeros(5)
        count = 0
        for clean, noisy in pairs:
            flat, other = clean.ravel(), noisy.ravel()
            count += flat.size
            for start in range(0, flat.size, _BLOCK):
                w = flat[start : start + _BLOCK].astype(np.float64)
                d = other[start : start + _BLOCK] - w
                total += (w.sum(), w @ w, d.sum(), d @ d, w @ d)
        return cls(count, *map(float, total))

    @property
    def snr(self) -> float | None:
        signal, noise = self._deviation(self.w, self.ww), self._deviation(self.d, self.dd)
        if noise:
            return signal / noise
        return math.inf if signal else None

    @property
    def gain(self) -> float | None:
        return (self.ww + self.wd) / self.ww if self.ww else None

    @property
    def offset(self) -> float | None:
        signal = self._deviation(self.w, self.ww)
        return self.d / self.count / signal if signal else None

    def _deviation(self, total: float, squares: float) -> float:
        """The population standard deviation of values with this sum and this sum of squares."""
        mean = total / self.count
        variance = squares / self.count - mean**2
        return math.sqrt(variance) if variance > 1e-14 * mean**2 else 0.0


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where a draw has no value."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None
