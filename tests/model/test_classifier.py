from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support import graphs

from onnxnoise.errors import ModelError, UsageError
from onnxnoise.model.classifier import load_classifier
from onnxnoise.model.network import find_layers

CONV = "float[4,3,3,3] w, float[5,4] fw, float[5] fb"
HEAD = "g = GlobalAveragePool(h)  f = Flatten(g)  y = Gemm<transB=1>(f, fw, fb)"
NORM = "float[4] ga, float[4] be, float[4] me, float[4] var"


def net(
    body: str, *, inputs: str = "", x: str = "float[N,3,8,8] x", outputs: str = "float[N,5] y", tail: str = HEAD
) -> str:
    more = f", {inputs}" if inputs else ""
    return f"({x}, {CONV}{more}) => ({outputs}) {{ {body} {tail} }}"


PLAIN = net("h = Conv(x, w)")


@pytest.mark.parametrize("opset", range(7, 24))
def test_every_opset_keeps_batch_norms_and_outputs(opset: int, tmp_path: Path) -> None:
    proto = graphs.model(
        net("c = Conv(x, w)  n = BatchNormalization(c, ga, be, me, var)  h = Relu(n)", inputs=NORM), opset=opset
    )
    classifier = graphs.load(proto, tmp_path)
    assert [node.op_type for node in classifier.nodes][:3] == ["Conv", "BatchNormalization", "Relu"]
    network = find_layers(classifier)
    assert graphs.kinds(network) == ["conv", "batchnorm", "dense"]
    x = graphs.image(classifier.image.shape)
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=1e-5)


def test_the_optimizer_leaves_batch_norms_and_equal_tensors_apart(tmp_path: Path) -> None:
    """The names in `disabled_optimizers` are believed silently: what they switch off would happen here."""
    proto = graphs.model(
        "(float[N,3,8,8] x, float[4,3,3,3] w, float[4,3,3,3] v, float[4,1,1] m, float[4,4] fw,"
        " float[4] ga, float[4] be, float[4] me, float[4] var) => (float[N,4] y) {"
        " a = Conv(x, w)  b = Conv(x, v)  p = BatchNormalization(a, ga, be, me, var)  q = Mul(b, m)  h = Add(p, q)"
        " g = GlobalAveragePool(h)  f = Flatten(g)  d = MatMul(f, fw)  y = BatchNormalization(d, ga, be, me, var) }",
        {"w": 0.5, "v": 0.5},
    )
    classifier = graphs.load(proto, tmp_path)
    operators = [node.op_type for node in classifier.nodes]
    assert operators.count("Conv") == 2  # equal convolutions are no common subexpression
    assert operators.count("BatchNormalization") == 2  # neither went into its Conv or MatMul
    assert "Mul" in operators  # nor did the scale
    kernels = {node.input[1] for node in classifier.nodes if node.op_type == "Conv"}
    assert kernels == {"w", "v"}


def test_bias_and_dense_are_canonical(tmp_path: Path) -> None:
    proto = graphs.model(
        "(float[N,3,8,8] x, float[4,3,3,3] w, float[4,1,1] b, float[4,5] fw, float[5] fb) => (float[N,5] y) {"
        " c = Conv(x, w)  h = Add(c, b)  g = GlobalAveragePool(h)  f = Flatten(g)  m = MatMul(f, fw)  y = Add(m, fb) }"
    )
    assert [node.op_type for node in graphs.load(proto, tmp_path).nodes] == [
        "Conv", "GlobalAveragePool", "Flatten", "Gemm",
    ]  # fmt: skip


def test_old_files_list_initializers_as_inputs(tmp_path: Path) -> None:
    proto = graphs.model(PLAIN, opset=9)
    proto.ir_version = 3
    proto.graph.input.extend(
        onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in proto.graph.initializer
    )
    classifier = graphs.load(proto, tmp_path)
    assert classifier.image.name == "x"
    assert len(find_layers(classifier).layers) == 2


def test_the_order_of_nodes_in_the_file_does_not_matter(tmp_path: Path) -> None:
    proto = graphs.model(PLAIN)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    assert len(find_layers(graphs.load(proto, tmp_path)).layers) == 2


