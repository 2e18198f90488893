"""Old opsets are lifted, ONNX's own domain may be spelled out: same table and logits as in a file of today."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from support import graphs

from onnxnoise.errors import ModelError
from onnxnoise.model.network import find_layers

INPUTS = "float[N,3,8,8] x, float[16,3,6,6] w, float[16] ga, float[16] be, float[16] me, float[16] var, float[5,16] fw, float[5] fb"
TODAY = (
    f"({INPUTS}) => (float[N,5] y) {{ c = Conv(x, w)  n = BatchNormalization(c, ga, be, me, var)  h = Relu(n)"
    "  g = GlobalAveragePool(h)  f = Flatten(g)  y = Gemm<transB = 1>(f, fw, fb) }"
)
OLD = TODAY.replace("BatchNormalization(", "BatchNormalization<is_test = 1>(").replace(
    "transB = 1>", "transB = 1, broadcast = 1>"
)


def old(opset: int = 6, text: str = OLD, ir: int = 3) -> onnx.ModelProto:
    """As exporters of that time wrote it: every initializer is an input too."""
    proto = graphs.model(text, opset=opset)
    proto.ir_version = ir
    for tensor in proto.graph.initializer:
        proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return proto


def spelled(proto: onnx.ModelProto) -> onnx.ModelProto:
    proto.opset_import[0].domain = "ai.onnx"
    proto.graph.node[0].domain = "ai.onnx"
    return proto


def twice(proto: onnx.ModelProto) -> onnx.ModelProto:
    proto.opset_import.add(domain="ai.onnx", version=proto.opset_import[0].version)
    return proto


def without_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    del proto.opset_import[:]
    proto.ir_version = 1
    return proto


FILES: dict[str, Callable[[], onnx.ModelProto]] = {
    "opset 6": old,
    "opset 6, one output": lambda: old(text=OLD.replace("<is_test = 1>", "")),
    "opset 5": lambda: old(5),
    "opset 1, IR 1": lambda: without_opset(old(1)),
    "opset 7, spatial": lambda: old(7, TODAY.replace("BatchNormalization(", "BatchNormalization<spatial = 1>(")),
    "ai.onnx": lambda: spelled(graphs.model(TODAY)),
    "both spellings": lambda: twice(graphs.model(TODAY)),
}


@pytest.mark.parametrize("make", FILES.values(), ids=FILES.keys())
def test_the_same_network(make: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    today = graphs.model(TODAY)
    network, truth = (find_layers(graphs.load(proto, tmp_path)) for proto in (make(), today))
    assert graphs.members(network) == graphs.members(truth)
    assert [layer.sigma_w for layer in network.layers] == [layer.sigma_w for layer in truth.layers]
    x = graphs.image((2, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(today, x), atol=1e-5)
    assert set(network.opsets) <= {"", "com.microsoft"}


@pytest.mark.parametrize("opset", [6, 7])
def test_a_norm_of_each_pixel(opset: int, tmp_path: Path) -> None:
    switch = "is_test = 1, " if opset < 7 else ""
    text = (OLD if opset < 7 else TODAY.replace("Normalization(", "Normalization<is_test = 1>(")).replace(
        "<is_test = 1>", f"<{switch}spatial = 0>"
    )
    for name in ("ga", "be", "me", "var"):
        text = text.replace(f"float[16] {name}", f"float[16,3,3] {name}")
    proto = old(opset, text)
    network = find_layers(graphs.load(proto, tmp_path))
    assert graphs.kinds(network) == ["conv", "batchnorm", "dense"]
    assert network.layers[1].parameters == 4 * 144
    values = graphs.initializers(proto)
    x = graphs.image((2, 3, 8, 8))
    conv = np.stack(
        [
            [[[(x[n, :, i : i + 6, j : j + 6] * k).sum() for j in range(3)] for i in range(3)] for k in values["w"]]
            for n in range(2)
        ]
    )
    normed = (conv - values["me"]) / np.sqrt(values["var"] + 1e-5) * values["ga"] + values["be"]
    want = np.maximum(normed, 0).mean(axis=(2, 3)) @ values["fw"].T + values["fb"]
    np.testing.assert_allclose(graphs.logits(network, x), want, atol=1e-3)


def test_dropout_left_on_in_an_old_opset(tmp_path: Path) -> None:
    text = OLD.replace("g = GlobalAveragePool(h)", "d = Dropout(h)  g = GlobalAveragePool(d)")
    with pytest.raises(ModelError, match="Dropout 'd' drops values at random"):
        graphs.load(old(text=text), tmp_path)
    assert graphs.load(old(text=text.replace("Dropout(h)", "Dropout<is_test = 1>(h)")), tmp_path).logits == "y"


def test_what_cannot_be_converted(tmp_path: Path) -> None:
    text = OLD.replace("h = Relu(n)", "h = Affine<alpha = 2.0>(n)")
    with pytest.raises(ModelError, match=r"opset 6 is older than what ONNX Runtime runs|knows no operator"):
        graphs.load(old(text=text), tmp_path)
