from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import graphs

from onnxnoise.model.network import Network, find_layers
from onnxnoise.model.spread import pooled_sigma

HEAD = "g = GlobalAveragePool(h)  f = Flatten(g)  y = Gemm<transB = 1>(f, fw, fb)"


def net(inputs: str, body: str, tail: str = HEAD) -> str:
    more = f", {inputs}" if inputs else ""
    return (
        f"(float[N,3,8,8] x, float[4,3,3,3] w{more}, float[5,4] fw, float[5] fb) => (float[N,5] y) {{ {body}  {tail} }}"
    )


def found(text: str, folder: Path, values: dict[str, Any] | None = None, **options: Any) -> Network:
    """The network's layers; its logits are those of the file."""
    proto = graphs.model(text, values, **options)
    classifier = graphs.load(proto, folder)
    network = find_layers(classifier)
    x = np.abs(graphs.image(classifier.image.shape))
    want = graphs.run(proto, x)
    np.testing.assert_allclose(graphs.logits(network, x), want.reshape(len(want), -1), atol=1e-4)
    return network


def middle(network: Network) -> list[tuple[str, dict[int, str]]]:
    """(kind, role to initializer) of the layers between the first convolution and the last dense layer."""
    layers = graphs.members(network)
    assert layers[0] == ("conv", {0: "w"})
    assert layers[-1] == ("dense", {0: "fw", 1: "fb"})
    return layers[1:-1]


V, C = "float[4]", "float[4,1,1]"  # per channel: a vector, and as it meets (N, channels, height, width)
LAST = "float[6]"  # per column of (N, channels, 6, 6)
MEAN = "axis = Constant<value_ints = [-1]>()  m = ReduceMean(c, axis)  d = Sub(c, m)  q = Mul(d, d)  v = ReduceMean(q, axis)"
STD = f"{MEAN}  eps = Constant<value_float = 0.001>()  e = Add(v, eps)  s = Sqrt(e)"
TO_TOKENS = "i = Constant<value_ints = [0, 4, 36]>()  r = Reshape(c, i)  t = Transpose<perm = [0, 2, 1]>(r)"
MORE_THAN_THREE_IMAGES = (
    "s = Shape(x)  i = Constant<value_int = 0>()  n = Gather(s, i)  j = Constant<value_int = 3>()  b = Greater(n, j)"
)
FROM_TOKENS = "u = Transpose<perm = [0, 2, 1]>(o)  j = Constant<value_ints = [0, 4, 6, 6]>()  h = Reshape(u, j)"

