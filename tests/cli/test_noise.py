"""`onnxnoise noise` and `onnxnoise noise show`: each model with its formula, its source, and what it leaves out."""

from __future__ import annotations

import numpy as np
import pytest
from support.command import onnxnoise

from onnxnoise.flags import from_flags
from onnxnoise.noise import FROM_FILES, MODELS
from onnxnoise.noise.base import Weights
from onnxnoise.noise.catalogue import entries, entry
from onnxnoise.noise.models import chain_of, parse_chain
from onnxnoise.records import NoiseSetting


def test_every_model_is_listed() -> None:
    outcome = onnxnoise("noise")
    assert outcome.code == 0
    words = outcome.out.split()
    assert all(name in words for name in MODELS)
    assert "1s,1h,1d,1y" in words


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_shown_whole(name: str) -> None:
    outcome = onnxnoise("noise", "show", name)
    assert outcome.code == 0, outcome.err
    for key in ("formula", "source", "not modelled", "default levels", "level", "example"):
        assert f"\n{key}:" in outcome.out
    assert f"--noise {name}" in outcome.out


def test_parameters_and_levels_are_those_of_the_model() -> None:
    for each in entries():
        for parameter in each.parameters:
            assert parse_chain(f"{each.name}:{parameter}"), parameter
    assert entry("hermes").parameters == ("devices=2", "gmax=20.7")
    assert entry("afm").swept == "-"


@pytest.mark.parametrize("name", [name for name in MODELS if name not in FROM_FILES])
def test_scale_and_example_are_what_the_model_takes(name: str) -> None:
    said = dict(entry(name).pairs)
    chain = chain_of(NoiseSetting(parse_chain("stuck:high=1" if name == "stuck" else name)))
    w = np.random.default_rng(3).normal(0, 0.2, (20, 60)).astype(np.float32)
    drawn, level = chain.draw(40, 0, 1, 0, w.shape), chain.levels[-1]
    made = [chain.at(Weights(w, 0.2, scale), drawn, level) for scale in ("tensor", "channel")]
    assert np.array_equal(*made) == (said["scale"] == "not used")
    if chain.level.only is None:
        assert from_flags("m", noise=name, levels=said["example"].split()[-1]).swept


def test_an_unknown_model_is_a_usage_error() -> None:
    outcome = onnxnoise("noise", "show", "pcn")
    assert outcome.code == 2
    assert "did you mean pcm?" in outcome.err
