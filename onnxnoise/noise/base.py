"""The parts of a noise model: its level, the random arrays of one draw, and the noisy values that a level makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from onnxnoise.errors import UsageError
from onnxnoise.noise.times import time_text, time_words
from onnxnoise.records import Codes, Floats

_LEAST = 1e-30
"""Levels lie between this and its inverse: beyond them float32 has no noise, or nothing else."""

Doubles = npt.NDArray[np.float64]
Drawn = tuple[npt.NDArray[Any], ...]
"""The random arrays of one initializer and one draw, mostly of its canonical shape, in the order in which they were drawn."""


@dataclass(frozen=True)
class Level:
    """The kind of number that a noise model sweeps: its names, how it is written, and which way is less noise.

    `name` is the short word in tables, `title` the long one in messages, `definition` says in a few words what the number is
    and `hint` what some values of it mean; `example` is how a list of them is typed. `less` says whether a larger or a smaller
    level is less noise. `defaults` are swept where nothing else is asked for, the least noise first, and `search` are the
    (most, least) noise between which a noise margin is looked for. `percent` turns a level into the size of the noise in
    percent of `reference`, which grows with the noise and is 0 without any; `inverse` writes a level as a formula of that
    percentage `p`, for charts.

    A `time` is in seconds since programming and written with its unit (1h); it is no size, so its `percent` is the time itself.
    A `whole` level is a whole number. `least` and `most` bound the levels, both included, but for `also`; `choices` are the only
    ones, and where there is but one, nothing can be swept. `limits` says in words which numbers may be levels.
    """

    name: str
    title: str
    definition: str
    hint: str
    example: str
    less: Literal["larger", "smaller"]
    defaults: tuple[float, ...]
    search: tuple[float, float]
    percent: Callable[[float], float]
    inverse: str
    reference: str
    limits: str = "a number above 0"
    least: float = _LEAST
    most: float = 1 / _LEAST
    choices: tuple[float, ...] = ()
    also: float | None = None
    time: bool = False
    whole: bool = False
    measure: str = "sigma_noise"

    @property
    def share(self) -> str:
        """The meaning of the size of the noise in percent, in words."""
        return f"{self.measure} as a share of {self.reference}" if self.sized else self.definition

    @property
    def noun(self) -> str:
        """The word for a level in a count: `3 SNRs`, `3 levels`."""
        return self.name if self.name == "SNR" else "level"

    @property
    def flag(self) -> str:
        """The flag that lists levels: `--snr` for signal-to-noise ratios, as it always was, else `--levels`."""
        return "--snr" if self.name == "SNR" else "--levels"

    @property
    def only(self) -> float | None:
        """The one level that there is, where nothing can be swept."""
        return self.choices[0] if len(self.choices) == 1 else None

    @property
    def sized(self) -> bool:
        """Whether a level is a size of the noise: a time is none, nor the only level there is, nor that of a function."""
        return not self.time and self.only is None and bool(self.reference)

    @property
    def silent(self) -> float:
        """The level without any noise; devices have some right after programming, so it is before every time."""
        return math.inf if self.less == "larger" else -math.inf if self.time else 0.0

    @property
    def endless(self) -> float:
        """The level that stands for more noise than any that is measured."""
        return 0.0 if self.less == "larger" else math.inf

    def order(self, level: float) -> float:
        """A key that sorts levels, the least noise first."""
        return -level if self.less == "larger" else level

    def in_order(self, levels: Iterable[float]) -> list[float]:
        """Levels sorted, the least noise first, each once."""
        return sorted(set(levels), key=self.order)

    def times(self, level: float, factor: float) -> float:
        """The level of `factor` times as much noise."""
        return level / factor if self.less == "larger" else level * factor

    def between(self, one: float, other: float) -> float:
        """The geometric mean of two levels above 0, rounded to three digits, or to a whole number where levels are whole."""
        mean = math.sqrt(one * other)
        return float(round(mean)) if self.whole else float(f"{mean:.3g}")

    def number(self, level: float) -> str:
        """The bare number, as a table's column writes it; a time with its unit."""
        return time_text(level) if self.time else f"{level:g}"

    def text(self, level: float) -> str:
        """The level with its name: `SNR 5`."""
        return f"{self.name} {self.number(level)}"

    def percent_text(self, level: float) -> str:
        """The size of the noise: `20 %`; of a level that is no size, the level."""
        return f"{self.percent(level):.3g} %" if self.sized else self.number(level)

    def size_text(self, level: float) -> str:
        """The size of the noise: `20 %`; nothing of a level that is no size."""
        return self.percent_text(level) if self.sized else ""

    def long_text(self, level: float) -> str:
        """The level with its name and the size of the noise: `SNR 5 (20 %)`, `t 1h`."""
        return f"{self.text(level)} ({self.percent_text(level)})" if self.sized else self.text(level)

    def words(self, level: float) -> str:
        """The level as a sentence says it: `SNR 5`, `3.2 days`, `4 bits`, `0.8 % stuck cells`, `noise of 5 % of max |w|`."""
        if self.time:
            return time_words(level)
        if self.whole:
            return f"{level:g} {self.name}"
        if self.name == "p":
            return f"{self.percent_text(level)} {self.measure}"
        return self.text(level) if self.name == "SNR" else f"noise of {self.percent_text(level)} of {self.reference}"

    def check(self, level: float, flag: str) -> float:
        """The level itself; raises UsageError, naming `flag`, for a number that can't be a level of this noise."""
        if self.choices:
            fits = level in self.choices
        else:
            fits = level == self.also or (self.least <= level <= self.most and (not self.whole or level == int(level)))
        if fits or (level == self.silent and not self.time and not self.choices):
            return level
        raise UsageError(
            f"{flag}: {self.number(level)} is no {self.title}: {self.definition} is {self.limits} ({self.hint})"
        )


