"""Uniform random numbers against a probability: which cells fail."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from onnxnoise.noise.base import Level

Words = npt.NDArray[np.uint32]

STEPS = 1 << 24
"""Uniform random numbers are float32 multiples of 1/2^24, from 0 to below 1."""


def probability(definition: str, hint: str, reference: str, measure: str, defaults: tuple[float, ...]) -> Level:
    """The level of a model in which something fails with a probability p: `reference` says what, `measure` how it fails."""
    return Level(
        name="p",
        title="probability",
        definition=definition,
        hint=hint,
        example=",".join(f"{each:g}" for each in defaults[:3]),
        less="smaller",
        defaults=defaults,
        search=(0.5, 1e-6),
        percent=lambda p: 100.0 * p,
        inverse="p / 100",
        reference=reference,
        limits="a number from 0 to 1",
        least=0.0,
        most=1.0,
        measure=measure,
    )


def below(p: float) -> np.float32:
    """The float32 bound under which the same uniform numbers lie as under p: p rounded up to a multiple of 1/2^24."""
    return np.float32(math.ceil(p * STEPS) / STEPS)


def uniform_words(random: np.random.Generator, shape: tuple[int, ...]) -> Words:
    """The words of which `random.random(shape, dtype=np.float32)` makes its numbers, (word >> 8) / 2^24: twice as fast."""
    count = math.prod(shape)
    raw = random.bit_generator.random_raw((count + 1) // 2)  # of 64 bits, the lower half first
    return raw.astype("<u8", copy=False).view("<u4")[:count].astype(np.uint32, copy=False).reshape(shape)


def words_below(words: Words, p: float) -> npt.NDArray[np.bool_]:
    """Whether the uniform number that each word makes lies under p."""
    bound = math.ceil(p * STEPS) << 8
    return words < np.uint32(bound) if bound < 1 << 32 else np.ones(words.shape, np.bool_)
