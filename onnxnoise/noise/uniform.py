"""Uniform random numbers against a probability: which cells fail."""

from __future__ import annotations

import math

import numpy as np

from onnxnoise.noise.base import Level

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
