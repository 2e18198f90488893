"""The optimizer's result is the same whether or not its weights fit into one message."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from support import graphs

from onnxnoise.runtime import optimizer
from onnxnoise.runtime.optimizer import normalize


def test_weights_that_do_not_fit_into_the_graph_come_from_a_file_beside_it(tmp_path: Path) -> None:
    """What happens past 2 GB of computed weights, on a small graph: the optimizer's result is the same."""
    text = """(float[N, 40] x, float[50, 40] w, float[10, 50] v) => (float[N, 10] y)
    { t = Transpose (w)  a = MatMul (x, t)  b = Relu (a)  u = Transpose (v)  y = MatMul (b, u) }"""
    stub = graphs.model(text).SerializeToString()
    inside = normalize(stub, tmp_path, "small.onnx")
    (tmp_path / "scratch").mkdir()
    beside = optimizer._optimized(stub, tmp_path, tmp_path / "scratch", beside="weights")
    large = [t.name for t in beside.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert large
    assert (tmp_path / "scratch" / "weights").stat().st_size > 4 * 50 * 40
    onnx.load_external_data_for_model(beside, str(tmp_path / "scratch"))
    assert [node.op_type for node in beside.graph.node] == [node.op_type for node in inside.graph.node]
    expected = graphs.initializers(inside)
    assert {name: value.tobytes() for name, value in graphs.initializers(beside).items()} == {
        name: value.tobytes() for name, value in expected.items()
    }


def test_a_model_too_large_for_a_message_is_saved_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first try fails as ONNX Runtime does past 2 GB; the second is the real thing."""
    real, tries = optimizer._optimized, []

    def limited(stub: bytes, folder: Path, scratch: Path, *, beside: str | None = None) -> onnx.ModelProto:
        tries.append(beside)
        if beside is None:
            raise RuntimeError("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Protobuf serialization failed.")
        return real(stub, folder, scratch, beside=beside)

    text = "(float[N, 40] x, float[50, 40] w) => (float[N, 50] y) { t = Transpose (w)  y = MatMul (x, t) }"
    stub = graphs.model(text).SerializeToString()
    expected = graphs.initializers(normalize(stub, tmp_path, "small.onnx"))
    monkeypatch.setattr(optimizer, "_optimized", limited)
    found = graphs.initializers(normalize(stub, tmp_path, "small.onnx"))
    assert tries == [None, "weights"]
    assert {name: value.tobytes() for name, value in found.items()} == {n: v.tobytes() for n, v in expected.items()}
