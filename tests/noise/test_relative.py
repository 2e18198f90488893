"""Relative noise against its definition in loops: w' = float32(w + eta a z), a = max|w| over tensor, channel or tile."""

from __future__ import annotations

from itertools import product
from math import ceil
from typing import Any

import numpy as np
import pytest
from support.normals import unit_normals

from onnxnoise.errors import UsageError
from onnxnoise.noise.base import Weights
from onnxnoise.noise.models import chain_of, parse_chain
from onnxnoise.records import NoiseSetting

SHAPES = [(6, 3, 3, 3), (5, 17), (4,), (1, 1)]


def group(shape: tuple[int, ...], place: tuple[int, ...], scale: str) -> Any:
    """What a value at `place` shares its largest weight with: the definition, one value at a time."""
    if scale == "tensor":
        return None
    if scale == "channel":
        return place[0]
    inputs = int(np.prod(shape[1:]))
    column = int(np.ravel_multi_index(place[1:], shape[1:])) if len(shape) > 1 else 0
    tiles = ceil(inputs / int(scale.removeprefix("tile:")))
    ends, end = [], 0
    for tile in range(tiles):
        end += inputs // tiles + (1 if tile < inputs % tiles else 0)
        ends.append(end)
    return place[0], next(tile for tile, end in enumerate(ends) if column < end)


@pytest.mark.parametrize("scale", ["tensor", "channel", "tile:4", "tile:512"])
@pytest.mark.parametrize("text", ["relative", "relative:range=1"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_noise_of_the_definition(shape: tuple[int, ...], text: str, scale: str) -> None:
    w = np.random.default_rng(1).normal(0.3, 1.0, shape).astype(np.float32)
    chain = chain_of(NoiseSetting(steps=parse_chain(text)))
    drawn = chain.draw(40, 2, 7, 0, shape)
    z = unit_normals(40, 2, 7, 0, shape)
    places = list(product(*map(range, shape)))
    groups: dict[Any, list[float]] = {}
    for place in places:
        groups.setdefault(group(shape, place, scale), []).append(float(w[place]))
    for eta in (0.05, 0.4):
        noisy = chain.at(Weights(w, 1.0, scale), drawn, eta)
        assert (noisy.dtype, noisy.shape) == (np.float32, shape)
        for place in places:
            values = groups[group(shape, place, scale)]
            a = max(map(abs, values)) if text == "relative" else max(values) - min(values)
            assert noisy[place] == np.float32(float(w[place]) + eta * a * float(z[place]))


def test_no_noise_leaves_the_weights_as_they_are() -> None:
    w = np.zeros((3, 4), np.float32)
    chain = chain_of(NoiseSetting(steps=parse_chain("relative")))
    drawn = chain.draw(40, 0, 1, 0, w.shape)
    assert chain.at(Weights(w, 0.0), drawn, 0.5).tobytes() == w.tobytes()
    assert chain.at(Weights(w + 1, 0.0), drawn, 0.0).tobytes() == (w + 1).tobytes()


def test_a_level_in_the_chain_is_the_only_one() -> None:
    chain = chain_of(NoiseSetting(steps=parse_chain("relative:0.05,range=1")))
    assert chain.levels == (0.05,)
    assert NoiseSetting(steps=parse_chain("relative:0.05,range=1")).chain == "relative:0.05,range=1"


def test_the_second_step_has_a_stream_of_its_own() -> None:
    chain = chain_of(NoiseSetting(steps=parse_chain("relative:0.05+gaussian")))
    assert chain.level.name == "SNR"
    first, second = (arrays[0] for arrays in chain.draw(40, 3, 2, 1, (50,)))
    np.testing.assert_array_equal(first, unit_normals(40, 3, 2, 1, (50,)))
    key = np.random.SeedSequence(entropy=40, spawn_key=(3, 2, 1, 2))
    np.testing.assert_array_equal(
        second, np.random.Generator(np.random.Philox(key)).standard_normal(50, dtype=np.float32)
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("relativ", "did you mean relative?"),
        ("relative:x=1", "no parameter 'x'"),
        ("gaussian:range=1", "it takes none"),
        ("relative:a", "is no parameter"),
        ("relative:0.1,0.2", "has two levels"),
        ("relative:range=2", "range=2"),
        ("relative:-1", "is no size of the noise"),
        ("relative+gaussian", "leaves the levels of relative and gaussian open"),
        ("", "is not known"),
    ],
)
def test_what_is_no_chain_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=r"--noise: ") as error:
        parse_chain(text)
    assert said in str(error.value)
