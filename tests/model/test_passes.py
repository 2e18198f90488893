from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from support import graphs

from onnxnoise.errors import ModelError
from onnxnoise.model.network import Network, find_layers
from onnxnoise.records import NoiseLayer

C = 4
HEAD = "g = GlobalAveragePool(h)  f = Flatten(g)  y = Gemm<transB = 1>(f, fw, fb)"
EPS = "eps = Constant<value_float = 0.001>()"
INVERSE = f"{EPS}  v = Add(var, eps)  d = Sqrt(v)"
FORMS = {
    "sub, div, mul, add": f"{INVERSE}  a = Sub(c, me)  b = Div(a, d)  e = Mul(b, ga)  h = Add(e, be)",
    "sub, mul, mul, add": f"{INVERSE}  r = Reciprocal(d)  a = Sub(c, me)  b = Mul(a, r)  e = Mul(ga, b)  h = Add(be, e)",
    "sub, mul, add": f"{INVERSE}  r = Reciprocal(d)  s = Mul(r, ga)  a = Sub(c, me)  b = Mul(a, s)  h = Add(b, be)",
    "mul, add": f"{INVERSE}  r = Reciprocal(d)  s = Mul(r, ga)  p = Mul(me, s)  t = Sub(be, p)  a = Mul(c, s)  h = Add(a, t)",
    "jax": f"one = Constant<value_float = 1.0>()  {INVERSE}  r = Div(one, d)  s = Mul(r, ga)  n = Neg(me)  p = Mul(n, s)"
    "  t = Add(p, be)  a = Mul(c, s)  h = Add(a, t)",
    "pow": f"k = Constant<value_float = -0.5>()  {EPS}  v = Add(var, eps)  r = Pow(v, k)  s = Mul(r, ga)"
    "  a = Sub(c, me)  b = Mul(a, s)  h = Add(b, be)",
    "add of the negated mean": f"{INVERSE}  n = Neg(me)  a = Add(c, n)  b = Div(a, d)  e = Mul(b, ga)  h = Add(e, be)",
    "no epsilon": "d = Sqrt(var)  a = Sub(c, me)  b = Div(a, d)  e = Mul(b, ga)  h = Add(e, be)",
}


def net(body: str, shape: str = "4,1,1", inputs: str = "") -> str:
    tensors = ", ".join(f"float[{shape}] {name}" for name in ("ga", "be", "me", "var"))
    return (
        f"(float[N,3,8,8] x, float[4,3,3,3] w, float[4] cb, {tensors}, float[5,4] fw, float[5] fb{inputs})"
        f" => (float[N,5] y) {{ c0 = Conv(x, w, cb)  c = Relu(c0)  {body}  {HEAD} }}"
    )


def batch_norm(network: Network) -> NoiseLayer:
    (layer,) = [layer for layer in network.layers if layer.kind == "batchnorm"]
    return layer


def roles(layer: NoiseLayer) -> dict[int, str]:
    return {tensor.role: tensor.name for tensor in layer.tensors}


