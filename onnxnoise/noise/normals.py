"""The random streams of the noise, to the bit: one for each (seed, draw, layer, initializer, step)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random.bit_generator import ISpawnableSeedSequence

Words = npt.NDArray[np.uint32]

_LAYERS, _ROLES = 64, 8
"""Layers, at least, and roles of initializers whose keys are made together; a layer has at most six roles."""

# The constants of SeedSequence (numpy/random/bit_generator.pyx), which are O'Neill's of randutils.seed_seq_fe.
_POOL, _SHIFT, _MASK = 4, np.uint32(16), 0xFFFF_FFFF
_START_A, _TIMES_A, _START_B, _TIMES_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
_LEFT, _RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)


def stream(seed: int, draw: int, layer: int, role: int, step: int = 1) -> np.random.Generator:
    """The random stream of one initializer in one draw ("one chip"), independent of every other one and of any order.

    `layer` is the canonical index, `role` the initializer's k, `step` the position in the chain of noise models, from 1. The
    generator is Philox, keyed by SeedSequence(seed, spawn_key=(draw, layer, role)), from the second step on with the step's
    number as a fourth part of the key.
    """
    spawn_key = (draw, layer, role) if step == 1 else (draw, layer, role, step)
    if role >= _ROLES or min(seed, *spawn_key) < 0 or max(spawn_key) > _MASK:  # such words are split, or refused
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy=seed, spawn_key=spawn_key)))
    keys = _keys(seed, draw, max(_LAYERS, 1 << layer.bit_length()), step)
    known: Any = _Seed(seed, spawn_key, keys[layer, role])
    return np.random.Generator(np.random.Philox(known))


class _Seed(ISpawnableSeedSequence):
    """A SeedSequence whose Philox key is known already."""

    def __init__(self, seed: int, spawn_key: tuple[int, ...], key: npt.NDArray[np.uint64]) -> None:
        self._seed, self._spawn_key, self._key = seed, spawn_key, key

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> npt.NDArray[Any]:
        if n_words == len(self._key) and dtype is self._key.dtype.type:
            return self._key
        return self._whole().generate_state(n_words, dtype)

    def spawn(self, n_children: int) -> list[Any]:
        return self._whole().spawn(n_children)

    def _whole(self) -> np.random.SeedSequence:
        return np.random.SeedSequence(entropy=self._seed, spawn_key=self._spawn_key)


@lru_cache(maxsize=64)
def _keys(seed: int, draw: int, layers: int, step: int) -> npt.NDArray[np.uint64]:
    """The Philox keys (layers, roles, 2) of one draw's streams: what SeedSequence.generate_state(2, np.uint64) gives for each.

    Made one by one, the sequences of a ResNet-20's 120 initializers take as long as its normals.
    """
    words = [seed >> shift & _MASK for shift in range(0, max(1, seed.bit_length()), 32)]
    words += [0] * (_POOL - len(words))
    layer, role = np.divmod(np.arange(layers * _ROLES, dtype=np.uint32), np.uint32(_ROLES))
    entropy = [np.full_like(layer, word) for word in (*words, draw)] + [layer, role]
    entropy += [] if step == 1 else [np.full_like(layer, step)]
    state = _hashed(_START_B, _TIMES_B)
    whole = np.stack([state(value) for value in _pool(entropy)], axis=1)
    low, high = whole[:, ::2].astype(np.uint64), whole[:, 1::2].astype(np.uint64)
    return (low | high << np.uint64(32)).reshape(layers, _ROLES, 2)


def _pool(entropy: Sequence[Words]) -> list[Words]:
    """SeedSequence.mix_entropy for many sequences at once: word i of every sequence's entropy is `entropy[i]`."""
    hashed = _hashed(_START_A, _TIMES_A)
    pool = [hashed(each) for each in entropy[:_POOL]]
    for source, target in permutations(range(_POOL), 2):
        pool[target] = _mixed(pool[target], hashed(pool[source]))
    for each in entropy[_POOL:]:
        pool = [_mixed(target, hashed(each)) for target in pool]
    return pool


def _hashed(start: int, factor: int) -> Callable[[Words], Words]:
    """SeedSequence's hash, whose constant moves on with each call."""
    constant = start

    def hashed(value: Words) -> Words:
        nonlocal constant
        value = value ^ np.uint32(constant)
        constant = constant * factor & _MASK
        value = value * np.uint32(constant)
        return value ^ (value >> _SHIFT)

    return hashed


def _mixed(one: Words, other: Words) -> Words:
    result: Words = one * _LEFT - other * _RIGHT
    return result ^ (result >> _SHIFT)
