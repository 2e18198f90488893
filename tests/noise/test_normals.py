from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxnoise.noise.normals import stream


def oracle(seed: int, spawn_key: tuple[int, ...]) -> np.random.Generator:
    """The definition: one sequence at a time."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy=seed, spawn_key=spawn_key)))


SEEDS = (0, 40, 2**32 - 1, 2**32, 2**100 + 7, 2**129 + 1, 2**200)


@pytest.mark.parametrize("seed", SEEDS)
def test_keys_made_together_are_those_of_single_sequences(seed: int) -> None:
    for draw, layer, role in itertools.product((0, 7, 2**32 - 1, 2**32), (0, 1, 63, 64, 139), (0, 5, 7, 8)):
        for step in (1, 2, 3):
            key = (draw, layer, role) if step == 1 else (draw, layer, role, step)
            ours, theirs = stream(seed, draw, layer, role, step), oracle(seed, key)
            for kind in (np.float32, np.float64):
                assert ours.standard_normal(3, dtype=kind).tolist() == theirs.standard_normal(3, dtype=kind).tolist()


def test_a_stream_has_children_as_its_sequence_has() -> None:
    ours, theirs = (each.spawn(2)[1].random(4) for each in (stream(40, 1, 2, 3), oracle(40, (1, 2, 3))))
    assert ours.tolist() == theirs.tolist()


def test_two_streams_that_are_read_in_turn_do_not_mix() -> None:
    one, other = stream(40, 0, 1, 0), stream(40, 0, 1, 1)
    turns = [(one.random(), other.random()) for _ in range(3)]
    assert turns == list(zip(oracle(40, (0, 1, 0)).random(3), oracle(40, (0, 1, 1)).random(3), strict=True))


def test_a_seed_that_numpy_refuses_is_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        stream(-1, 0, 1, 0)
