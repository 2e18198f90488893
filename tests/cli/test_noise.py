"""`onnxnoise noise` and `onnxnoise noise show`: each model with its formula, its source, and what it leaves out."""

from __future__ import annotations

import pytest
from support.command import onnxnoise

from onnxnoise.noise import MODELS
from onnxnoise.noise.catalogue import entries, entry
from onnxnoise.noise.models import parse_chain


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


def test_an_unknown_model_is_a_usage_error() -> None:
    outcome = onnxnoise("noise", "show", "pcn")
    assert outcome.code == 2
    assert "did you mean pcm?" in outcome.err
