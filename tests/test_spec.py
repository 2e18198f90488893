from __future__ import annotations

import math
from typing import Any

import pytest

from onnxnoise.errors import UsageError
from onnxnoise.noise.gaussian import PAPER_SNRS
from onnxnoise.records import NoiseLayer
from onnxnoise.spec import BenchSpec, from_flags, select_layers


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


def test_defaults_are_the_paper_s_noise() -> None:
    assert from_flags("m") == BenchSpec("m")
    assert BenchSpec("m").swept == PAPER_SNRS == (100, 10, 5, 2.5, 1.67, 1)
    assert (BenchSpec("m").seed, BenchSpec("m").bn, BenchSpec("m").sigma_scope) == (40, "group", "tensor")


def test_flags_become_a_spec() -> None:
    spec = from_flags(
        "m",
        card="c",
        snrs="100, 1e1,inf",
        sweeps="all,single",
        draws="7",
        seed="0",
        limit="12",
        bn="affine",
        metric="top5",
    )
    assert spec == BenchSpec("m", "c", snrs=(100, 10, math.inf), draws=7, seed=0, limit=12, bn="affine", metric="top5")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, ("tensor", "group")),
        ({"protocol": "paper"}, ("layer", "group")),
        ({"protocol": "paper", "bn": "group", "sigma_scope": "layer"}, ("layer", "group")),
    ],
)
def test_protocol(flags: dict[str, str], expected: tuple[str, str]) -> None:
    spec = from_flags("m", **flags)
    assert (spec.sigma_scope, spec.bn, spec.swept) == (*expected, PAPER_SNRS)


def test_protocol_takes_fewer_snrs() -> None:
    assert from_flags("m", protocol="paper", snrs="10").snrs == (10,)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"snrs": "0"}, ["--snr", "0", "above 0"]),
        ({"snrs": "-5"}, ["--snr", "-5", "above 0"]),
        ({"snrs": "nan"}, ["--snr", "nan", "above 0"]),
        ({"snrs": "1e-400"}, ["--snr", "above 0"]),
        ({"snrs": "abc"}, ["--snr", "'abc'", "--snr 100,10,5"]),
        ({"snrs": ""}, ["--snr", "''", "--snr 100,10,5"]),
        ({"snrs": "10,"}, ["--snr", "''"]),
        ({"snrs": "10,10.0"}, ["--snr", "10.0", "twice"]),
        ({"sweeps": "double"}, ["--sweep", "'double'", "single, cumulative, all"]),
        ({"sweeps": ""}, ["--sweep", "''", "single, cumulative, all"]),
        ({"sweeps": "all,all"}, ["--sweep", "all", "twice"]),
        ({"draws": "abc"}, ["--draws", "'abc'", "whole number"]),
        ({"draws": "2.5"}, ["--draws", "'2.5'", "whole number"]),
        ({"draws": "0"}, ["--draws", "0", "from 1"]),
        ({"draws": "9" * 5000}, ["--draws", "999", "..."]),
        ({"seed": "-1"}, ["--seed", "-1", "from 0"]),
        ({"limit": "-1"}, ["--limit", "-1", "from 1"]),
        ({"limit": "0"}, ["--limit", "0", "from 1"]),
        ({"bn": "none"}, ["--bn", "'none'", "group, raw, affine, fold, clean"]),
        ({"sigma_scope": "model"}, ["--sigma-scope", "'model'", "tensor, layer"]),
        ({"metric": "top3"}, ["--metric", "'top3'", "top1, top5"]),
        ({"protocol": "mine"}, ["--protocol", "'mine'", "paper"]),
        ({"protocol": "paper", "bn": "raw"}, ["--protocol paper", "--bn group", "--bn raw", "leave out"]),
        ({"protocol": "paper", "sigma_scope": "tensor"}, ["--sigma-scope layer", "--sigma-scope tensor"]),
    ],
)
def test_values_that_no_run_could_use(flags: dict[str, str], words: list[str]) -> None:
    with pytest.raises(UsageError) as raised:
        from_flags("m", **flags)
    message = str(raised.value)
    assert all(word in message for word in words), message
    assert len(message) < 200


@pytest.mark.parametrize("wrong", [{"snrs": ()}, {"sweeps": ()}, {"snrs": (math.nan,)}, {"bn": "x"}, {"draws": 0}])
def test_the_library_s_spec_is_checked_too(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        BenchSpec("m", **wrong)


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
