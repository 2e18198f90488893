"""A network with scikit-learn's or WinML's maps behind its scores is the network without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from support import graphs

from onnxnoise.model.network import find_layers

NET = "(float[N,3,8,8] x, float[4,3,3,3] w, float[5,4] fw) => (float[N,5] y) { c = Conv(x, w)  g = GlobalAveragePool(c)  f = Flatten(g)"
PLAIN = NET + "  y = Gemm<transB = 1>(f, fw) }"


def with_map(keep_scores: bool) -> onnx.ModelProto:
    proto = graphs.model(NET + "  s = Gemm<transB = 1>(f, fw)  y = Softmax(s) }", domains=("ai.onnx.ml",))
    names = [f"class {i}" for i in range(5)]
    proto.graph.node.append(
        onnx.helper.make_node("ZipMap", ["y"], ["loss"], domain="ai.onnx.ml", classlabels_strings=names)
    )
    scores = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
    kind = onnx.helper.make_sequence_type_proto(onnx.helper.make_map_type_proto(onnx.TensorProto.STRING, scores))
    if not keep_scores:
        del proto.graph.output[:]
    proto.graph.output.append(onnx.helper.make_value_info("loss", kind))
    return proto


def test_the_scores_behind_a_map_are_the_logits(tmp_path: Path) -> None:
    plain = find_layers(graphs.load(graphs.model(PLAIN), tmp_path))
    image = graphs.image((2, 3, 8, 8))
    for keep_scores in (True, False):
        network = find_layers(graphs.load(with_map(keep_scores), tmp_path))
        assert [(layer.index, layer.kind) for layer in network.layers] == [(1, "conv"), (2, "dense")]
        np.testing.assert_allclose(graphs.logits(network, image), graphs.logits(plain, image), rtol=1e-5)
