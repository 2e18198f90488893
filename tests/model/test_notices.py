from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support import graphs

from onnxnoise.model.network import find_layers
from onnxnoise.model.policies.batch_norms import noise_layers
from onnxnoise.records import Notice

HEAD = "g = GlobalAveragePool(h)  f = Flatten(g)  y = Gemm<transB = 1>(f, fw, fb)"


def net(body: str, inputs: str = "", tail: str = HEAD) -> str:
    more = f", {inputs}" if inputs else ""
    return f"(float[N,3,8,8] x, float[4,3,3,3] w, float[4] b{more}, float[5,4] fw, float[5] fb) => (float[N,5] y) {{ {body}  {tail} }}"


PLAIN = net("c = Conv(x, w, b)  r = Relu(c)  h = Conv(r, v, d)", "float[4,4,1,1] v, float[4] d")


def renamed(proto: onnx.ModelProto, **names: str) -> onnx.ModelProto:
    """Values and initializers under an exporter's names."""
    for node in proto.graph.node:
        for names_of in (node.input, node.output):
            for at, name in enumerate(names_of):
                names_of[at] = names.get(name, name)
    for tensor in proto.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    return proto


def of(proto: onnx.ModelProto, folder: Path) -> tuple[Notice, ...]:
    return find_layers(graphs.load(proto, folder)).notices


def codes(notices: Sequence[Notice]) -> list[str]:
    return [notice.code for notice in notices]


MARKS: dict[str, tuple[dict[str, str], int, str, str]] = {
    "TorchScript": ({"w": "onnx::Conv_259", "b": "onnx::Conv_260", "v": "onnx::Conv_262", "d": "onnx::Conv_263"}, 2, "TorchScript", "do_constant_folding=False"),
    "TorchScript, partly": ({"w": "onnx::Conv_259", "b": "onnx::Conv_260"}, 1, "TorchScript", "TrainingMode.PRESERVE"),
    "tf2onnx": ({"w": "m/c/BiasAdd_weights_fused_bn", "b": "m/c/BiasAdd_bias_fused_bn"}, 1, "tf2onnx", "back_to_back_optimizer"),
    "TensorFlow's optimizer, bias": ({"b": "f/bn1_1/batchnorm/sub:0"}, 1, "TensorFlow's graph optimizer", "fused_batch_norm"),
    "TensorFlow's optimizer, kernel": ({"w": "f/c1_1/convolution/merged_input:0"}, 1, "TensorFlow's graph optimizer", "fused_batch_norm"),
    "tensorpack": ({"w": "conv0/Conv2D_weights:0", "b": "conv0/Conv2D_bn_offset:0"}, 1, "optimize_for_inference", "optimize=False"),
    "TFLite": ({"w": "m/a/Relu;m/bn/FusedBatchNormV3;m/c/Conv2D"}, 1, "TFLite", "not from the .tflite"),
    "ONNX Runtime": ({"w": "ConvBnFusion_W_c.weight", "b": "ConvBnFusion_BN_B_bn.bias"}, 1, "ONNX Runtime", "was given to ONNX Runtime"),
    "onnxslim": ({"w": "bn_out_weight", "b": "bn_out_bias", "c": "bn_out"}, 1, "onnxslim", "was given to onnxslim"),
}  # fmt: skip


@pytest.mark.parametrize(("names", "count", "who", "instead"), MARKS.values(), ids=MARKS.keys())
def test_merged_batch_norms_by_their_marks(
    names: dict[str, str], count: int, who: str, instead: str, tmp_path: Path
) -> None:
    (notice,) = of(renamed(graphs.model(PLAIN), **names), tmp_path)
    assert notice.code == "merged_batchnorm"
    assert notice.message.startswith(f"{count} batch norms were merged")
    assert who in notice.message
    assert instead in notice.message


def test_a_mark_survives_quantization(tmp_path: Path) -> None:
    text = net(
        "s = Constant<value_float = 0.01>()  k = DequantizeLinear(w, s)  d = DequantizeLinear(b, s)  h = Conv(x, k, d)"
    ).replace("float[4,3,3,3] w, float[4] b", "int8[4,3,3,3] w, int8[4] b")
    proto = graphs.model(text, {"w": 3, "b": 4})
    assert codes(of(renamed(proto, w="onnx::Conv_1_quantized", b="onnx::Conv_2_quantized"), tmp_path)) == [
        "merged_batchnorm"
    ]


