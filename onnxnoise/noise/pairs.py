"""Weights on pairs of conductances, one for a weight's positive part and one for its negative: what device models treat."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxnoise.errors import UsageError
from onnxnoise.noise.base import ByNormals, Doubles, Drawn, Place, Weights
from onnxnoise.noise.blocks import by_blocks, swapped_where
from onnxnoise.records import Floats

Conductances = Doubles | np.float64
"""Conductances as shares of the largest one, G: an array, or one number for all devices."""

IDLE = np.float64(0)
"""The target of the other device of a pair."""


@dataclass(frozen=True)
class Pair:
    """Both conductances of each weight as shares of G, float64 in the canonical shape: w = (plus - minus) `unit`.

    `unit` is max |w| over the tensor, the channel or the tile, broadcastable to the canonical shape.
    """

    plus: Doubles
    minus: Doubles
    unit: Doubles

    @classmethod
    def of(cls, weights: Weights) -> Pair:
        """The pair that a weight is programmed to: its size on one device, the other one at 0."""
        unit = weights.largest
        shares = weights.values / np.where(unit > 0, unit, 1.0)
        return cls(np.maximum(shares, 0.0), np.maximum(-shares, 0.0), unit)

    def weights(self) -> Floats:
        """The weights that the pairs stand for, float32."""
        return ((self.plus - self.minus) * self.unit).astype(np.float32)


class OnPairs(ByNormals, ABC):
    """A noise model of the devices of a differential pair.

    Its `normals` are of the plus devices and of the minus devices in turn. In a chain the pair is kept from one such step to the
    next. Conductances are shares of G here: each sigma of these models grows with G, so G itself, the parameter `gmax` in
    microsiemens, cancels.
    """

    place: Place = "devices"

    def __init__(self, gmax: float) -> None:
        if not 0 < gmax < 1e6:
            raise UsageError(f"--noise: gmax={gmax:g} is no largest conductance; give microsiemens above 0, as gmax=25")

    @abstractmethod
    def device(self, target: Conductances, normals: Sequence[Any], level: float) -> Doubles:
        """The conductances at `level` of devices that were to hold `target`; `normals` has every second array of the draw."""

    def at(self, weights: Weights, drawn: Drawn, level: float) -> Floats:
        """The weights that pairs hold at `level` which were programmed to `weights`."""

        def formula(w: Doubles, unit: Any, *normals: Floats) -> Doubles:
            shares, used, idle = sides(w, unit, normals)
            return back(self.device(shares, used, level), self.device(IDLE, idle, level), unit, w)

        return by_blocks(formula, weights.values, [weights.largest], drawn)

    def stored(self, pair: Pair, drawn: Drawn, level: float) -> Pair:
        """The pairs at `level` that were programmed to `pair`."""
        plus, minus = (self.device(one, drawn[i::2], level) for i, one in enumerate((pair.plus, pair.minus)))
        return Pair(plus, minus, pair.unit)


def sides(w: Doubles, unit: Any, normals: Sequence[Floats]) -> tuple[Doubles, list[Floats], list[Floats]]:
    """(the targets of those devices of pairs that hold the weights, their normals, the normals of the idle ones).

    Of `normals` each first array is the plus devices', each second the minus devices'.
    """
    plus = w >= 0
    shares = np.abs(w)
    shares /= np.where(unit > 0, unit, 1.0)
    pairs = [swapped_where(plus, one, other) for one, other in zip(normals[::2], normals[1::2], strict=True)]
    return shares, [one for one, _ in pairs], [other for _, other in pairs]


def back(used: Doubles, idle: Doubles, unit: Any, w: Doubles) -> Doubles:
    """The weights of pairs whose devices hold `used`, which is overwritten, and `idle`, and were to hold `w`."""
    used -= idle
    used *= np.copysign(unit, w + 0.0)  # -0 + 0 is 0: of a zero, whatever its sign, z1 is on the plus device
    return used
