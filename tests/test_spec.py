"""What is asked for, with its defaults."""

from __future__ import annotations

import math
from typing import Any

import pytest

from onnxnoise.errors import UsageError
from onnxnoise.flags import from_flags
from onnxnoise.spec import BenchSpec, only_level
from onnxnoise.words import PAPER_SNRS


def test_defaults_are_the_paper_s_noise() -> None:
    assert from_flags("m") == BenchSpec("m")
    assert BenchSpec("m").swept == PAPER_SNRS == (100, 10, 5, 2.5, 1.67, 1)
    assert (BenchSpec("m").seed, BenchSpec("m").bn, BenchSpec("m").sigma_scope) == (40, "group", "tensor")


@pytest.mark.parametrize("wrong", [{"snrs": ()}, {"sweeps": ()}, {"snrs": (math.nan,)}, {"bn": "x"}, {"draws": 0}])
def test_the_library_s_spec_is_checked_too(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        BenchSpec("m", **wrong)


def test_other_noise_is_on_kernels_and_has_levels_of_its_own() -> None:
    spec = BenchSpec("m", noise="relative:range=1", scale="channel")
    assert spec.swept == (0.01, 0.02, 0.05, 0.1, 0.2)
    assert (spec.setting.chain, spec.setting.scale, spec.setting.analog) == ("relative:range=1", "channel", "kernels")
    assert BenchSpec("m").setting.analog == "all"
    assert spec.at(0.3).swept == (0.3,)
    assert only_level(BenchSpec("m", noise="relative:0.05")) == 0.05


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"noise": "relativ"}, ["--noise", "relative"]),
        ({"noise": "relative", "snrs": (10.0,)}, ["--snr", "eta", "--levels"]),
        ({"levels": (10.0,), "snrs": (10.0,)}, ["--levels", "--snr", "leave out one"]),
        ({"scale": "channel"}, ["--scale", "--sigma-scope"]),
        ({"noise": "relative", "scale": "tile:0"}, ["--scale", "tile:N"]),
        ({"noise": "relative", "levels": (-0.1,)}, ["--levels", "-0.1", "above 0"]),
        ({"analog": "some"}, ["--analog", "kernels"]),
    ],
)
def test_noise_that_is_none_is_refused(asked: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        BenchSpec("m", **asked)
    assert [word for word in words if word not in str(error.value)] == []


@pytest.mark.parametrize("levels", [None, (5.0, 2.5)])
def test_a_command_of_one_level_takes_one(levels: tuple[float, ...] | None) -> None:
    with pytest.raises(UsageError, match=r"--snr: .* takes one; write for example --snr"):
        only_level(BenchSpec("m", snrs=levels))


def test_programs_may_give_the_first_fields_without_names() -> None:
    assert BenchSpec("m", "c", "d", (5.0,), ("all",), 7, 1, "conv*", "affine") == BenchSpec(
        model="m", card="c", data="d", snrs=(5.0,), sweeps=("all",), draws=7, seed=1, layers="conv*", bn="affine"
    )