RULES: dict[str, tuple[str, str, list[tuple[str, dict[int, str]]]]] = {
    # operators
    "transposed convolution": ("float[4,2,2,2] k, float[4] b", "c = Conv(x, w)  h = ConvTranspose<group = 2>(c, k, b)", [("conv", {0: "k", 1: "b"})]),
    "batch norm": (f"{V} ga, {V} be, {V} me, {V} var", "c = Conv(x, w)  h = BatchNormalization(c, ga, be, me, var)", [("batchnorm", {0: "ga", 1: "be", 2: "me", 3: "var"})]),
    "layer norm": (f"{LAST} ga, {LAST} be", "c = Conv(x, w)  h = LayerNormalization(c, ga, be)", [("norm", {0: "ga", 1: "be"})]),
    "layer norm without bias": (f"{LAST} ga", "c = Conv(x, w)  h = LayerNormalization(c, ga)", [("norm", {0: "ga"})]),
    "instance norm": (f"{V} ga, {V} be", "c = Conv(x, w)  h = InstanceNormalization(c, ga, be)", [("norm", {0: "ga", 1: "be"})]),
    "prelu": (f"{C} s", "c = Conv(x, w)  h = PRelu(c, s)", [("scale", {0: "s"})]),
    "fused convolution": ("float[4,4,1,1] k, float[4] b", 'c = Conv(x, w)  h = com.microsoft.FusedConv<activation = "Relu">(c, k, b)', [("conv", {0: "k", 1: "b"})]),
    # decomposed batch norms of three and two tensors
    "mul, add": (f"{C} a, {C} b", "c = Conv(x, w)  r = Relu(c)  m = Mul(r, a)  h = Add(m, b)", [("batchnorm", {0: "a", 1: "b"})]),
    "mul, add, constants first": (f"{C} a, float[1,4,1,1] b", "c = Conv(x, w)  r = Relu(c)  m = Mul(a, r)  h = Add(b, m)", [("batchnorm", {0: "a", 1: "b"})]),
    "div, sub": (f"{C} vara, {C} b", "c = Conv(x, w)  r = Relu(c)  m = Div(r, vara)  h = Sub(m, b)", [("batchnorm", {0: "vara", 1: "b"})]),
    "sub, mul, add": (f"{C} m, {C} a, {C} b", "c = Conv(x, w)  r = Relu(c)  d = Sub(r, m)  e = Mul(d, a)  h = Add(e, b)", [("batchnorm", {2: "m", 0: "a", 1: "b"})]),
    "sub, div, sub": (f"{C} m, {C} vara, {C} b", "c = Conv(x, w)  r = Relu(c)  d = Sub(r, m)  e = Div(d, vara)  h = Sub(e, b)", [("batchnorm", {2: "m", 0: "vara", 1: "b"})]),
    "behind a pooling": (f"{V} a, {V} b", "c = Conv(x, w)  r = Relu(c)  n = Constant<value_ints = [2, 3]>()  p = ReduceMean<keepdims = 0>(r, n)  m = Mul(p, a)  q = Add(m, b)  i = Constant<value_ints = [0, 4, 1, 1]>()  h = Reshape(q, i)", [("batchnorm", {0: "a", 1: "b"})]),
    "mul with two uses": (f"{C} a, {C} b", "c = Conv(x, w)  m = Mul(c, a)  n = Add(m, b)  h = Mul(n, m)", [("scale", {0: "a"}), ("parameter", {0: "b"})]),
    "constant minus data": (f"{C} a, {C} b", "c = Conv(x, w)  m = Mul(c, a)  h = Sub(b, m)", [("scale", {0: "a"}), ("parameter", {0: "b"})]),
    "constant over data": (f"{C} a, {C} b", "c = Conv(x, w)  e = Exp(c)  m = Div(a, e)  h = Add(m, b)", [("parameter", {0: "a"}), ("parameter", {0: "b"})]),
    "sub without mul": (f"{C} m", "c = Conv(x, w)  r = Relu(c)  h = Sub(r, m)", [("parameter", {0: "m"})]),
    # scale
    "mul alone": (f"{C} a", "c = Conv(x, w)  h = Mul(c, a)", [("scale", {0: "a"})]),
    "layer scale": (f"float[4,4,1,1] k, {C} a", "c = Conv(x, w)  d = Conv(c, k)  m = Mul(a, d)  h = Add(c, m)", [("conv", {0: "k"}), ("scale", {0: "a"})]),
    # Caffe's second scale and bias
    "caffe scale and bias": (f"{V} ga, {V} be, {V} me, {V} var, {C} cs, {C} cb", "c = Conv(x, w)  n = BatchNormalization(c, ga, be, me, var)  m = Mul(n, cs)  h = Add(m, cb)", [("batchnorm", {0: "ga", 1: "be", 2: "me", 3: "var", 4: "cs", 5: "cb"})]),
    "caffe scale": (f"{V} ga, {V} be, {V} me, {V} var, {C} cs", "c = Conv(x, w)  n = BatchNormalization(c, ga, be, me, var)  m = Mul(cs, n)  h = Relu(m)", [("batchnorm", {0: "ga", 1: "be", 2: "me", 3: "var", 4: "cs"})]),
    "caffe bias": (f"{V} ga, {V} be, {V} me, {V} var, {C} cb", "c = Conv(x, w)  n = BatchNormalization(c, ga, be, me, var)  h = Add(n, cb)", [("batchnorm", {0: "ga", 1: "be", 2: "me", 3: "var", 5: "cb"})]),
    "a matrix behind a batch norm": (f"{V} ga, {V} be, {V} me, {V} var, float[6,6] p", "c = Conv(x, w)  n = BatchNormalization(c, ga, be, me, var)  h = Add(n, p)", [("batchnorm", {0: "ga", 1: "be", 2: "me", 3: "var"}), ("parameter", {0: "p"})]),
    # norms around a core
    "torch's group norm": (f"float[2] one, float[2] zero, {C} ga, {C} be", "c = Conv(x, w)  i = Constant<value_ints = [0, 2, -1]>()  r = Reshape(c, i)  n = InstanceNormalization(r, one, zero)  s = Shape(c)  q = Reshape(n, s)  m = Mul(q, ga)  h = Add(m, be)", [("norm", {0: "ga", 1: "be"})]),
    "decomposed layer norm": (f"{LAST} ga, {LAST} be", f"c = Conv(x, w)  {STD}  n = Div(d, s)  p = Mul(n, ga)  h = Add(p, be)", [("norm", {0: "ga", 1: "be"})]),
    "Keras 3 layer norm": (f"{LAST} ga, {LAST} be", f"c = Conv(x, w)  {STD}  r = Reciprocal(s)  a = Mul(r, ga)  p = Mul(c, a)  n = Neg(m)  o = Mul(n, a)  t = Add(o, be)  h = Add(p, t)", [("norm", {0: "ga", 1: "be"})]),
    "Keras' layer norm from JAX": (f"{LAST} ga, {LAST} be", f"c = Conv(x, w)  {STD.replace('e = Add(v, eps)', 'nil = Constant<value_float = 0.0>()  ok = Greater(v, nil)  k = Where(ok, v, nil)  e = Add(k, eps)')}  a = Div(ga, s)  p = Mul(c, a)  n = Neg(m)  o = Mul(n, a)  t = Add(o, be)  h = Add(p, t)", [("norm", {0: "ga", 1: "be"})]),
    "root mean square norm": (f"{LAST} ga", "c = Conv(x, w)  axis = Constant<value_ints = [-1]>()  q = Mul(c, c)  v = ReduceMean(q, axis)  eps = Constant<value_float = 0.001>()  e = Add(v, eps)  s = Sqrt(e)  n = Div(c, s)  h = Mul(n, ga)", [("norm", {0: "ga"})]),
    "tf.keras 2 layer norm": ("float[6] ga, float[6] be", "c = Conv(x, w)  i = Constant<value_ints = [1, -1, 6, 1]>()  r = Reshape(c, i)  axis = Constant<value_ints = [2, 3]>()  m = ReduceMean<keepdims = 0>(r, axis)  k = ReduceMean(r, axis)  d = Sub(r, k)  q = Mul(d, d)  v = ReduceMean<keepdims = 0>(q, axis)  flat = Constant<value_ints = [-1]>()  m1 = Reshape(m, flat)  v1 = Reshape(v, flat)  n = Shape(m1)  one = Constant<value_float = 1.0>()  zero = Constant<value_float = 0.0>()  ones = Expand(one, n)  zeros = Expand(zero, n)  b = BatchNormalization<epsilon = 0.001>(r, ones, zeros, m1, v1)  s = Shape(c)  p = Reshape(b, s)  o = Mul(p, ga)  h = Add(o, be)", [("norm", {0: "ga", 1: "be"})]),
    "a quantized layer norm": (f"{LAST} ga, {LAST} be, float step, int8 z", f"c = Conv(x, w)  {STD}  n = Div(d, s)  p = Mul(n, ga)  q1 = QuantizeLinear(p, step, z)  e1 = DequantizeLinear(q1, step, z)  h = Add(e1, be)", [("norm", {0: "ga", 1: "be"})]),
    # biases that stayed an Add
    "bias on rank 3": ("float[4,4] k, float[4] b", f"c = Conv(x, w)  {TO_TOKENS}  p = MatMul(t, k)  o = Add(p, b)  {FROM_TOKENS}", [("dense", {0: "k", 1: "b"})]),
    "bias on rank 3, constant first": ("float[4,4] k, float[4] b", f"c = Conv(x, w)  {TO_TOKENS}  p = MatMul(t, k)  o = Add(b, p)  {FROM_TOKENS}", [("dense", {0: "k", 1: "b"})]),
    "bias behind layout": ("float[4,4,1,1] k, float[1,1,1,4] b", "c = Conv(x, w)  d = Conv(c, k)  t = Transpose<perm = [0, 2, 3, 1]>(d)  e = Add(t, b)  r = Relu(e)  h = Transpose<perm = [0, 3, 1, 2]>(r)", [("conv", {0: "k", 1: "b"})]),
    "bias behind quantization": (f"float[4,4,1,1] k, {C} b, float step, int8 z", "c = Conv(x, w)  d = Conv(c, k)  q = QuantizeLinear(d, step, z)  e = DequantizeLinear(q, step, z)  h = Add(b, e)", [("conv", {0: "k", 1: "b"})]),
    "bias behind a transposed convolution": (f"float[4,4,2,2] k, {C} b", "c = Conv(x, w)  d = ConvTranspose(c, k)  h = Add(d, b)", [("conv", {0: "k", 1: "b"})]),
    "int8 weights, cast and scaled": ("int8[4,4,1,1] q, float[4,1,1,1] step, int8[4,1,1] p8, float a", "c = Conv(x, w)  f0 = Cast<to = 1>(q)  k = Mul(f0, step)  d = Conv(c, k)  r = Relu(d)  e = Cast<to = 1>(p8)  s = Mul(e, a)  h = Add(r, s)", [("conv", {0: "k"}), ("parameter", {0: "p8"})]),
    "a bias and one more constant": (f"float[4,4,1,1] k, float[4] b, {C} p", "c = Conv(x, w)  d = Conv(c, k, b)  r = Relu(d)  h = Add(r, p)", [("conv", {0: "k", 1: "b"}), ("parameter", {0: "p"})]),
    "a row that is no bias": ("float[6,4,1,1] k, float[4,6,1,1] l, float[6] p", "c = Conv(x, w)  d = Conv(c, k)  e = Add(d, p)  h = Conv(e, l)", [("conv", {0: "k"}), ("parameter", {0: "p"}), ("conv", {0: "l"})]),
    "dense without bias": ("float[4,4] k", f"c = Conv(x, w)  {TO_TOKENS}  p = MatMul(t, k)  o = Relu(p)  {FROM_TOKENS}", [("dense", {0: "k"})]),
    "a vector as dense layer": ("float[6] k", "c = Conv(x, w)  d = MatMul(c, k)  axis = Constant<value_ints = [3]>()  h = Unsqueeze(d, axis)", [("dense", {0: "k"})]),
    # parameters
    "position table": ("float[1,36,4] p", f"c = Conv(x, w)  {TO_TOKENS}  o = Add(t, p)  {FROM_TOKENS}", [("parameter", {0: "p"})]),
    "constant in a Concat": ("float[1,1,6,6] p, float[4,5,1,1] k", "c = Conv(x, w)  n = Constant<value_ints = [2, 1, 1, 1]>()  q = Tile(p, n)  d = Concat<axis = 1>(c, q)  h = Conv(d, k)", [("parameter", {0: "p"}), ("conv", {0: "k"})]),
    # no noise
    "average pooling": ("float[4,1,2,2] ones", "c = Conv(x, w)  h = Conv<group = 4>(c, ones)", []),
    "average pooling of quarters": ("float[4,1,2,2] quarters", "c = Conv(x, w)  h = Conv<group = 4>(c, quarters)", []),
    "zeros beside": ("float[1,2,6,6] zero, float[4,6,1,1] k", "c = Conv(x, w)  n = Constant<value_ints = [2, 1, 1, 1]>()  q = Tile(zero, n)  d = Concat<axis = 1>(c, q)  h = Conv(d, k)", [("conv", {0: "k"})]),
    "zeros added": ("float[1,4,6,6] zero, float[6,6] twice", "c = Conv(x, w)  r = Relu(c)  d = Add(r, zero)  h = Add(d, twice)", []),
    "a filled kernel that is no pooling": ("float[4,4,1,1] quarters", "c = Conv(x, w)  h = Conv(c, quarters)", [("conv", {0: "quarters"})]),
    "a filled bias": ("float[4,4,1,1] k, float[4] twice", "c = Conv(x, w)  h = Conv(c, k, twice)", [("conv", {0: "k", 1: "twice"})]),
    "a blur": ("float[4,1,2,2] blur", "c = Conv(x, w)  h = Conv<group = 4>(c, blur)", [("conv", {0: "blur"})]),
    "a scalar": ("float a", "c = Conv(x, w)  h = Mul(c, a)", []),
    "a mask made of scalars": ("int64[4] n", "c = Conv(x, w)  z = ConstantOfShape<value = float[1] {0.0}>(n)  k = Constant<value_float = -5.0>()  p = Add(z, k)  h = Add(c, p)", []),
    "an attention mask": ("float[6,6] mask, float[6,6] upper", "c = Conv(x, w)  a = Add(c, mask)  b = Softmax(a)  d = Add(upper, b)  h = Softmax(d)", []),
    "clip bounds": ("float lo, float hi", "c = Conv(x, w)  h = Clip(c, lo, hi)", []),
    "scales of a resize": ("float[4] scales", "c = Conv(x, w)  h = Resize(c, , scales)", []),
    "sizes computed in float": ("float[2] two, float[2] twice", "c = Conv(x, w)  s = Shape(c)  a = Constant<value_ints = [2]>()  b = Constant<value_ints = [4]>()  n = Slice(s, a, b)  q = Cast<to = 1>(n)  u = Mul(q, twice)  o = Div(u, q)  k = Concat<axis = 0>(two, o)  h = Resize(c, , k)", []),
}  # fmt: skip
"""Initializers, nodes, and the layers (kind, role to initializer) that they make between `w` and the head."""

