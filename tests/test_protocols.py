"""Protocols by name: each is a spec that its flags spell out, and `onnxnoise protocols` says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.command import onnxnoise

from onnxnoise.errors import UsageError
from onnxnoise.flags import from_flags
from onnxnoise.protocols import PROTOCOLS
from onnxnoise.spec import BenchSpec
from onnxnoise.words import PAPER_SNRS

DAY, YEAR = 86400.0, 365 * 86400.0
KERNELS = {"analog": "kernels"}
SPELLED: dict[str, dict[str, Any]] = {
    "paper": {"sigma_scope": "layer", "bn": "group", "draws": 3},
    "afm": {"noise": "afm", "scale": "tile:512", **KERNELS},
    "rasch2023": {
        "noise": "pcm",
        "scale": "channel",
        "compensate": "drift",
        "levels": (1.0, 3600.0, DAY, YEAR),
        **KERNELS,
    },
    "joshi2020": {"noise": "pcm-joshi", **KERNELS},
    "crosssim": {"noise": "proportional", "levels": (0.02, 0.05, 0.1, 0.2), **KERNELS},
    "bit-errors": {"noise": "bitflip:bits=8", "levels": (1e-4, 1e-3, 1e-2), **KERNELS},
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_is_the_spec_that_its_flags_spell_out(name: str) -> None:
    assert from_flags("m", protocol=name) == replace(BenchSpec("m"), **SPELLED[name])


def test_paper_is_what_it_always_was() -> None:
    spec = from_flags("m", protocol="paper")
    assert spec.setting.flat() == {"seed": 40, "bn": "group", "sigma_scope": "layer"}
    assert spec.swept == PAPER_SNRS


def test_levels_may_be_others_and_some_flags_too() -> None:
    assert from_flags("m", protocol="rasch2023", levels="1h").swept == (3600.0,)
    assert from_flags("m", protocol="bit-errors", noise="bitflip:bits=4").noise == "bitflip:bits=4"
    with pytest.raises(UsageError, match="--protocol rasch2023 means --scale channel, but --scale tensor"):
        from_flags("m", protocol="rasch2023", scale="tensor")
    with pytest.raises(UsageError, match="bitflip:bits=8 or bitflip:bits=4"):
        from_flags("m", protocol="bit-errors", noise="bitflip:bits=2")


def test_each_is_listed_with_its_source_and_what_it_leaves_out() -> None:
    shown = onnxnoise("protocols").out
    for each in PROTOCOLS.values():
        for text in (each.name, each.flags, each.source, each.constants, each.omits, each.figures):
            assert text in shown
