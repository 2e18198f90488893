"""A session says what it runs where, never runs elsewhere, and tells why a graph can't run."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from support import graphs

from onnxnoise.errors import ModelError, ProviderError
from onnxnoise.runtime.base import Provider
from onnxnoise.runtime.providers import available_providers, find_provider
from onnxnoise.runtime.session import Session, to_device

CPU = find_provider("cpu")


def small(text: str) -> bytes:
    return graphs.model(text).SerializeToString()


def test_a_session_never_runs_on_another_provider(capfd: pytest.CaptureFixture[str]) -> None:
    """A provider that this build has and that does not work here: by itself ONNX Runtime would take the CPU."""
    there = [name for name in available_providers() if name not in ("CPUExecutionProvider", "AzureExecutionProvider")]
    stub = small("(float[2] x) => (float[2] y) { y = Relu (x) }")
    for name in there:
        try:
            find_provider(name)
        except ProviderError:
            with pytest.raises((ProviderError, ModelError)):
                Session(stub, {}, Provider(name))
    assert capfd.readouterr().out == ""


def test_a_session_says_which_provider_runs_what() -> None:
    stub = small("(float[2, 3] x, float[3, 4] w) => (float[2, 4] z) { y = MatMul (x, w)  a = Relu (y)  z = Relu (a) }")
    assert Session(stub, {}, CPU, optimized=False).placement() == {
        "CPUExecutionProvider": Counter({"Relu": 2, "MatMul": 1})
    }


def test_a_run_is_timed_after_a_warm_up() -> None:
    stub = small("(float[64, 300] x, float[300, 300] w) => (float[64, 300] y) { y = MatMul (x, w) }")
    matrix = Session(stub, {}, CPU)
    taken = matrix.seconds({"x": to_device(np.ones((64, 300), np.float32), CPU)}, runs=5)
    assert 0 < taken < 1


def test_a_graph_that_can_not_run_is_refused_with_the_reason() -> None:
    with pytest.raises(ModelError, match=r"ONNX Runtime can't run the graph: .*Nothing"):
        Session(small("(float[2] x) => (float[2] y) { y = Nothing (x) }"), {}, CPU)
    whole = Session(small("(float[N] x, float[3] w) => (float[N] y) { y = Add (x, w) }"), {}, CPU)
    with pytest.raises(ModelError, match=r"ONNX Runtime failed while running the graph: .*Add"):
        whole.run({"x": to_device(np.ones(2, np.float32), CPU)})


def test_values_can_be_written_to_a_given_place() -> None:
    double = Session(small("(float[3] x) => (float[3] y) { y = Add (x, x) }"), {}, CPU)
    place = np.zeros(3, np.float32)
    double.run({"x": to_device(np.arange(3, dtype=np.float32), CPU)}, {"y": to_device(place, CPU)})
    assert place.tolist() == [0, 2, 4]