VALUES = {
    "q": np.arange(16), "p8": [1, 2, 3, 4], "ones": 1, "one": 1, "zero": 0, "step": 0.05, "z": 0, "lo": -1, "hi": 1, "n": [1, 4, 6, 6],
    "scales": [1, 1, 2, 2], "two": 1, "twice": 2, "quarters": 0.25, "blur": np.tile([1, 2, 3, 4], 4),
    "mask": np.triu(np.full((6, 6), -100.0), 1), "upper": np.triu(np.full((6, 6), -np.inf), 1),
}  # fmt: skip


@pytest.mark.parametrize(("inputs", "body", "layers"), RULES.values(), ids=RULES.keys())
def test_rules(inputs: str, body: str, layers: list[tuple[str, dict[int, str]]], tmp_path: Path) -> None:
    names = {each.split()[-1] for each in inputs.split(", ")}
    values = {name: value for name, value in VALUES.items() if name in names}
    domains = ["com.microsoft"] if "com.microsoft" in body else []
    network = found(net(inputs, body), tmp_path, values, domains=domains)
    assert middle(network) == layers
    assert not [notice for notice in network.notices if notice.code == "unattached"]
    assert [layer.index for layer in network.layers] == list(range(1, len(layers) + 3))


@pytest.mark.parametrize("values", [{}, {"token": 0}], ids=["trained", "before training"])
def test_class_token_and_position_table(values: dict[str, Any], tmp_path: Path) -> None:
    body = (
        f"c = Conv(x, w)  {TO_TOKENS}  n = Shape(x)  a = Constant<value_ints = [0]>()  b = Constant<value_ints = [1]>()"
        "  k = Slice(n, a, b)  s = Concat<axis = 0>(k, b, b)  e = Expand(token, s)  o = Concat<axis = 1>(e, t)"
        "  p = Add(o, table)  first = Constant<value_int = 0>()  f = Gather<axis = 1>(p, first)"
    )
    tail = "y = Gemm<transB = 1>(f, fw, fb)"
    network = found(net("float[1,1,4] token, float[1,37,4] table", body, tail), tmp_path, values)
    assert middle(network) == [("parameter", {0: "token"}), ("parameter", {0: "table"})]
    token = network.layers[1]
    assert [node.op_type for node in network.nodes[token.start : token.start + 2]] == ["Expand", "Concat"]


