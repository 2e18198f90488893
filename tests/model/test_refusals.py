"""Networks whose answer depends on chance or on an image's batch mates are refused, with the node and the likely cause."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from support import graphs

from onnxnoise.errors import ModelError

NET = (
    "(float[N,3,8,8] x, float[4,3,3,3] w, float[5,4] fw, float[5] fb) => (float[N,5] y)"
    " {{ c = Conv(x, w)  {}  g = GlobalAveragePool(h)  f = Flatten(g)  y = Gemm<transB = 1>(f, fw, fb) }}"
)
MASK = "one = Constant<value_float = 1.0>()  half = Constant<value_float = 0.5>()  "


def named(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model, each node with a name."""
    for node in (*proto.graph.node, *(node for function in proto.functions for node in function.node)):
        node.name = f"/block/{node.op_type}"
    return proto


def refusal(proto: onnx.ModelProto, folder: Path, **options: str) -> str:
    with pytest.raises(ModelError) as caught:
        graphs.load(proto, folder, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("operator", "body"),
    [
        ("RandomUniformLike", f"{MASK} u = RandomUniformLike(c)  v = Add(u, half)  m = Floor(v)  h = Mul(c, m)"),
        ("RandomNormalLike", "u = RandomNormalLike(c)  h = Add(c, u)"),
        ("RandomUniform", f"{MASK} u = RandomUniform<shape = [1, 4, 1, 1]>()  h = Mul(c, u)"),
        ("RandomNormal", "u = RandomNormal<shape = [4, 6, 6], seed = 1.0>()  h = Add(c, u)"),
        ("Bernoulli", "k = Constant<value = float[1,4,1,1] {0.9, 0.9, 0.9, 0.9}>()  u = Bernoulli(k)  h = Mul(c, u)"),
        ("Bernoulli", "s = Sigmoid(c)  u = Bernoulli(s)  h = Mul(c, u)"),
        (
            "Multinomial",
            "k = Constant<value = float[1,2] {0.5, 0.5}>()  u = Multinomial(k)  v = Cast<to = 1>(u)  h = Mul(c, v)",
        ),
    ],
)
def test_random_numbers(operator: str, body: str, tmp_path: Path) -> None:
    message = refusal(named(graphs.model(NET.format(body))), tmp_path)
    assert f"{operator} '/block/{operator}'" in message
    assert "stochastic depth" in message
    assert "model.eval()" in message


def test_random_numbers_in_a_function(tmp_path: Path) -> None:
    text = NET.format("h = local.drop(c)") + (
        '<domain: "local", opset_import: ["": 18]> drop (a) => (b) { u = RandomUniformLike(a)  b = Mul(a, u) }'
    )
    assert "RandomUniformLike" in refusal(named(graphs.model(text, domains=["local"])), tmp_path)


def test_random_numbers_in_a_subgraph(tmp_path: Path) -> None:
    proto = graphs.model(
        NET.format(
            "s = Shape(x)  z = Constant<value_int = 0>()  n = Gather(s, z)  k = Constant<value_int = 3>()  b = Greater(n, k)  h = Identity(c)"
        )
    )
    branches = [
        onnx.parser.parse_graph("t (float[N] o) => (float[N,4,6,6] p) { u = RandomUniformLike(c)  p = Mul(c, u) }"),
        onnx.parser.parse_graph("e (float[N] o) => (float[N,4,6,6] q) { q = Relu(c) }"),
    ]
    for branch in branches:
        del branch.input[:]
    node = next(node for node in proto.graph.node if node.op_type == "Identity")
    node.CopyFrom(onnx.helper.make_node("If", ["b"], ["h"], then_branch=branches[0], else_branch=branches[1]))
    assert "RandomUniformLike 'u'" in refusal(proto, tmp_path)


def test_random_numbers_that_the_logits_do_not_meet(tmp_path: Path) -> None:
    text = NET.format("u = RandomNormalLike(c)  r = Add(c, u)  t = GlobalMaxPool(r)  z = Flatten(t)  h = Relu(c)")
    proto = graphs.model(text.replace("=> (float[N,5] y)", "=> (float[N,5] y, float[N,4] z)"))
    assert graphs.load(proto, tmp_path, output="y").logits == "y"
    assert "RandomNormalLike" in refusal(proto, tmp_path, output="z")


@pytest.mark.parametrize("training", [1, 0])
def test_dropout_left_on(training: int, tmp_path: Path) -> None:
    text = NET.format("r = Constant<value_float = 0.5>()  h = Dropout(c, r, on)").replace(
        "float[5] fb", "float[5] fb, bool on"
    )
    proto = graphs.model(text, {"on": training})
    if training:
        assert "Dropout 'h' drops values at random" in refusal(proto, tmp_path)
    else:
        assert graphs.load(proto, tmp_path).logits == "y"
