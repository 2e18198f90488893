"""Phase-change memory, whichever: programming noise, drift and read noise of differential pairs."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from onnxnoise.noise.base import Doubles, Drawn, Weights
from onnxnoise.noise.blocks import blocks, joined, times
from onnxnoise.noise.pairs import IDLE, Conductances, OnPairs, back, sides
from onnxnoise.records import Floats

_MOST_SHARED = 1 << 22
"""The most values of which the levels of a draw share doubles, 64 bytes a value."""

Ageing = tuple[Doubles, Doubles, Doubles]
"""The arrays that times share: conductances as programmed, exponents of their drift, the noise Q z of readings."""


class PhaseChange(OnPairs):
    """Devices that are programmed with noise, drift as a power of time, and are read with noise that grows with the time.

    Conductances are shares of G. `t0` is the time between programming and the first reading, `read` that of a reading, in
    seconds.
    """

    normals = 6
    drifts = True
    t0: float
    read: float

    @abstractmethod
    def programming(self, target: Conductances) -> Conductances:
        """The sigma of the programming noise of devices that are to hold `target`."""

    @abstractmethod
    def exponent(self, target: Conductances) -> tuple[Conductances, Conductances]:
        """(mean, sigma) of the drift's exponent of devices that were to hold `target`."""

    @abstractmethod
    def reading(self, programmed: Doubles) -> Doubles:
        """The size Q of the read noise of devices that hold `programmed`."""

    def over(self, weights: Weights, drawn: Drawn) -> Callable[[float], Floats]:
        """A function from a level to what `at` gives, to the bit: all that does not depend on the time is computed once."""
        if weights.values.size > _MOST_SHARED:
            return partial(self.at, weights, drawn)
        kept = []
        for w, unit, *normals in blocks(weights.values, [weights.largest], drawn):
            shares, used, idle = sides(w, unit, normals)
            devices = [
                self._ageing(target, self._programmed(target, each[0]), each)
                for target, each in ((shares, used), (IDLE, idle))
            ]
            kept.append((*devices, unit, w))

        def at(level: float) -> Floats:
            aged = (back(self._aged(one, level), self._aged(other, level), unit, w) for one, other, unit, w in kept)
            return joined(aged, weights.values)

        return at

    def shared_bytes(self, values: int) -> int:
        """The bytes that a function of `over` keeps: doubles where there are not too many of them, else the normals."""
        return values * (8 * 8 if values <= _MOST_SHARED else 4 * self.normals)

    def device(self, target: Conductances, normals: Sequence[Any], level: float) -> Doubles:
        """Programmed, and unless `level` is 0 drifted and read, conductances."""
        programmed = self._programmed(target, normals[0])
        return self._aged(self._ageing(target, programmed, normals), level) if level else programmed

    def _programmed(self, target: Conductances, normals: Any) -> Doubles:
        programmed = times(self.programming(target), normals)
        programmed += target
        return np.maximum(programmed, 0.0, out=programmed)

    def _ageing(self, target: Conductances, programmed: Doubles, normals: Sequence[Any]) -> Ageing:
        mean, sigma = self.exponent(target)
        exponent = times(sigma, normals[1])
        exponent += mean
        return programmed, np.abs(exponent, out=exponent), times(self.reading(programmed), normals[2])

    def _aged(self, ageing: Ageing, level: float) -> Doubles:
        programmed, exponent, noise = ageing
        if not level:
            return programmed.copy()
        stored: Doubles = exponent * -math.log((level + self.t0) / self.t0)
        np.exp(stored, out=stored)
        stored *= programmed
        read = noise * math.sqrt(math.log((level + self.t0 + self.read) / (2 * self.read)))
        read += 1.0
        np.maximum(read, 0.0, out=read)
        stored *= read
        return stored


def clipped(slope: float, of: Conductances, offset: float, low: float, high: float) -> Conductances:
    """`slope` times `of` plus `offset`, between `low` and `high`; as NumPy's clip, with fewer arrays."""
    line = slope * of
    line += offset
    if not isinstance(line, np.ndarray):
        return np.clip(line, low, high)
    np.maximum(line, low, out=line)
    return np.minimum(line, high, out=line)
