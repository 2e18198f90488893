"""What is asked for, with its defaults."""

from __future__ import annotations

import math
from typing import Any

import pytest

from onnxnoise.errors import UsageError
from onnxnoise.flags import from_flags
from onnxnoise.spec import BenchSpec
from onnxnoise.words import PAPER_SNRS


def test_defaults_are_the_paper_s_noise() -> None:
    assert from_flags("m") == BenchSpec("m")
    assert BenchSpec("m").snrs == PAPER_SNRS == (100, 10, 5, 2.5, 1.67, 1)
    assert (BenchSpec("m").seed, BenchSpec("m").bn, BenchSpec("m").sigma_scope) == (40, "group", "tensor")


@pytest.mark.parametrize("wrong", [{"snrs": ()}, {"sweeps": ()}, {"snrs": (math.nan,)}, {"bn": "x"}, {"draws": 0}])
def test_the_library_s_spec_is_checked_too(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        BenchSpec("m", **wrong)