def test_functions_are_inlined_and_their_constants_found(tmp_path: Path) -> None:
    proto = graphs.model(
        net("h = my.block(x)").replace("float[4,3,3,3] w, ", "")
        + ' <domain: "my", opset_import: ["": 18]> block (x) => (y) {'
        " w = Constant<value = float[2,3,1,1] {1, 2, 3, 4, 5, 6}>()  c = Conv(x, w)  y = Concat<axis = 1>(c, c) }",
        domains=["my"],
    )
    network = find_layers(graphs.load(proto, tmp_path))
    assert [(layer.kind, layer.parameters) for layer in network.layers] == [("conv", 6), ("dense", 25)]
    x = graphs.image((2, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=1e-5)


def test_constant_nodes_of_every_form_are_weights(tmp_path: Path) -> None:
    proto = graphs.model(
        net("w2 = Constant<value_floats = [0.5, -1.0, 2.0, 3.0]>()  s = Constant<value_ints = [4, 1, 1]>()"
            "  r = Reshape(w2, s)  c = Conv(x, w)  h = Mul(c, r)")
    )  # fmt: skip
    assert graphs.kinds(find_layers(graphs.load(proto, tmp_path))) == ["conv", "scale", "dense"]


def test_unused_vendor_opsets_are_dropped(tmp_path: Path) -> None:
    proto = graphs.model(PLAIN, domains=["ai.onnx.ml", "com.microsoft", "com.vendor"])
    assert set(graphs.load(proto, tmp_path).opsets) == {""}
    fused = net('h = com.microsoft.FusedConv<activation = "Relu">(x, w)')
    assert set(graphs.load(graphs.model(fused, domains=["com.microsoft"]), tmp_path).opsets) == {"", "com.microsoft"}


def test_an_input_that_nothing_uses_is_no_input(tmp_path: Path) -> None:
    proto = graphs.model(net("h = Conv(x, w)", inputs="bool training"), {"training": None})
    assert graphs.load(proto, tmp_path).image.name == "x"


# -- the image input


@pytest.mark.parametrize(
    ("x", "before", "dtype", "shape", "layout"),
    [
        ("float[N,3,8,8] x", "i = Identity(x)", "float32", (None, 3, 8, 8), "nchw"),
        ("float[2,3,8,8] x", "i = Identity(x)", "float32", (2, 3, 8, 8), "nchw"),
        ("float[N,8,8,3] x", "i = Transpose<perm = [0, 3, 1, 2]>(x)", "float32", (None, 8, 8, 3), "nhwc"),
        (
            "uint8[N,8,8,3] x",
            "j = Cast<to = 1>(x)  i = Transpose<perm = [0, 3, 1, 2]>(j)",
            "uint8",
            (None, 8, 8, 3),
            "nhwc",
        ),
        ("float[N,H,W,C] x", "j = Relu(x)  i = Transpose<perm = [0, 3, 1, 2]>(j)", "float32", (None,) * 4, "nhwc"),
        ("float[N,C,H,W] x", "i = Relu(x)", "float32", (None,) * 4, "nchw"),
        ("float[N,3,4,3] x", "i = Relu(x)", "float32", (None, 3, 4, 3), "nchw"),
    ],
)
def test_image_input(
    x: str, before: str, dtype: str, shape: tuple[int | None, ...], layout: str, tmp_path: Path
) -> None:
    image = graphs.load(graphs.model(net(f"{before}  h = Conv(i, w)", x=x)), tmp_path).image
    assert (image.name, image.dtype, image.shape, image.layout) == ("x", dtype, shape, layout)
    assert image.batch == shape[0]


def test_a_half_precision_input_becomes_float(tmp_path: Path) -> None:
    half = net("h = Conv(x, w)", x="float16[N,3,8,8] x", outputs="float16[N,5] y").replace("float[", "float16[")
    classifier = graphs.load(graphs.model(half), tmp_path)
    assert classifier.image.dtype == "float32"
    assert all(value.dtype == np.float32 for value in classifier.constants.values())


# -- the logits


@pytest.mark.parametrize(
    "ending",
    [
        "y = Softmax(l)",
        "y = LogSoftmax(l)",
        "p = Softmax<axis = 1>(l)  y = Identity(p)",
        "p = Softmax(l)  q = Cast<to = 10>(p)  y = Cast<to = 1>(q)",
        "p = Softmax(l)  s = Constant<value_ints = [-1, 5]>()  y = Reshape(p, s)",
        "p = Softmax(l)  s = Constant<value_float = 0.01>()  q = QuantizeLinear(p, s)  y = DequantizeLinear(q, s)",
    ],
)
def test_a_final_softmax_goes(ending: str, tmp_path: Path) -> None:
    tail = HEAD.replace("y =", "l =") + "  " + ending
    proto = graphs.model(net("h = Conv(x, w)", tail=tail))
    classifier = graphs.load(proto, tmp_path)
    assert (classifier.logits, classifier.classes) == ("l", 5)
    assert classifier.nodes[-1].op_type == "Gemm"
    x = graphs.image((2, 3, 8, 8))
    want = graphs.run(graphs.model(PLAIN), x)
    np.testing.assert_allclose(graphs.logits(find_layers(classifier), x), want, atol=1e-5)


def test_another_softmax_stays(tmp_path: Path) -> None:
    ending = "p = Softmax(l)  y = Mul(p, p)"
    proto = graphs.model(net("h = Conv(x, w)", tail=HEAD.replace("y =", "l =") + "  " + ending))
    assert graphs.load(proto, tmp_path).logits == "y"


def test_logits_beside_their_softmax_are_one_choice(tmp_path: Path) -> None:
    both = net("h = Conv(x, w)", tail=HEAD + "  p = Softmax(y)", outputs="float[N,5] p, float[N,5] y, float[N,4,6,6] h")
    assert graphs.load(graphs.model(both), tmp_path).logits == "y"


def test_several_outputs_need_a_choice(tmp_path: Path) -> None:
    proto = graphs.model(net("h = Conv(x, w)", outputs="float[N,4] f, float[N,5] y"))
    with pytest.raises(ModelError, match=r"'f' \(4 columns\), 'y' \(5 columns\); say which with --output NAME"):
        graphs.load(proto, tmp_path)
    assert graphs.load(proto, tmp_path, output="f").logits == "f"
    assert graphs.load(proto, tmp_path, output="y").classes == 5
    assert graphs.load(proto, tmp_path, classes=lambda _: 5).logits == "y"
    with pytest.raises(UsageError, match="no output 'z'; it has f, y"):
        graphs.load(proto, tmp_path, output="z")


@pytest.mark.parametrize(
    ("shape", "ending"),
    [("float[N,4,1,1]", "y = GlobalAveragePool(h)"), ("float[N,1,1,4]", "g = GlobalAveragePool(h)  y = Transpose<perm = [0, 2, 3, 1]>(g)"),
     ("float[N,4,1,1]", "g = GlobalAveragePool(h)  y = Softmax<axis = 1>(g)")],
)  # fmt: skip
def test_scores_may_keep_dimensions_of_one(shape: str, ending: str, tmp_path: Path) -> None:
    classifier = graphs.load(graphs.model(net("h = Conv(x, w)", outputs=f"{shape} y", tail=ending)), tmp_path)
    assert classifier.classes == 4


def test_a_free_number_of_classes(tmp_path: Path) -> None:
    proto = graphs.model(PLAIN)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    assert graphs.load(proto, tmp_path).logits == "y"


# -- refusals


@pytest.mark.parametrize(
    ("body", "options", "found"),
    [
        ("c = Conv(x, w)  h = BatchNormalization<training_mode = 1>(c, ga, be, me, var)", {}, "exported in training mode"),
        ("c = Conv(x, w)  h, m, v = BatchNormalization<training_mode = 1>(c, ga, be, me, var)", {}, "exported in training mode"),
        ("c = Conv(x, w)  h, m, v, sm, sv = BatchNormalization(c, ga, be, me, var)", {"opset": 9}, "exported in training mode"),
        ("r = Constant<value_float = 0.5>()  t = Cast<to = 9>(r)  c = Conv(x, w)  h = Dropout(c, r, on)", {}, "Dropout 'h' drops"),
        ("xq, s, z = DynamicQuantizeLinear(x)  h = Conv(x, w)  q = DequantizeLinear(xq, s, z)", {}, "dynamically quantized"),
        ("h = com.microsoft.QLinearAdd(x, w, w, x, w, w, w, w)", {"domains": ["com.microsoft"]}, "quantized with integer operators"),
        ("h = com.microsoft.nchwc.Conv(x, w)", {"domains": ["com.microsoft.nchwc"]}, "vendor layout"),
        ("h = Conv(nowhere, w)  g2 = Relu(x)", {}, "nothing in the file makes the value 'nowhere'"),
        ("c = Conv(x, w)  h = custom.Swish(c)", {"domains": ["custom"]}, "knows no operator custom:Swish; export without it"),
        ("c = Conv(x, w)  h = Gelu(c)", {"opset": 18}, "knows no operator Gelu; export without it"),
        ("h = Conv(z, w)  z = Relu(h)", {}, "malformed: Graph contains a cycle"),
    ],
)  # fmt: skip
def test_refused(body: str, options: dict[str, Any], found: str, tmp_path: Path) -> None:
    values = {"on": True} if "on)" in body else {}
    inputs = NORM + (", bool on" if values else "")
    with pytest.raises(ModelError, match=found):
        graphs.load(graphs.model(net(body, inputs=inputs), values, **options), tmp_path)


def test_newer_versions_than_the_libraries_know(tmp_path: Path) -> None:
    proto = graphs.model(PLAIN)
    proto.ir_version = onnx.IR_VERSION  # ONNX Runtime is a release behind
    find_layers(graphs.load(proto, tmp_path))
    proto.ir_version = onnx.IR_VERSION + 1
    with pytest.raises(ModelError, match=rf"IR version {onnx.IR_VERSION + 1} is newer than .*pip install -U onnx"):
        graphs.load(proto, tmp_path)
    proto = graphs.model(PLAIN)
    proto.opset_import[0].version = 999
    with pytest.raises(ModelError, match=r"opset 999 is newer than what ONNX Runtime .*export with opset \d+ or older"):
        graphs.load(proto, tmp_path)


def test_double_precision_becomes_float(tmp_path: Path) -> None:
    text = (
        "(double[N,3,4,4] x, double[6,3] a, double[6] b, double[5,6] fw, double[5] fb) => (double[N,5] y) {"
        " s = Constant<value = double {0.5}>()  i = Mul(x, s)  axes = Constant<value_ints = [2, 3]>()"
        " g = ReduceMean<keepdims = 0>(i, axes)  h = Gemm<transB = 1>(g, a, b)  r = Relu(h)"
        " c = Cast<to = 11>(r)  y = Gemm<transB = 1>(c, fw, fb) }"
    )
    proto = graphs.model(text)
    network = find_layers(graphs.load(proto, tmp_path))
    assert graphs.members(network) == [("dense", {0: "a", 1: "b"}), ("dense", {0: "fw", 1: "fb"})]
    assert network.image.dtype == "float32"
    x = graphs.image((2, 3, 4, 4))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x.astype(np.float64)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fill", [None, (1, 0)])
def test_statistics_of_the_batch_are_training_mode(fill: tuple[int, int] | None, tmp_path: Path) -> None:
    body = (
        "c = Conv(x, w)  axes = Constant<value_ints = [0, 2, 3]>()  m = ReduceMean<keepdims = 0>(c, axes)"
        "  q = ReduceSumSquare<keepdims = 0>(c, axes)  n = BatchNormalization(c, ga, be, m, q)  h = Relu(n)"
    )
    values = {} if fill is None else {"ga": fill[0], "be": fill[1]}
    proto = graphs.model(net(body, inputs="float[4] ga, float[4] be"), values)
    with pytest.raises(ModelError, match="exported in training mode"):
        find_layers(graphs.load(proto, tmp_path))


@pytest.mark.parametrize(
    ("text", "missing", "found"),
    [
        (PLAIN, ["w", "fw", "fb"], "no weights in the file: its 2 kernels are inputs"),
        (PLAIN, ["w"], r"2 inputs need values \('x', 'w'\)"),
        ("(float[N,3,8,8] x) => (float[N,3] y) { g = GlobalAveragePool(x)  y = Flatten(g) }", [], "no weights in the file"),
        ("(float[N,3,4,4] x, float[48,5] fw) => (float[N,5] y) { f = Flatten(x)  y = MatMul(f, fw) }", ["fw"], "no weights"),
        ("(float[N,3,8,8] x, float[1,5] a) => (float[1,5] y) { y = Relu(a) }", [], "its outputs depend on no input"),
        ("(float[N] x, float[1,5] fw) => (float[N,5] y) { a = Constant<value_ints = [1]>()  r = Unsqueeze(x, a)  y = MatMul(r, fw) }", [], "no image input: input 'x' of type FLOAT and shape [?]"),
        ("(int64[N,3,8,8] x, float[4,3,3,3] w) => (float[N,4] y) { c = Cast<to=1>(x) h = Conv(c, w) g = GlobalAveragePool(h) y = Flatten(g) }", [], "type INT64"),
        ("(float[N,3,8,8] x, float[4,3,3,3] w) => (float[N,4,6,6] y) { y = Conv(x, w) }", [], "no classifier output among 'y' float [?]x4x6x6"),
        ("(bfloat16[N,3,8,8] x, bfloat16[4,3,3,3] w) => (bfloat16[N,4,6,6] y) { y = Conv(x, w) }", [], "bfloat16"),
    ],
)  # fmt: skip
def test_refused_inputs_and_outputs(text: str, missing: list[str], found: str, tmp_path: Path) -> None:
    proto = graphs.model(text, dict.fromkeys(missing))
    with pytest.raises(ModelError, match=found):
        find_layers(graphs.load(proto, tmp_path))


def test_sparse_tensors_are_refused(tmp_path: Path) -> None:
    proto = graphs.model(PLAIN)
    sparse = proto.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(np.ones(1, np.float32), "s"))
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(np.zeros(1, np.int64), ""))
    with pytest.raises(ModelError, match="sparse"):
        graphs.load(proto, tmp_path)