@pytest.mark.parametrize(
    "before",
    ["p = Sub(x, m)  i = Div(p, s)", "p = Mul(s, x)  i = Add(m, p)", "q = Div(x, s)  i = Sub(q, m)"],
)
def test_preprocessing_is_no_layer(before: str, tmp_path: Path) -> None:
    network = found(net("float[1,3,1,1] m, float[3,1,1] s", f"{before}  h = Conv(i, w)"), tmp_path)
    assert middle(network) == []
    assert not [notice for notice in network.notices if notice.code == "unattached"]


@pytest.mark.parametrize(
    ("node", "roles"),
    [
        ("ys, yh, yc = LSTM<hidden_size = 4>(t, k, rec, b)", {0: "k", 1: "rec", 2: "b"}),
        ("ys, yh = GRU<hidden_size = 4>(t, k, rec, b)", {0: "k", 1: "rec", 2: "b"}),
        ("ys, yh = RNN<hidden_size = 4>(t, k, rec, b)", {0: "k", 1: "rec", 2: "b"}),
        ("ys, yh = RNN<hidden_size = 4>(t, k, rec)", {0: "k", 1: "rec"}),
        ("ys, yh = GRU<hidden_size = 4>(t, k, rec, b, , zero)", {0: "k", 1: "rec", 2: "b"}),
    ],
)
def test_recurrent(node: str, roles: dict[int, str], tmp_path: Path) -> None:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[node.split("= ")[1].split("<", maxsplit=1)[0]]
    inputs = f"float[1,{4 * gates},4] k, float[1,{4 * gates},4] rec, float[1,{8 * gates}] b, float[1,2,4] zero"
    body = f"c = Conv(x, w)  {TO_TOKENS.replace('[0, 2, 1]', '[2, 0, 1]')}  {node}  z = Constant<value_ints = [0]>()  f = Squeeze(yh, z)"
    text = net(inputs, body, "y = Gemm<transB = 1>(f, fw, fb)")
    network = found(text.replace("float[N,", "float[2,") if "zero)" in node else text, tmp_path, {"zero": 0})
    assert middle(network) == [("recurrent", roles)]
    assert not [notice for notice in network.notices if notice.code == "unattached"]


