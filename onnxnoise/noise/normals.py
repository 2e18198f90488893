"""The random streams of the noise, to the bit: one for each (seed, draw, layer, initializer, step)."""

from __future__ import annotations

import numpy as np


def stream(seed: int, draw: int, layer: int, role: int, step: int = 1) -> np.random.Generator:
    """The random stream of one initializer in one draw ("one chip"), independent of every other one and of any order.

    `layer` is the canonical index, `role` the initializer's k, `step` the position in the chain of noise models, from 1. The
    generator is Philox, keyed by SeedSequence(seed, spawn_key=(draw, layer, role)), from the second step on with the step's
    number as a fourth part of the key.
    """
    key = (draw, layer, role) if step == 1 else (draw, layer, role, step)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy=seed, spawn_key=key)))