@pytest.mark.parametrize(
    "blown",
    [
        "s = Constant<value_ints = [1000000, 1000000]>()  big = ConstantOfShape(s)",
        "s = Constant<value_ints = [1000000, 1000000]>()  o = Constant<value_float = 1.0>()  big = Expand(o, s)",
        "r = Constant<value_ints = [1000000000000]>()  o = Constant<value_floats = [1.0, 2.0]>()  big = Tile(o, r)",
        "a = Constant<value_float = 0.0>()  b = Constant<value_float = 1e12>()  d = Constant<value_float = 1.0>()  big = Range(a, b, d)",
        "p = Constant<value_ints = [0, 1000000000000]>()  o = Constant<value_floats = [1.0, 2.0]>()  big = Pad(o, p)",
        "o = Constant<value_floats = [1.0, 2.0]>()  s = Constant<value_floats = [1e12]>()  big = Resize(o, , s)",
        "big = Add(tall, wide)",
        "big = MatMul(tall, wide)",
    ],
)
def test_constants_that_would_not_fit_are_refused_at_once(blown: str, tmp_path: Path) -> None:
    body = f"{blown}  m = ReduceMean<keepdims = 0>(big)  c = Conv(x, w)  h = Add(c, m)"
    proto = graphs.model(net(body, inputs="float[1048576,1] tall, float[1,1048576] wide"), {"tall": 1, "wide": 1})
    begun = time.perf_counter()
    with pytest.raises(ModelError, match=r"'big' of shape .* would take .* GB"):
        graphs.load(proto, tmp_path)
    assert time.perf_counter() - begun < 5


def test_onnx_runtime_says_nothing_by_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    graphs.load(graphs.model(PLAIN), tmp_path)
    with pytest.raises(ModelError):
        graphs.load(graphs.model(net("c = Conv(x, w)  h = custom.Swish(c)"), domains=["custom"]), tmp_path)
    assert capfd.readouterr() == ("", "")


def test_a_path_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load_classifier(tmp_path / "missing.onnx")