def test_embedding(tmp_path: Path) -> None:
    text = (
        "(float[N,1,2,2] x, float[7,4] table, float[5,4] fw, float[5] fb) => (float[N,5] y) {"
        " i = Cast<to = 7>(x)  e = Gather(table, i)  axes = Constant<value_ints = [1, 2, 3]>()"
        " f = ReduceMean<keepdims = 0>(e, axes)  y = Gemm<transB = 1>(f, fw, fb) }"
    )
    assert graphs.members(found(text, tmp_path)) == [("embedding", {0: "table"}), ("dense", {0: "fw", 1: "fb"})]


# -- dense layers: whichever side and storage, drawn as (out, in)


DENSE = {
    "Gemm": ("float[3,4] k, float[4] b", "o = Gemm(a, k, b)", (4, 3), True),
    "Gemm, transB": ("float[4,3] k, float[4] b", "o = Gemm<transB = 1>(a, k, b)", (4, 3), False),
    "MatMul and Add": ("float[3,4] k, float[4] b", "p = MatMul(a, k)  o = Add(b, p)", (4, 3), True),
    "constant on the left": ("float[4,3] k, float[4,1] b", "p = MatMul(k, ta)  q = Add(p, b)  o = Transpose<perm = [1, 0]>(q)", (4, 3), False),
    "left, transA": ("float[3,4] k, float[4,1] b", "q = Gemm<transA = 1>(k, ta, b)  o = Transpose<perm = [1, 0]>(q)", (4, 3), True),
    "fused by ONNX Runtime": ("float[3,4] k, float[4] b", 'o = com.microsoft.FusedGemm<activation = "Relu">(a, k, b)', (4, 3), True),
    "a batch of one": ("float[1,3,4] k, float[4] b", "z = Constant<value_ints = [0]>()  u = Unsqueeze(a, z)  p = MatMul(u, k)  q = Add(p, b)  o = Squeeze(q, z)", (4, 3), True),
}  # fmt: skip


