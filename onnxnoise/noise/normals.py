"""The random streams of the noise, to the bit: one for each (seed, draw, layer, initializer, step)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import permutations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

_LAYERS, _ROLES = 64, 8
"""Layers, at least, and roles of initializers whose keys are made together; a layer has at most six roles."""

_ZEROS = np.zeros(4, np.uint64)

# The constants of SeedSequence (numpy/random/bit_generator.pyx), which are O'Neill's of randutils.seed_seq_fe.
_POOL, _SHIFT, _MASK = 4, np.uint32(16), 0xFFFF_FFFF
_START_A, _TIMES_A, _START_B, _TIMES_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
_LEFT, _RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)


class _Moving(threading.local):
    """One generator for each thread, moved from stream to stream: to make one takes as long as drawing hundreds of normals."""

    def __init__(self) -> None:
        self.bits = np.random.Philox(0)
        self.generator = np.random.Generator(self.bits)


_moving = _Moving()


def stream(seed: int, draw: int, layer: int, role: int, step: int = 1) -> np.random.Generator:
    """The random stream of one initializer in one draw ("one chip"), independent of every other one and of any order.

    `layer` is the canonical index, `role` the initializer's k, `step` the position in the chain of noise models, from 1. The
    generator is Philox, keyed by SeedSequence(seed, spawn_key=(draw, layer, role)), from the second step on with the step's
    number as a fourth part of the key. It is the calling thread's only one: draw from it before the next call.
    """
    spawn_key = (draw, layer, role) if step == 1 else (draw, layer, role, step)
    if role >= _ROLES or min(seed, *spawn_key) < 0 or max(spawn_key) > _MASK:  # such words are split, or refused
        key = np.random.SeedSequence(entropy=seed, spawn_key=spawn_key).generate_state(2, np.uint64).astype(np.uint64)
    else:
        key = _keys(seed, draw, max(_LAYERS, 1 << layer.bit_length()), step)[layer, role]
    _moving.bits.state = {
        "bit_generator": "Philox",
        "state": {"counter": _ZEROS, "key": key},
        "buffer": _ZEROS,
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    return _moving.generator


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
