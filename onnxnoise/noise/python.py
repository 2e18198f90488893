"""Noise of one's own, as a function in a Python file."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from onnxnoise.errors import NoiseFileError
from onnxnoise.functions import functions_of, line_of, module_of, printing_aside
from onnxnoise.noise.base import ByNormals, Drawn, Level, Weights
from onnxnoise.noise.userfiles import unchanged
from onnxnoise.records import Floats
from onnxnoise.text import did_you_mean

_LEVEL = Level(
    name="level",
    title="level of the function",
    definition="the level that the function is called with",
    hint="what it means is the function's",
    example="0.01,0.1",
    less="smaller",
    defaults=(0.01, 0.02, 0.05, 0.1, 0.2),
    search=(2.0, 0.0005),
    percent=lambda level: 100.0 * level,
    inverse="p / 100",
    reference="",
    limits="a number from 0 on",
    least=0.0,
    measure="the level",
)


class Python(ByNormals):
    """A function (weights, rng, level) -> weights, called with a generator that begins anew for every level of a draw."""

    name = "python"
    level = _LEVEL
    formula = (
        "w' = NAME(weights, rng, level): float32 arrays of the canonical shape ((out, in) of dense layers), rng a NumPy "
        "Generator on the step's stream, the same for all levels of a draw"
    )
    source = "the file, which is run as it is"
    omits = "whatever the function leaves out"
    normals = 0

    def __init__(self, file: str, sha256: str) -> None:
        self._path, _, self._name = file.rpartition(":")
        self._sha256 = sha256
        self._proved: set[float] = set()

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Drawn:  # noqa: ARG002
        """The state of the stream, from which the function draws what it wants."""
        state: Any = random.bit_generator.state["state"]
        return (state["counter"], state["key"])

    def at(self, weights: Weights, drawn: Drawn, level: float) -> Floats:
        """The weights that the function returns.

        Raises NoiseFileError where it fails, returns anything else than weights, or at a level's first weights returns others
        when it is called again with the same arguments.
        """
        noisy = self._called(weights, drawn, level)
        if level not in self._proved:
            differing = int((self._called(weights, drawn, level).view(np.uint32) != noisy.view(np.uint32)).sum())
            if differing:
                raise NoiseFileError(
                    f"{self._path}: {self._name} called twice with the same weights, generator and level {level:g} returned "
                    f"other weights, {differing:,} of {noisy.size:,}; take random numbers from rng alone, and keep nothing from "
                    "call to call, or no run could be repeated"
                )
            self._proved.add(level)
        return noisy

    def _called(self, weights: Weights, drawn: Drawn, level: float) -> Floats:
        function = _function(self._path, self._sha256, self._name)
        counter, key = drawn
        random = np.random.Generator(np.random.Philox(counter=counter, key=key))
        values = np.array(weights.values, np.float32, order="C")
        where = f"{self._path}: {self._name}"
        try:
            with printing_aside():
                noisy = function(values, random, level)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # else its sys.exit(0) would be the exit code of a gate that passes
            line = line_of(self._path, error)
            place = f" in line {line}" if line else ""  # none where it doesn't take the three arguments
            raise NoiseFileError(f"{where} failed{place}: {type(error).__name__}: {error}") from error
        asked = f"it must return float32 values of shape {values.shape}, those of its weights"
        if not isinstance(noisy, np.ndarray):
            raise NoiseFileError(f"{where} returned {type(noisy).__name__}, no array; {asked}")
        if noisy.shape != values.shape or noisy.dtype != np.float32:
            raise NoiseFileError(f"{where} returned {noisy.dtype} values of shape {noisy.shape}; {asked}")
        if not np.isfinite(noisy).all():
            count = int((~np.isfinite(noisy)).sum())
            raise NoiseFileError(
                f"{where} returned {count:,} values that are not finite, of {noisy.size:,}, at level {level:g}"
            )
        return np.ascontiguousarray(noisy)


@lru_cache(maxsize=16)
def _function(path: str, sha256: str, name: str) -> Callable[..., Any]:
    code = unchanged(path, sha256)
    try:
        module = module_of(path, code)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        line = line_of(path, error)
        at = f", line {line}" if line else ""
        raise NoiseFileError(f"{path}{at}: can't be run: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        there = sorted(functions_of(module))
        known = f"it has {', '.join(there[:8])}" if there else "it has none"
        raise NoiseFileError(f"{path}: has no function {name}; {known}{did_you_mean(name, there)}")
    return found  # type: ignore[no-any-return]


MODEL = Python