def traced(proto: onnx.ModelProto, norms: int, marked: int = 0) -> onnx.ModelProto:
    """What torch.export's signature and onnxscript's rewriter leave."""
    lines = [f"b_bn{i}_running_var: BUFFER target='bn{i}.running_var' persistent=True" for i in range(norms)]
    lines += [f"b_bn{i}_running_mean: BUFFER target='bn{i}.running_mean' persistent=True" for i in range(norms)]
    signature = "pkg.torch.export.ExportedProgram.graph_signature"
    proto.graph.metadata_props.add(key=signature, value="\n".join(lines))
    for node in [node for node in proto.graph.node if node.op_type == "Conv"][:marked]:
        node.metadata_props.add(key="pkg.onnxscript.rewriter.rule_name", value="FuseBatchNormIntoConv")
    return proto


def test_torch_dynamo_tells_the_number(tmp_path: Path) -> None:
    (notice,) = of(traced(graphs.model(PLAIN), 2, marked=2), tmp_path)
    assert notice.code == "merged_batchnorm"
    assert notice.message.startswith("2 batch norms were merged into the layers before them by torch's exporter")
    assert "optimize=False" in notice.message
    (unmarked,) = of(traced(graphs.model(PLAIN), 2), tmp_path)
    assert unmarked == notice
    assert of(traced(graphs.model(PLAIN), 0), tmp_path) == ()  # VGG: the file proves that it never had any


def test_an_unused_branch_was_not_merged(tmp_path: Path) -> None:
    """GoogLeNet's auxiliary heads are in the signature, but an inference graph has nothing of them."""
    proto = renamed(graphs.model(PLAIN.replace("Conv(x, w, b)", "Conv(x, w)")), w="stem.conv.weight")
    lines = "b_a: BUFFER target='aux.bn.running_var' persistent=True"
    proto.graph.metadata_props.add(key="pkg.torch.export.ExportedProgram.graph_signature", value=lines)
    assert of(proto, tmp_path) == ()
    proto.graph.metadata_props[0].value += "\nb_b: BUFFER target='stem.bn.running_var' persistent=True"
    (notice,) = of(proto, tmp_path)
    assert notice.message.startswith("1 batch norms were merged")


def test_kept_batch_norms_are_not_called_merged(tmp_path: Path) -> None:
    text = net("c = Conv(x, w, b)  h = BatchNormalization(c, b, b, b, var)", "float[4] var")
    assert of(traced(graphs.model(text), 1), tmp_path) == ()
    assert codes(of(traced(graphs.model(text), 3), tmp_path)) == ["merged_batchnorm"]
    assert of(graphs.model(text), tmp_path) == ()


def test_no_batch_norm_at_all_is_a_neutral_hint(tmp_path: Path) -> None:
    (notice,) = of(graphs.model(PLAIN), tmp_path)
    assert notice == Notice("no_batchnorm", "no batch norm found; if the network had any, its exporter merged them")
    unbiased = PLAIN.replace("Conv(x, w, b)", "Conv(x, w)")
    assert of(graphs.model(unbiased), tmp_path) == ()
    dense = "(float[N,3,2,2] x, float[12,5] fw, float[5] fb) => (float[N,5] y) { f = Flatten(x)  m = MatMul(f, fw)  y = Add(m, fb) }"
    assert of(graphs.model(dense), tmp_path) == ()


