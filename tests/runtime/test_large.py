"""Matrices that a session uses where they lie give the same bits as copies, and only where no kernel wants a constant."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from support import graphs

from onnxnoise.runtime import session
from onnxnoise.runtime.large import LARGE_BYTES, as_inputs
from onnxnoise.runtime.providers import find_provider
from onnxnoise.runtime.session import Session, to_device, to_host

CPU = find_provider("cpu")
TEXT = """(float[4, 40] x, float[50, 40] gemm, float[50, 30] matmul, float[30, 2, 3, 3] kernel, float[7, 18] table)
=> (float[N, M] y) {
  a = Gemm <transB = 1> (x, gemm)
  b = MatMul (a, matmul)
  shape = Constant <value_ints = [4, 30, 1, 1]> ()
  c = Reshape (b, shape)
  d = ConvTranspose (c, kernel)
  rows = Constant <value_ints = [3, 0, 3, 1]> ()
  e = Gather (table, rows)
  f = Flatten (d)
  y = Add (f, e)
}"""


def external(text: str) -> tuple[bytes, dict[str, npt.NDArray[np.float32]]]:
    """(stub whose initializers are external, their values)."""
    model = graphs.model(text)
    weights = {name: value.copy() for name, value in graphs.initializers(model).items()}
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="by-reference")
    return model.SerializeToString(), weights


def test_only_matrices_of_indifferent_operators_become_inputs() -> None:
    stub, weights = external(TEXT)
    opened, large = as_inputs(stub, weights, limit=1)
    assert large == {"gemm", "matmul", "table"}
    graph = onnx.ModelProto.FromString(opened).graph
    assert [info.name for info in graph.input] == ["x", "gemm", "matmul", "table"]
    assert [tensor.name for tensor in graph.initializer] == ["kernel"]


@pytest.mark.parametrize(
    "text",
    [
        "(float[2, 3] x, float[3, 3] w) => (float[2, 3] y) { a = MatMul (x, w)  y = Add (a, w) }",
        "(float[2, 3] x, float[3, 3] w) => (float[2, 3] y, float[3, 3] w) { y = MatMul (x, w) }",
    ],
)
def test_a_matrix_with_another_use_stays_a_constant(text: str) -> None:
    stub, weights = external(text)
    assert as_inputs(stub, weights, limit=1) == (stub, frozenset())


def test_light_weights_leave_the_stub_as_it_is() -> None:
    stub, weights = external(TEXT)
    assert as_inputs(stub, weights) == (stub, frozenset())
    assert max(value.nbytes for value in weights.values()) < LARGE_BYTES


@pytest.mark.parametrize("prepacked", [False, True])
def test_logits_are_the_same_and_the_matrix_is_not_copied(monkeypatch: pytest.MonkeyPatch, prepacked: bool) -> None:
    """To the bit where nothing is prepacked; a prepacked matrix has its products summed in another order."""
    stub, weights = external(TEXT)
    feeds = {"x": to_device(graphs.image((4, 40)), CPU)}
    expected = to_host(Session(stub, weights, CPU, prepacked=prepacked).run(feeds)["y"])
    monkeypatch.setattr(session, "as_inputs", partial(as_inputs, limit=1))
    held = Session(stub, weights, CPU, prepacked=prepacked)
    assert held.inputs == ["x"]
    found = to_host(held.run(feeds)["y"])
    assert prepacked or found.tobytes() == expected.tobytes()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    weights["gemm"][:] *= 2  # it lies where the caller has it
    assert np.abs(to_host(held.run(feeds)["y"]) - expected).max() > 0.1
