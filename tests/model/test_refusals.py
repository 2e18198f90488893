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


STATISTICS = "a = Constant<value_ints = [0, 2, 3]>()  m = ReduceMean(c, a)  d = Sub(c, m)"
NORMED = f"{STATISTICS}  q = Mul(d, d)  v = ReduceMean(q, a)  s = Sqrt(v)  h = Div(d, s)"
FIRST = "z = Constant<value_int = 0>()  zs = Constant<value_ints = [0]>()"
MIXING: dict[str, tuple[str, str]] = {
    "a batch norm written out": (NORMED, "ReduceMean 'm'"),
    "over everything": ("m = ReduceMax(c)  h = Div(c, m)", "ReduceMax 'm'"),
    "over the images alone": (f"{FIRST}  m = ReduceSum(c, zs)  h = Sub(c, m)", "ReduceSum 'm'"),
    "behind layout": (
        f"{FIRST}  t = Transpose<perm = [1, 2, 3, 0]>(c)  l = Constant<value_ints = [-1]>()  m = ReduceMean(t, l)"
        "  u = Transpose<perm = [3, 0, 1, 2]>(m)  h = Sub(c, u)",
        "ReduceMean 'm'",
    ),
    "behind a reshape": (
        f"{FIRST}  i = Constant<value_ints = [0, 4, 36]>()  r = Reshape(c, i)  m = ReduceMax(r, zs)"
        "  j = Constant<value_ints = [1, 4, 6, 6]>()  n = Reshape(m, j)  h = Sub(c, n)",
        "ReduceMax 'm'",
    ),
    "a softmax": ("h = Softmax<axis = 0>(c)", "Softmax 'h'"),
    "a running sum": (f"{FIRST}  h = CumSum(c, z)", "CumSum 'h'"),
    "a standardization": ("h = MeanVarianceNormalization(c)", "MeanVarianceNormalization 'h'"),
    "a covariance": (
        "p = GlobalAveragePool(c)  e = Flatten(p)  t = Transpose(e)  k = MatMul(t, e)  o = MatMul(e, k)"
        "  n = Constant<value_ints = [0, 4, 1, 1]>()  h = Reshape(o, n)",
        "MatMul 'k'",
    ),
}


@pytest.mark.parametrize(("body", "node"), MIXING.values(), ids=MIXING.keys())
def test_what_mixes_the_images_of_a_batch(body: str, node: str, tmp_path: Path) -> None:
    text = NET.format(body)
    for batch in ("N", "2"):
        message = refusal(graphs.model(text.replace("[N,", f"[{batch},")), tmp_path)
        assert node.split(maxsplit=1)[0] in message
        assert "all images of a batch" in message
    assert graphs.load(graphs.model(text.replace("[N,", "[1,")), tmp_path).image.batch == 1


@pytest.mark.parametrize(
    "body",
    [
        NORMED.replace("0, 2, 3", "1, 2, 3"),
        "h = MeanVarianceNormalization<axes = [2, 3]>(c)",
        "h = Softmax<axis = 1>(c)",
        f"{FIRST}  t = Transpose<perm = [1, 0, 2, 3]>(c)  m = ReduceMean(t, zs)  u = Transpose<perm = [1, 0, 2, 3]>(m)  h = Sub(c, u)",
        "i = Constant<value_ints = [0, 4, 36]>()  r = Reshape(c, i)  t = Transpose<perm = [0, 2, 1]>(r)  a = MatMul(t, r)"
        "  b = Softmax(a)  v = MatMul(r, b)  j = Constant<value_ints = [0, 4, 6, 6]>()  h = Reshape(v, j)",
        "a = Constant<value_ints = [0]>()  s = Shape(c)  e = ReduceProd<keepdims = 0>(s, a)  k = Cast<to = 1>(e)  h = Div(c, k)",
        "g0 = InstanceNormalization(c, fb4, fb4)  h = Relu(g0)",
    ],
)
def test_what_stays_within_an_image(body: str, tmp_path: Path) -> None:
    text = NET.format(body).replace("float[4,3,3,3] w,", "float[4,3,3,3] w, float[4] fb4,")
    assert graphs.load(graphs.model(text), tmp_path).logits == "y"
