"""Patterns of layers."""

from __future__ import annotations

from typing import Any

import pytest

from onnxnoise.errors import UsageError
from onnxnoise.records import NoiseLayer
from onnxnoise.selection import index_ranges, select_layers


def layer(index: int, name: str, kind: Any = "conv") -> NoiseLayer:
    return NoiseLayer(index, name, kind, 1, 1.0, (), 0)


LAYERS = [
    layer(1, "conv1"),
    layer(2, "bn1", "batchnorm"),
    layer(3, "layer1.0.conv1"),
    layer(10, "layer1.0.[odd]"),
    layer(11, "norm", "dense"),
    layer(12, "norm2", "norm"),
]


@pytest.mark.parametrize(
    ("pattern", "indices"),
    [
        (None, [1, 2, 3, 10, 11, 12]),
        ("conv1", [1]),
        ("*conv1", [1, 3]),
        ("layer1.*", [3, 10]),
        ("batchnorm", [2]),
        ("3", [3]),
        ("2-10", [2, 3, 10]),
        ("11,1-2", [1, 2, 11]),
        (" 3 , bn1 ", [2, 3]),
        ("layer1.0.[odd]", [10]),
        ("norm", [12]),
        ("norm*", [11, 12]),
    ],
)
def test_patterns(pattern: str | None, indices: list[int]) -> None:
    assert [each.index for each in select_layers(LAYERS, pattern)] == indices


@pytest.mark.parametrize("pattern", ["", "conv9", "13", "4-9", "10-3", "conv1,", "recurrent", "1" * 5000])
def test_a_pattern_that_matches_nothing(pattern: str) -> None:
    with pytest.raises(UsageError, match=r"matches no layer.*onnxnoise layers.*1-12") as raised:
        select_layers(LAYERS, pattern)
    assert "batchnorm, conv, dense, norm" in str(raised.value)


@pytest.mark.parametrize(("indices", "text"), [([], ""), ([3], "3"), ([1, 2, 3, 5], "1-3,5"), ([1, 3, 4], "1,3-4")])
def test_indices_as_a_pattern(indices: list[int], text: str) -> None:
    assert index_ranges(indices) == text