@pytest.mark.parametrize(
    ("body", "inputs", "tensors", "effect"),
    [
        ("m = Mul(c, ga)  h = Add(m, be)", "float[4,1,1] ga, float[4,1,1] be", "2 tensors instead of 4", "as under affine"),
        ("d = Sub(c, me)  m = Mul(d, ga)  h = Add(m, be)", "float[4,1,1] ga, float[4,1,1] be, float[4,1,1] me", "3 tensors instead of 4", "variance is part of the scale"),
    ],
)  # fmt: skip
def test_decomposed_batch_norms(body: str, inputs: str, tensors: str, effect: str, tmp_path: Path) -> None:
    proto = graphs.model(net(f"c = Conv(x, w, b)  {body}", inputs))
    (notice,) = of(proto, tmp_path)
    assert notice.code == "decomposed_batchnorm"
    assert notice.message.startswith("1 batch norms are stored as")
    assert tensors in notice.message
    assert effect in notice.message
    advice = {"tf2onnx": "fused_batch_norm", "pytorch": "JAX", "": "BatchNormalization nodes"}
    for producer, said in advice.items():
        proto.producer_name = producer
        assert said in of(proto, tmp_path)[0].message
    for policy in ("group", "affine", "fold", "clean"):
        assert "decomposed_batchnorm" in codes(noise_layers(graphs.load(proto, tmp_path), policy).notices)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "inputs", "options", "said"),
    [
        ('c = Conv(x, w)  h = Einsum<equation = "nchw,cd,de->nehw">(c, e, e)', "float[4,4] e", {}, "e (16 values into Einsum)"),
        ("c = Conv(x, w)  m = Max(c, e)  h = Relu(m)", "float[4,1,1] e", {}, "e (4 values into Max)"),
        ("c = Conv(x, w)  z = Constant<value_float = 0.0>()  q = Greater(c, z)  h = Where(q, c, e)", "float[4,6,6] e", {}, "e (144 values into Where)"),
    ],
)  # fmt: skip
def test_weights_of_no_layer_are_named(
    body: str, inputs: str, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    (notice,) = of(graphs.model(net(body, inputs), **options), tmp_path)
    assert notice.code == "unattached"
    assert said in notice.message
    elements = int(said[said.index("(") + 1 :].split(" ", 1)[0])
    assert f"1 tensors, {elements / (elements + 108 + 25):.1%} of all parameters" in notice.message


def test_many_names_are_cut_and_kept_raw(tmp_path: Path) -> None:
    names = [f"[bold]{i}\x1b[31m" for i in range(7)]
    body = "c = Conv(x, w)  " + "  ".join(f"c{i + 1} = Max(c{i}, e{i})" for i in range(7)) + "  h = Relu(c7)"
    inputs = ", ".join(f"float[4,1,1] e{i}" for i in range(7))
    proto = graphs.model(net(body.replace("c = ", "c0 = "), inputs))
    (notice,) = of(renamed(proto, **{f"e{i}": name for i, name in enumerate(names)}), tmp_path)
    assert "7 tensors" in notice.message
    assert names[0] in notice.message
    assert notice.message.endswith(", ...")


def test_tied_kernels(tmp_path: Path) -> None:
    body = "c = Conv(x, w)  d = Conv(c, k)  r = Relu(d)  h = Conv(r, k)"
    (notice,) = of(graphs.model(net(body, "float[4,4,1,1] k")), tmp_path)
    assert notice.code == "tied_kernels"
    assert notice.message.startswith("1 kernels serve more than one layer (k), possibly tied")


def test_parts_of_one_tensor_are_not_tied(tmp_path: Path) -> None:
    body = (
        "z = Constant<value_ints = [0]>()  i = Constant<value_ints = [4]>()  j = Constant<value_ints = [8]>()"
        "  p = Slice(k, z, i, z)  q = Slice(k, i, j, z)  c = Conv(x, w)  d = Conv(c, p)  h = Conv(d, q)"
    )
    assert of(graphs.model(net(body, "float[8,4,1,1] k")), tmp_path) == ()


def test_weights_joined_in_a_way_that_nobody_can_compute_are_named(tmp_path: Path) -> None:
    body = (
        "n = Shape<start = 2, end = 3>(x)  z = Constant<value_ints = [0]>()  p = Slice(k, z, n, z)  q = Concat<axis = 0>(p, l)"
        "  c = Conv(x, w)  h = Conv(c, q)"
    )
    text = net(body, "float[9,4,1,1] k, float[1,4,1,1] l").replace("float[N,3,8,8] x", "float[N,3,H,8] x")
    (notice,) = of(graphs.model(text.replace("float[5,4] fw", "float[5,9] fw")), tmp_path)
    assert notice.code == "unattached"
    assert "k (36 values into Slice), l (4 values into Concat)" in notice.message


FLATTEN = {
    "NHWC": ("t = Transpose<perm = [0, 2, 3, 1]>(h)  f = Flatten(t)", True),
    "NHWC, reshaped": ("t = Transpose<perm = [0, 2, 3, 1]>(h)  s = Constant<value_ints = [-1, 36]>()  f = Reshape(t, s)", True),
    "NHWC, something between": ("t = Transpose<perm = [0, 2, 3, 1]>(h)  r = Relu(t)  u = Flatten(r)  f = Dropout(u)", True),
    "NCHW": ("f = Flatten(h)", False),
    "one pixel": ("p = GlobalAveragePool(h)  q = Tile(p, n)  t = Transpose<perm = [0, 2, 3, 1]>(p)  u = Flatten(t)  o = Concat<axis = 1>(u, u, u)  f = Concat<axis = 1>(o, o, o)", False),
}  # fmt: skip


@pytest.mark.parametrize(("middle", "warned"), FLATTEN.values(), ids=FLATTEN.keys())
def test_a_flatten_of_nhwc_pixels(middle: str, warned: bool, tmp_path: Path) -> None:
    text = net("h = Conv<strides = [2, 2]>(x, w)", tail=f"{middle}  y = Gemm<transB = 1>(f, fw, fb)")
    text = text.replace("float[5,4] fw", "float[5,36] fw").replace("q = Tile(p, n)  ", "")
    notices = of(graphs.model(text), tmp_path)
    assert ("nhwc_flatten" in codes(notices)) == warned
    if warned:
        assert "1 dense layers read flattened pixels" in notices[-1].message


def test_tokens_in_nhwc_order_are_no_flatten(tmp_path: Path) -> None:
    tail = (
        "t = Transpose<perm = [0, 2, 3, 1]>(h)  s = Constant<value_ints = [0, 36, 4]>()  r = Reshape(t, s)"
        "  m = MatMul(r, k)  a = Constant<value_ints = [1]>()  f = ReduceMean<keepdims = 0>(m, a)  y = Gemm<transB = 1>(f, fw, fb)"
    )
    assert of(graphs.model(net("h = Conv(x, w)", "float[4,4] k", tail)), tmp_path) == ()


def test_fold_keeps_the_files_own_notices(tmp_path: Path) -> None:
    body = "c = Conv(x, w)  n = BatchNormalization(c, b, b, b, var)  m = Max(n, e)  h = Relu(m)"
    network = noise_layers(graphs.load(graphs.model(net(body, "float[4] var, float[4,1,1] e")), tmp_path), "fold")
    assert codes(network.notices) == ["unattached", "bn_folded"]


def test_one_kernel_in_all_channels(tmp_path: Path) -> None:
    blur = {"k": np.tile([[1, 2], [3, 4]], (4, 1, 1, 1))}
    text = net("c = Conv(x, w)  h = Conv<group = 4>(c, k)", "float[4,1,2,2] k")
    (notice,) = [each for each in of(graphs.model(text, blur), tmp_path) if each.code == "equal_channels"]
    assert "1 depthwise convolutions" in notice.message
    assert "same kernel in all channels" in notice.message
    assert "equal_channels" not in codes(of(graphs.model(text), tmp_path))


def test_norms_that_tensorflows_quantization_merged(tmp_path: Path) -> None:
    proto = graphs.model(net("c = Conv(x, w, b)  h = Relu(c)"))
    (notice,) = of(
        renamed(proto, w="Net/Conv2d_0/Conv2D_Fold;Net/Conv2d_0/weights_quant", b="Net/Conv2d_0/BatchNorm_Fold/bias"),
        tmp_path,
    )
    assert notice.code == "merged_batchnorm"
    assert "1 batch norms" in notice.message
    assert "TFLite" in notice.message


def test_a_class_for_the_background(tmp_path: Path) -> None:
    text = (
        net("c = Conv(x, w)  h = Relu(c)")
        .replace("float[5,4] fw, float[5] fb", "float[1001,4] fw, float[1001] fb")
        .replace("float[N,5] y", "float[N,1001] y")
    )
    assert [each.message for each in of(graphs.model(text), tmp_path) if each.code == "label_offset"] == [
        "1001 classes: most likely those of ImageNet behind one for the background; then the card needs label_offset = 1"
    ]