@pytest.mark.parametrize(("inputs", "body", "shape", "transposed"), DENSE.values(), ids=DENSE.keys())
def test_dense(inputs: str, body: str, shape: tuple[int, ...], transposed: bool, tmp_path: Path) -> None:
    text = (
        f"(float[2,3,4,4] x, {inputs}) => (float[2,4] y) {{ g = GlobalAveragePool(x)  a = Flatten(g)"
        f" ta = Transpose<perm = [1, 0]>(a)  {body}  y = Relu(o) }}"
    )
    network = found(text, tmp_path, domains=["com.microsoft"] if "com.microsoft" in body else [])
    assert graphs.members(network) == [("dense", {0: "k", 1: "b"})]
    kernel, bias = network.layers[0].tensors
    assert (kernel.shape, kernel.transposed) == (shape, transposed)
    assert (bias.shape, bias.transposed) == ((4,), False)


def test_a_token_stored_for_each_image_of_a_fixed_batch_is_one(tmp_path: Path) -> None:
    body = f"c = Conv(x, w)  {TO_TOKENS}  o = Concat<axis = 1>(token, t)  p = Add(o, table)  first = Constant<value_int = 0>()  f = Gather<axis = 1>(p, first)"
    text = net("float[2,1,4] token, float[2,37,4] table", body, "y = Gemm<transB = 1>(f, fw, fb)").replace("[N,", "[2,")
    token, table = (np.random.default_rng(k).normal(size=(1, n, 4)).repeat(2, 0) for k, n in ((0, 1), (1, 37)))
    network = found(text, tmp_path, {"token": token, "table": table})
    assert middle(network) == [("parameter", {0: "token"}), ("parameter", {0: "table"})]
    assert [layer.parameters for layer in network.layers[1:3]] == [4, 148]
    assert network.layers[1].tensors[0].shape == (1, 1, 4)
    token[1] += 1
    assert found(text, tmp_path, {"token": token, "table": table}).layers[1].parameters == 8


