"""Phase-change memory, whichever: programming noise, drift and read noise of differential pairs."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxnoise.noise.base import Doubles
from onnxnoise.noise.pairs import Conductances, OnPairs


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

    def device(self, target: Conductances, normals: Sequence[Any], level: float) -> Doubles:
        """Programmed, and unless `level` is 0 drifted and read, conductances."""
        programmed: Doubles = self.programming(target) * normals[0]
        programmed += target
        np.maximum(programmed, 0.0, out=programmed)
        if not level:
            return programmed
        mean, sigma = self.exponent(target)
        stored: Doubles = sigma * normals[1]
        stored += mean
        np.abs(stored, out=stored)
        stored *= -math.log((level + self.t0) / self.t0)
        np.exp(stored, out=stored)
        noise = self.reading(programmed)
        noise *= math.sqrt(math.log((level + self.t0 + self.read) / (2 * self.read)))
        noise *= normals[2]
        noise += 1.0
        np.maximum(noise, 0.0, out=noise)
        stored *= programmed
        stored *= noise
        return stored


def clipped(slope: float, of: Conductances, offset: float, low: float, high: float) -> Conductances:
    """`slope` times `of` plus `offset`, between `low` and `high`; as NumPy's clip, with fewer arrays."""
    line = slope * of + offset
    if not isinstance(line, np.ndarray):
        return np.clip(line, low, high)
    np.maximum(line, low, out=line)
    return np.minimum(line, high, out=line)