@pytest.mark.parametrize("shape", ["4,1,1", "1,4,1,1"])
@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS.keys())
def test_four_tensors_are_a_batch_norm(body: str, shape: str, tmp_path: Path) -> None:
    proto = graphs.model(net(body, shape))
    network = find_layers(graphs.load(proto, tmp_path))
    layer = batch_norm(network)
    assert roles(layer) == {0: "ga", 1: "be", 2: "me", 3: "var"}
    assert layer.parameters == 4 * C
    assert all(tensor.shape == (C,) for tensor in layer.tensors)
    x = graphs.image((2, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=1e-5)


@pytest.mark.parametrize(
    "values",
    [
        {"ga": [0.0, 1.0, 0.0, 2.0]},
        {"ga": 0},
        {"ga": 1, "be": 0, "me": 0, "var": 1},
        {"be": [0.5, 0.25, 1, 2], "me": [0.5, 0.25, 1, 2]},
        {"ga": [1, 2, 3, 4], "var": [1, 2, 3, 4]},
    ],
)
def test_roles_do_not_depend_on_the_trained_values(values: dict[str, object], tmp_path: Path) -> None:
    for body in (FORMS["sub, mul, add"], FORMS["mul, add"], FORMS["jax"]):
        network = find_layers(graphs.load(graphs.model(net(body), values), tmp_path))
        assert roles(batch_norm(network)) == {0: "ga", 1: "be", 2: "me", 3: "var"}


def test_one_tensor_in_two_roles(tmp_path: Path) -> None:
    body = FORMS["sub, div, mul, add"].replace("var", "ga")  # an exporter that merges equal tensors
    layer = batch_norm(find_layers(graphs.load(graphs.model(net(body), {"ga": 1}), tmp_path)))
    assert roles(layer) == {0: "ga", 1: "be", 2: "me", 3: "ga"}
    assert len({tensor.value for tensor in layer.tensors}) == 4


@pytest.mark.parametrize(
    "body",
    [
        "a = Sub(c, me)  b = Div(a, std)  e = Mul(b, ga)  h = Add(e, be)",
        "a = Sub(c, me)  b = Mul(ga, a)  e = Div(b, std)  h = Add(be, e)",
    ],
)
def test_a_standard_deviation_that_an_exporter_computed(body: str, tmp_path: Path) -> None:
    proto = graphs.model(net(body).replace(" var", " std"), {"std": [0.5, 1.5, 2, 0.25]})
    network = find_layers(graphs.load(proto, tmp_path))
    layer = batch_norm(network)
    assert roles(layer) == {0: "ga", 1: "be", 2: "me", 3: "std"}
    np.testing.assert_allclose(network.constants[layer.tensors[3].value], np.square([0.5, 1.5, 2, 0.25]))
    x = graphs.image((2, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=1e-5)


@pytest.mark.parametrize("shape", ["4", "1,1,1,4"])
def test_channels_last(shape: str, tmp_path: Path) -> None:
    body = FORMS["mul, add"].replace("Mul(c, s)", "Mul(cl, s)").replace("h = Add", "hl = Add")
    text = net(f"cl = Transpose<perm = [0, 2, 3, 1]>(c)  {body}  h = Transpose<perm = [0, 3, 1, 2]>(hl)", shape)
    network = find_layers(graphs.load(graphs.model(text), tmp_path))
    assert roles(batch_norm(network)) == {0: "ga", 1: "be", 2: "me", 3: "var"}
    assert [node.op_type for node in network.nodes][:3] == ["Conv", "Relu", "BatchNormalization"]
    x = graphs.image((2, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(graphs.model(text), x), atol=1e-5)


def test_behind_a_dense_layer(tmp_path: Path) -> None:
    text = (
        "(float[N,3,8,8] x, float[3,4] w, float[4] ga, float[4] be, float[4] me, float[4] var, float[5,4] fw, float[5] fb)"
        f" => (float[N,5] y) {{ g = GlobalAveragePool(x)  f = Flatten(g)  c = MatMul(f, w)  {FORMS['mul, add']}"
        "  y = Gemm<transB = 1>(h, fw, fb) }"
    )
    network = find_layers(graphs.load(graphs.model(text), tmp_path))
    assert graphs.kinds(network) == ["dense", "batchnorm", "dense"]
    assert roles(batch_norm(network))[3] == "var"
    x = graphs.image((2, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(graphs.model(text), x), atol=1e-5)


def test_a_shape_question_is_no_second_use(tmp_path: Path) -> None:
    body = FORMS["sub, mul, add"].replace("h = Add(b, be)", "h0 = Add(b, be)  n = Shape(b)  h = Reshape(h0, n)")
    layer = batch_norm(find_layers(graphs.load(graphs.model(net(body)), tmp_path)))
    assert len(layer.tensors) == 4


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        ("s = Mul(ga, var)  a = Sub(c, me)  b = Mul(a, s)  h = Add(b, be)", ["batchnorm"]),  # no square root: 3 tensors
        (FORMS["sub, mul, add"].replace("h = Add(b, be)", "h0 = Add(b, be)  h = Add(h0, b)"), ["scale", "parameter"]),
    ],
)
def test_what_is_none_stays_arithmetic(body: str, kinds: list[str], tmp_path: Path) -> None:
    network = find_layers(graphs.load(graphs.model(net(body)), tmp_path))
    assert [kind for kind in graphs.kinds(network) if kind not in ("conv", "dense")][-len(kinds) :] == kinds
    assert all(len(layer.tensors) < 4 for layer in network.layers)


@pytest.mark.parametrize("swapped", [False, True])
def test_keras_prelu(swapped: bool, tmp_path: Path) -> None:
    mul, add = ("Mul(s, r)", "Add(q, p)") if swapped else ("Mul(r, s)", "Add(p, q)")
    body = f"p = Relu(c)  n = Neg(c)  r = Relu(n)  q = {mul}  h = {add}"
    proto = graphs.model(net(body, inputs=", float[4,1,1] s").replace("c = Relu(c0)", "c = Identity(c0)"), {"s": -0.2})
    network = find_layers(graphs.load(proto, tmp_path))
    (layer,) = [layer for layer in network.layers if layer.kind == "scale"]
    assert roles(layer) == {0: "s"}
    np.testing.assert_allclose(network.constants[layer.tensors[0].value].ravel(), 0.2)
    x = graphs.image((2, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=1e-5)


def test_a_zero_blown_up_to_a_bias_is_none(tmp_path: Path) -> None:
    text = (
        "(float[N,3,8,8] x, float[4,3,3,3] w, float[5,4] fw, float[5] fb) => (float[N,5] y) {"
        " zero = Constant<value_float = 0.0>()  like = CastLike(zero, x)  all = Shape(w)"
        " from = Constant<value_ints = [0]>()  to = Constant<value_ints = [1]>()  n = Slice(all, from, to)"
        f" b = Expand(like, n)  h = Conv(x, w, b)  {HEAD} }}"
    )
    network = find_layers(graphs.load(graphs.model(text), tmp_path))
    assert [layer.parameters for layer in network.layers] == [108, 25]
    assert len(network.nodes[0].input) == 2


def test_a_bias_of_zeros_that_the_file_holds_is_one(tmp_path: Path) -> None:
    network = find_layers(graphs.load(graphs.model(net("h = Relu(c)"), {"cb": 0}), tmp_path))
    assert network.layers[0].parameters == 112
    assert network.layers[0].tensors[1].sigma_w == 0


@pytest.mark.parametrize("which", ["all", "conv only"])
def test_half_precision_weights_become_float(which: str, tmp_path: Path) -> None:
    norm = "float[4] ga, float[4] be, float[4] me, float[4] var"
    if which == "all":
        text = net("h = BatchNormalization(c, ga, be, me, var)", "4").replace("float[", "float16[")
    else:
        text = (
            f"(float[N,3,8,8] x, float16[4,3,3,3] w, {norm}, float[5,4] fw, float[5] fb) => (float[N,5] y) {{"
            " xh = Cast<to = 10>(x)  ch = Conv(xh, w)  c = Cast<to = 1>(ch)"
            f" h = BatchNormalization(c, ga, be, me, var)  {HEAD} }}"
        )
    proto = graphs.model(text)
    network = find_layers(graphs.load(proto, tmp_path))
    assert graphs.kinds(network) == ["conv", "batchnorm", "dense"]
    assert "Cast" not in {node.op_type for node in network.nodes}
    for name, value in graphs.initializers(proto).items():
        np.testing.assert_array_equal(network.constants[name], value.astype(np.float32))
    assert graphs.logits(network, graphs.image((2, 3, 8, 8))).dtype == np.float32


QUANTIZED = {
    "w": np.arange(108).reshape(4, 3, 3, 3) - 50,
    "ws": [0.01, 0.02, 0.03, 0.04],
    "s": 0.05,
    "z": 3,
}


@pytest.mark.parametrize("trained", [False, True])
def test_weights_behind_dequantize_become_float(trained: bool, tmp_path: Path) -> None:
    wq = "wq" if trained else "w"
    quantize = "wq = QuantizeLinear<axis = 0>(w, ws, wz)" if trained else ""
    text = (
        f"(float[N,3,8,8] x, {'float' if trained else 'int8'}[4,3,3,3] w, float[4] ws, int8[4] wz, int32[4] b, float[4] bs,"
        " float s, int8 z, float[5,4] fw, float[5] fb) => (float[N,5] y) {"
        f" xq = QuantizeLinear(x, s, z)  xd = DequantizeLinear(xq, s, z)  {quantize}"
        f" wd = DequantizeLinear<axis = 0>({wq}, ws, wz)  bd = DequantizeLinear<axis = 0>(b, bs)  c = Conv(xd, wd, bd)"
        f" cq = QuantizeLinear(c, s, z)  h = DequantizeLinear(cq, s, z)  {HEAD} }}"
    )
    w = QUANTIZED["w"] / 97 if trained else QUANTIZED["w"]  # type: ignore[operator]
    proto = graphs.model(text, {**QUANTIZED, "w": w, "wz": 0, "bs": 0.001, "b": [100, -200, 300, 0]})
    network = find_layers(graphs.load(proto, tmp_path))
    conv = network.layers[0]
    assert roles(conv) == {0: "w", 1: "b"}
    step = np.array(QUANTIZED["ws"], np.float32).reshape(4, 1, 1, 1)
    levels = np.clip(np.rint(w / step), -128, 127) if trained else w
    np.testing.assert_allclose(network.constants[conv.tensors[0].value], levels * step, rtol=1e-6)
    np.testing.assert_allclose(network.constants[conv.tensors[1].value], [0.1, -0.2, 0.3, 0], rtol=1e-6)
    x = graphs.image((2, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=0.02)


def test_weights_cut_by_a_known_part_of_a_shape(tmp_path: Path) -> None:
    """As torch's exporter cuts a recurrent layer's gates: by the hidden size of an initial state of free batch size."""
    text = (
        "(float[N,3,8,8] x, float[8,3,1,1] w, float[4] cb, float[5,4] fw) => (float[N,5] y) {"
        " all = Shape<start = 0, end = 1>(x)  four = Constant<value_ints = [4]>()  s = Concat<axis = 0>(all, four)"
        " zero = Constant<value_float = 0.0>()  state = Expand(zero, s)  hidden = Shape<start = 1, end = 2>(state)"
        " none = Constant<value_ints = [0]>()  part = Slice(w, none, hidden, none)  h = Conv(x, part, cb)"
        " g = GlobalAveragePool(h)  f = Flatten(g)  y = Gemm<transB = 1>(f, fw) }"
    )
    proto = graphs.model(text)
    network = find_layers(graphs.load(proto, tmp_path))
    assert [(layer.kind, layer.parameters) for layer in network.layers] == [("conv", 16), ("dense", 20)]
    for batch in (1, 3):
        x = graphs.image((batch, 3, 8, 8))
        np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=1e-5)


@pytest.mark.parametrize("split", ["two", "sizes"])
@pytest.mark.parametrize("at", [0, 2])
def test_weights_cut_by_a_sequence(split: str, at: int, tmp_path: Path) -> None:
    """As torch's exporter cuts the projections of an attention."""
    text = (
        "(float[N,2,8,8] x, float[6,2] w, float[5,2] fw) => (float[N,5] y) { g = GlobalAveragePool(x)  f = Flatten(g)"
        " two = Constant<value_int = 2>()  sizes = Constant<value_ints = [2, 2, 2]>()"
        f" at = Constant<value_int = {at}>()  all = SplitToSequence<axis = 0>(w, {split})  part = SequenceAt(all, at)"
        " t = Transpose<perm = [1, 0]>(part)  m = MatMul(f, t)  y = Gemm<transB = 1>(m, fw) }"
    )
    proto = graphs.model(text)
    network = find_layers(graphs.load(proto, tmp_path))
    assert graphs.members(network) == [("dense", {0: "w"}), ("dense", {0: "fw"})]
    kernel = network.layers[0].tensors[0]
    stored = network.constants[kernel.value]
    np.testing.assert_array_equal(
        stored.T if kernel.transposed else stored, graphs.initializers(proto)["w"][2 * at : 2 * at + 2]
    )
    x = graphs.image((2, 2, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=1e-5)


LIKE = (
    "(float[N,3,8,8] x, float[4,3,3,3] w, float[4] cb, float[4] me, float[4] var, float[5,4] fw, float[5] fb)"
    " => (float[N,5] y) { axes = Constant<value_ints = [1, 2, 3]>()  q = ReduceSumSquare(w, axes)"
    " n = Constant<value_int = 27>()  like = CastLike(n, %s)  v = Div(q, like)  s = Sqrt(v)  k = Div(w, s)"
    " one = Constant<value_int = 1>()  o = CastLike(one, me)  size = Shape(me)  ga = Expand(o, size)"
    " zero = Constant<value_int = 0>()  z = CastLike(zero, c)  be = Expand(z, size)"
    " c = Conv(x, k, cb)  h = BatchNormalization(c, ga, be, me, var)  " + HEAD + " }"
)


@pytest.mark.parametrize("of", ["w", "q", "x"])
def test_constants_behind_a_type_taken_from_another_value(of: str, tmp_path: Path) -> None:
    proto = graphs.model(LIKE % of)
    network = find_layers(graphs.load(proto, tmp_path))
    assert graphs.members(network) == [
        ("conv", {0: "w", 1: "cb"}),
        ("batchnorm", {0: "ga", 1: "be", 2: "me", 3: "var"}),
        ("dense", {0: "fw", 1: "fb"}),
    ]
    assert batch_norm(network).parameters == 4 * C
    x = graphs.image((2, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=1e-5)


SUBTRACTED = {
    "a convolution": ("c0 = Conv(x, w)  h = Sub(c0, b)", "c0 = Conv(x, w)  h = Add(c0, b)", "float[4,1,1] b"),
    "a dense layer": (
        "c0 = Conv(x, w)  p = GlobalAveragePool(c0)  q = Flatten(p)  m = MatMul(q, k)  s = Sub(m, b)  n = Constant<value_ints = [0, 4, 1, 1]>()  h = Reshape(s, n)",
        "c0 = Conv(x, w)  p = GlobalAveragePool(c0)  q = Flatten(p)  m = MatMul(q, k)  s = Add(m, b)  n = Constant<value_ints = [0, 4, 1, 1]>()  h = Reshape(s, n)",
        "float[4] b, float[4,4] k",
    ),
    "layout between": (
        "c0 = Conv(x, w)  t = Transpose<perm = [0, 2, 3, 1]>(c0)  s = Sub(t, b)  r = Relu(s)  h = Transpose<perm = [0, 3, 1, 2]>(r)",
        "c0 = Conv(x, w)  t = Transpose<perm = [0, 2, 3, 1]>(c0)  s = Add(t, b)  r = Relu(s)  h = Transpose<perm = [0, 3, 1, 2]>(r)",
        "float[4] b",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "added", "inputs"), SUBTRACTED.values(), ids=SUBTRACTED.keys())
def test_a_subtracted_bias_is_an_added_one(body: str, added: str, inputs: str, tmp_path: Path) -> None:
    text = "(float[N,3,8,8] x, float[4,3,3,3] w, {}, float[5,4] fw, float[5] fb) => (float[N,5] y) {{ {}  {} }}"
    proto, plain = (graphs.model(text.format(inputs, each, HEAD)) for each in (body, added))
    for tensor in plain.graph.initializer:
        if tensor.name == "b":
            tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), "b"))
    network, truth = (find_layers(graphs.load(each, tmp_path)) for each in (proto, plain))
    assert graphs.members(network) == graphs.members(truth)
    for layer, other in zip(network.layers, truth.layers, strict=True):
        for tensor, same in zip(layer.tensors, other.tensors, strict=True):
            np.testing.assert_array_equal(network.constants[tensor.value], truth.constants[same.value])
    x = graphs.image((2, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=1e-5)


def test_a_subtracted_mean_stays_one(tmp_path: Path) -> None:
    text = (
        "(float[N,3,8,8] x, float[4,3,3,3] w, float[4,1,1] me, float[4,1,1] ga, float[4,1,1] be, float[5,4] fw, float[5] fb)"
        " => (float[N,5] y) { c = Conv(x, w)  d = Sub(c, me)  e = Mul(d, ga)  h = Add(e, be)  " + HEAD + " }"
    )
    network = find_layers(graphs.load(graphs.model(text), tmp_path))
    assert roles(batch_norm(network)) == {0: "ga", 1: "be", 2: "me"}


STANDARDIZED = (
    "(float[N,3,8,8] x, float[4,3,3,3] w, float[4] wb, float[4] one, float[4] zero, float[5,4] fw, float[5] fb) => (float[N,5] y) {"
    " i = Constant<value_ints = [1, 4, 27]>()  a = Reshape(w, i)  k0, m0, v0 = BatchNormalization<epsilon = 0.000001, training_mode = 1>(a, one, zero, zero, one)"
    "  j = Constant<value_ints = [4, 3, 3, 3]>()  k = Reshape(k0, j)  h = Conv(x, k, wb)  " + HEAD + " }"
)


@pytest.mark.parametrize("opset", [15, 18])
def test_a_standardized_kernel_is_computed(opset: int, tmp_path: Path) -> None:
    proto = graphs.model(STANDARDIZED, {"one": 1, "zero": 0}, opset=opset)
    network = find_layers(graphs.load(proto, tmp_path))
    assert graphs.members(network) == [("conv", {0: "w", 1: "wb"}), ("dense", {0: "fw", 1: "fb"})]
    w = graphs.initializers(proto)["w"].astype(np.float64).reshape(4, -1)
    kernel = (w - w.mean(1, keepdims=True)) / np.sqrt(w.var(1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(network.constants[network.layers[0].tensors[0].value].reshape(4, -1), kernel, atol=1e-5)
    assert not network.notices or [notice.code for notice in network.notices] == ["no_batchnorm"]


def test_a_norm_of_the_images_in_training_mode_is_refused(tmp_path: Path) -> None:
    text = STANDARDIZED.replace(
        "h = Conv(x, k, wb)",
        "c = Conv(x, k, wb)  h, m1, v1 = BatchNormalization<training_mode = 1>(c, one, zero, zero, one)",
    )
    with pytest.raises(ModelError, match="exported in training mode: BatchNormalization 'h'"):
        graphs.load(graphs.model(text), tmp_path)