@dataclass(frozen=True)
class Weights:
    """One initializer as a noise model sees it.

    `values` are float32 in the canonical shape. `sigma_w` is their population standard deviation, or that of all values of the
    layer under the sigma scope `layer`; it is 0 where the values are all equal, and then there is no noise. `scale` says what
    max |w| is taken over: `tensor`, `channel` (a row of the canonical shape) or `tile:N` (at most N inputs of a row).
    `codes` are the integers as which a quantized file stores them.
    """

    values: Floats
    sigma_w: float
    scale: str = "tensor"
    codes: Codes | None = None

    @property
    def largest(self) -> Doubles:
        """Max |w| of the tensor, of each channel or of each tile, as `scale` says; float64, in the shape that `extreme` gives.

        It is found once for all draws and levels, but for tiles, where it is larger than the weights.
        """
        return self._found() if self.scale.startswith("tile:") else self._kept

    @cached_property
    def _kept(self) -> Doubles:
        found = self._found()
        found.setflags(write=False)
        return found

    def _found(self) -> Doubles:
        return extreme(np.abs(self.values), self.scale, np.maximum)


Place = Literal["weights", "devices", "either"]
"""The place of a step in a chain: among those that treat weights, those that treat devices, which come after, or either."""


class NoiseModel(Protocol):
    """One step that turns an initializer into a noisy one: a pure function of its values, its random arrays and a level.

    A model is one file of this package and one name in its `MODELS`. `formula`, `source` and `omits` (the effects it leaves
    out) are for people. Its constructor takes the step's parameters by name, besides the level. `scale` is the one to take where
    none is asked for.
    """

    name: str
    place: Place
    scale: str
    deterministic: bool
    """Whether nothing of it is random, so that all draws are one chip."""

    alone: bool
    """Whether it puts weights on devices of another kind than a differential pair, so that no other device step can follow."""

    drifts: bool
    """Whether its level is a time and level 0 is right after programming, before drift and reading."""

    level: Level
    formula: str
    source: str
    omits: str

    def __init__(self, **parameters: Any) -> None: ...

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Drawn:
        """The random arrays of one draw; always all of them in the same order, so that all levels of a draw are one chip."""

    def at(self, weights: Weights, drawn: Drawn, level: float) -> Floats:
        """The noisy values, float32 in the canonical shape; `weights.values` themselves where there is no noise."""


class ByNormals:
    """The usual parts of a noise model: so many arrays of unit `normals` a draw, one unless it says otherwise."""

    place: Place = "weights"
    scale = "tensor"
    deterministic = False
    alone = False
    drifts = False
    normals = 1

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Drawn:
        """The arrays of unit normals, float32, one after the other."""
        return tuple(random.standard_normal(shape, dtype=np.float32) for _ in range(self.normals))


@runtime_checkable
class SharedModel(NoiseModel, Protocol):
    """A noise model of which most work does not depend on the level, so that all levels of a draw can share it."""

    def over(self, weights: Weights, drawn: Drawn) -> Callable[[float], Floats]:
        """A function from a level to what `at` gives, to the bit; what levels share is computed once."""

    def shared_bytes(self, values: int) -> int:
        """The bytes that such a function keeps for an initializer of so many values."""


@runtime_checkable
class DeviceModel(NoiseModel, Protocol):
    """A noise model that can also be computed on a provider's device, to the bit what `at` computes.

    `kernel` is a model in ONNX's text format. Its inputs are `w`, the random arrays `z1`, `z2`, ... and the names that
    `factors` gives; its output is `noisy`.
    """

    kernel: str

    def factors(self, weights: Weights, level: float) -> Mapping[str, npt.NDArray[Any]] | None:
        """The kernel's other inputs, each broadcastable to the canonical shape; None where there is no noise."""


def extreme(values: Floats, scale: str, which: np.ufunc) -> Doubles:
    """The largest (`which` is np.maximum) or smallest (np.minimum) value of the tensor, of each channel, or of each tile.

    The result is float64 and broadcastable to the canonical shape of `values`. A channel is a row of the canonical shape, its
    first axis. A tile is a row's part of at most N inputs, all axes but the first flattened and split evenly: of
    k = ceil(inputs / N) tiles the first (inputs mod k) are one input longer.
    """
    if scale == "tensor" or values.ndim == 0:
        return np.asarray(which.reduce(values, axis=None), np.float64)
    rows = values.reshape(len(values), -1)
    inputs = rows.shape[1]
    tiles = 1 if scale == "channel" else -(-inputs // tile_size(scale))
    lengths = [inputs // tiles + (i < inputs % tiles) for i in range(tiles)]
    each = which.reduceat(rows, np.cumsum([0, *lengths[:-1]]), axis=1).astype(np.float64)
    if tiles == 1:
        return each.reshape(-1, *(1,) * (values.ndim - 1))
    return np.repeat(each, lengths, axis=1).reshape(values.shape)


def tile_size(scale: str) -> int:
    """The N of `tile:N`."""
    return int(scale.removeprefix("tile:"))


def check_scale(scale: str) -> str:
    """The scale itself; raises UsageError for one that is neither `tensor`, `channel` nor `tile:N`."""
    size = scale.removeprefix("tile:")
    if scale in ("tensor", "channel") or (size != scale and size.isdecimal() and 0 < int(size) < 10**9):
        return scale
    raise UsageError(f"--scale: {scale[:40]!r} is not known; use tensor, channel or tile:N (tile:512)")