def test_a_matrix_that_became_a_gemms_c_is_a_parameter(tmp_path: Path) -> None:
    text = (
        "(float[1,1,6,3] x, float[3,4] k, float[6,4] table, float[5,24] fw, float[5] fb) => (float[1,5] y) {"
        " s = Constant<value_ints = [6, 3]>()  a = Reshape(x, s)  m = MatMul(a, k)  o = Add(m, table)"
        " t = Constant<value_ints = [1, 24]>()  f = Reshape(o, t)  y = Gemm<transB = 1>(f, fw, fb) }"
    )
    network = found(text, tmp_path)
    assert [node.op_type for node in network.nodes if len(node.input) == 3] == ["Gemm", "Gemm"]
    assert graphs.members(network)[:2] == [("dense", {0: "k"}), ("parameter", {0: "table"})]
    assert network.layers[0].start == network.layers[1].start


# -- shared initializers


def test_a_shared_initializer_is_copied_for_each_layer_and_role(tmp_path: Path) -> None:
    body = "c = Conv(x, w)  d = Conv(c, k)  n = BatchNormalization(d, v, v, v, v)  r = Relu(n)  h = Conv(r, k, v)"
    network = found(net("float[4,4,1,1] k, float[4] v", body), tmp_path, {"v": [1, 2, 3, 4]})
    assert middle(network) == [
        ("conv", {0: "k"}),
        ("batchnorm", {0: "v", 1: "v", 2: "v", 3: "v"}),
        ("conv", {0: "k", 1: "v"}),
    ]
    values = [tensor.value for layer in network.layers for tensor in layer.tensors]
    assert len(set(values)) == len(values)
    reads = [name for node in network.nodes for name in node.input]
    assert all(reads.count(value) == 1 for value in values)
    assert [notice.code for notice in network.notices] == ["tied_kernels"]


def test_a_copys_name_is_never_taken(tmp_path: Path) -> None:
    body = "c = Conv(x, w)  d = Conv(c, k)  e = Conv(d, k)  h = Conv(e, taken)"
    proto = graphs.model(net("float[4,4,1,1] k, float[4,4,1,1] taken", body))
    for holder in (proto.graph.initializer, *(node.input for node in proto.graph.node)):
        for at, each in enumerate(holder):
            if each == "taken":
                holder[at] = "k@2.0"
            elif getattr(each, "name", None) == "taken":
                each.name = "k@2.0"
    network = find_layers(graphs.load(proto, tmp_path))
    values = [tensor.value for layer in network.layers for tensor in layer.tensors]
    assert len(set(values)) == len(values)
    x = graphs.image((2, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=1e-5)


def test_light_models_fill_their_weights(tmp_path: Path) -> None:
    text = net(
        "int64[4] n, float[4,1,1] b",
        "k = ConstantOfShape<value = float[1] {0.02}>(n)  c = Conv(x, w)  d = Conv(c, k)  h = Add(d, b)",
    )
    network = found(text, tmp_path, {"n": [4, 4, 1, 1]})
    assert middle(network)[0][0] == "conv"
    assert network.layers[1].parameters == 20
    assert network.layers[1].tensors[0].sigma_w == 0


def test_sigma_and_parameters(tmp_path: Path) -> None:
    proto = graphs.model(
        net(
            "float[4] ga, float[4] be, float[4] me, float[4] var",
            "c = Conv(x, w)  h = BatchNormalization(c, ga, be, me, var)",
        )
    )
    network = find_layers(graphs.load(proto, tmp_path))
    values = graphs.initializers(proto)
    for layer in network.layers:
        arrays = [values[tensor.name].astype(np.float64).ravel() for tensor in layer.tensors]
        assert layer.parameters == sum(array.size for array in arrays)
        np.testing.assert_allclose(layer.sigma_w, np.concatenate(arrays).std(), rtol=1e-12)
        np.testing.assert_allclose(pooled_sigma(arrays), np.concatenate(arrays).std(), rtol=1e-12)
        for tensor, array in zip(layer.tensors, arrays, strict=True):
            np.testing.assert_allclose(tensor.sigma_w, array.std(), rtol=1e-12)
    assert network.parameters == sum(value.size for value in values.values())
