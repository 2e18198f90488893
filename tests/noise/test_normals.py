from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

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


def test_a_stream_begins_anew_whatever_was_drawn_before() -> None:
    stream(40, 0, 1, 0).random(3, dtype=np.float32)
    ours, theirs = stream(40, 1, 2, 3), oracle(40, (1, 2, 3))
    assert ours.random(5, dtype=np.float32).tolist() == theirs.random(5, dtype=np.float32).tolist()
    assert str(ours.bit_generator.state) == str(theirs.bit_generator.state)


def test_threads_do_not_share_a_stream() -> None:
    def drawn(layer: int) -> bool:
        return all(
            stream(40, draw, layer, 0).standard_normal(2000).tolist()
            == oracle(40, (draw, layer, 0)).standard_normal(2000).tolist()
            for draw in range(5)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(drawn, range(8)))


def test_a_seed_that_numpy_refuses_is_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        stream(-1, 0, 1, 0)
