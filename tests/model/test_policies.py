from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from support import graphs
from support.normals import unit_normals

from onnxnoise.engine.layer_noise import in_memory
from onnxnoise.model.classifier import Classifier
from onnxnoise.model.network import Network, find_layers
from onnxnoise.model.policies.batch_norms import noise_layers
from onnxnoise.records import VARIANCE, NoiseLayer, NoiseSetting
from onnxnoise.words import Policy

Array = npt.NDArray[Any]
EPSILON = 0.01
NORM = "float[6] ga, float[6] be, float[6] me, float[6] var"
BN = f"BatchNormalization<epsilon = {EPSILON}>"
HEAD = "g = GlobalAveragePool(h)  f = Flatten(g)  y = Gemm<transB = 1>(f, fw, fb)"


def net(body: str, inputs: str = NORM, channels: int = 6) -> str:
    return f"(float[N,4,8,8] x, {inputs}, float[5,{channels}] fw, float[5] fb) => (float[N,5] y) {{ {body}  {HEAD} }}"


def load(text: str, folder: Path, values: dict[str, Any] | None = None) -> tuple[onnx.ModelProto, Classifier]:
    proto = graphs.model(text, values)
    return proto, graphs.load(proto, folder)


def same_logits(network: Network, proto: onnx.ModelProto) -> None:
    x = graphs.image((3, 4, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=1e-5, rtol=1e-4)


def only(network: Network, kind: str) -> NoiseLayer:
    (layer,) = [layer for layer in network.layers if layer.kind == kind]
    return layer


def by_role(network: Network, layer: NoiseLayer) -> dict[int, Array]:
    return {tensor.role: network.constants[tensor.value] for tensor in layer.tensors}


FORMS = {
    "four tensors": (f"float[6,4,3,3] w, {NORM}", f"c = Conv(x, w)  h = {BN}(c, ga, be, me, var)"),
    "caffe": (
        f"float[6,4,3,3] w, {NORM}, float[6,1,1] cs, float[6,1,1] cb",
        f"c = Conv(x, w)  n = {BN}(c, ga, be, me, var)  m = Mul(n, cs)  h = Add(m, cb)",
    ),
    "caffe scale": (
        f"float[6,4,3,3] w, {NORM}, float[6,1,1] cs",
        f"c = Conv(x, w)  n = {BN}(c, ga, be, me, var)  m = Mul(n, cs)  h = Relu(m)",
    ),
    "caffe bias": (
        f"float[6,4,3,3] w, {NORM}, float[6,1,1] cb",
        f"c = Conv(x, w)  n = {BN}(c, ga, be, me, var)  h = Add(n, cb)",
    ),
    "three tensors": (
        "float[6,4,3,3] w, float[6,1,1] ga, float[6,1,1] be, float[6,1,1] me",
        "c = Conv(x, w)  d = Sub(c, me)  m = Mul(d, ga)  h = Add(m, be)",
    ),
    "three tensors, div and sub": (
        "float[6,4,3,3] w, float[6,1,1] var, float[6,1,1] be, float[6,1,1] me",
        "c = Conv(x, w)  d = Sub(c, me)  m = Div(d, var)  h = Sub(m, be)",
    ),
    "two tensors": (
        "float[6,4,3,3] w, float[6,1,1] ga, float[6,1,1] be",
        "c = Conv(x, w)  m = Mul(c, ga)  h = Add(be, m)",
    ),
}


def affine(values: dict[str, Array], form: str) -> tuple[Array, Array]:
    """Scale and shift of each form, in float64."""
    v = {name: value.astype(np.float64).ravel() for name, value in values.items()}
    one, zero = np.ones(6), np.zeros(6)
    if form == "three tensors, div and sub":
        return 1 / v["var"], -v["be"] - v["me"] / v["var"]
    scale = v["ga"] / np.sqrt(v["var"] + np.float32(EPSILON)) if "var" in v else v["ga"]
    shift = v["be"] - v.get("me", zero) * scale
    return scale * v.get("cs", one), shift * v.get("cs", one) + v.get("cb", zero)


@pytest.mark.parametrize("form", FORMS)
def test_affine_is_scale_and_shift(form: str, tmp_path: Path) -> None:
    inputs, body = FORMS[form]
    proto, classifier = load(net(body, inputs), tmp_path)
    network = noise_layers(classifier, "affine")
    same_logits(network, proto)
    layer = only(network, "batchnorm")
    assert (layer.index, layer.parameters) == (2, 12)
    values = by_role(network, layer)
    scale, shift = affine(graphs.initializers(proto), form)
    assert values.keys() == {0, 1}
    for role, expected in ((0, scale), (1, shift)):
        np.testing.assert_allclose(values[role].ravel(), expected, rtol=1e-6)
        assert values[role].dtype == np.float32
        tensor = layer.tensors[role]
        np.testing.assert_allclose(tensor.sigma_w, values[role].astype(np.float64).std(), rtol=1e-12)
        assert tensor.shape == (6,)
    changed = {layer.tensors[1].value: values[1] + np.float32(1)}
    x = graphs.image((3, 4, 8, 8))
    moved = graphs.logits(network, x, changed) - graphs.logits(network, x)
    if "Relu" not in body:  # the shift is added to what the next layer gets
        fw = graphs.initializers(proto)["fw"]
        np.testing.assert_allclose(moved, np.broadcast_to(fw.sum(axis=1), moved.shape), atol=1e-4)


def test_an_epsilon_that_the_file_leaves_out_is_still_one(tmp_path: Path) -> None:
    proto, classifier = load(
        net("c = Conv(x, w)  h = BatchNormalization(c, ga, be, me, var)", f"float[6,4,3,3] w, {NORM}"),
        tmp_path,
        {"var": 1e-5},
    )
    for policy in ("affine", "fold"):
        network = noise_layers(classifier, policy)  # type: ignore[arg-type]
        x = graphs.image((3, 4, 8, 8))
        np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), rtol=1e-4, atol=1e-2)


def test_group_and_raw_perturb_all_four(tmp_path: Path) -> None:
    _, classifier = load(
        net(FORMS["four tensors"][1], FORMS["four tensors"][0]), tmp_path, {"var": [0.1, 0.2, 3, 4, 5, 6]}
    )
    for policy in ("group", "raw"):
        network = noise_layers(classifier, policy)  # type: ignore[arg-type]
        layer = only(network, "batchnorm")
        assert layer.parameters == 24
        drawn = in_memory(layer, network.constants, NoiseSetting(seed=40, sigma_scope="tensor", bn=policy), 0)  # type: ignore[arg-type]
        values, negative = drawn.at(0.3)
        variance = values["var"]
        normals = unit_normals(40, 0, layer.index, VARIANCE, (6,))
        expected = network.constants["var"] + np.float32(layer.tensors[3].sigma_w / 0.3) * normals
        assert negative == int((expected < 0).sum()) > 0
        np.testing.assert_array_equal(variance, np.maximum(expected, 0) if policy == "group" else expected)
        assert drawn.at(1e6)[1] == 0


@pytest.mark.parametrize("policy", ["group", "raw"])
def test_two_tensors_have_no_variance_to_floor(policy: Policy, tmp_path: Path) -> None:
    _, classifier = load(net(FORMS["two tensors"][1], FORMS["two tensors"][0]), tmp_path)
    network = noise_layers(classifier, policy)
    layer = only(network, "batchnorm")
    drawn = in_memory(layer, network.constants, NoiseSetting(seed=40, sigma_scope="tensor", bn=policy), 0)
    assert drawn.at(0.01)[1] == 0
    assert "decomposed_batchnorm" in {notice.code for notice in network.notices}


def test_clean_leaves_batch_norms_out_and_keeps_indices(tmp_path: Path) -> None:
    proto, classifier = load(net(FORMS["four tensors"][1], FORMS["four tensors"][0]), tmp_path)
    network = noise_layers(classifier, "clean")
    assert [(layer.index, layer.kind) for layer in network.layers] == [(1, "conv"), (3, "dense")]
    assert network.parameters == 6 * 36 + 35
    same_logits(network, proto)


HOSTS = {
    "Conv": ("float[6,4,3,3] w", "c = Conv(x, w)", lambda w, s: w * s[:, None, None, None]),
    "Conv with bias": ("float[6,4,3,3] w, float[6] b", "c = Conv(x, w, b)", lambda w, s: w * s[:, None, None, None]),
    "grouped Conv": ("float[6,2,3,3] w", "c = Conv<group = 2>(x, w)", lambda w, s: w * s[:, None, None, None]),
    "ConvTranspose": ("float[4,6,2,2] w, float[6] b", "c = ConvTranspose(x, w, b)", lambda w, s: w * s[None, :, None, None]),
    "grouped ConvTranspose": (
        "float[4,3,2,2] w",
        "c = ConvTranspose<group = 2>(x, w)",
        lambda w, s: (w.reshape(2, 2, 3, 2, 2) * s.reshape(2, 1, 3, 1, 1)).reshape(w.shape),
    ),
    "bias behind a Transpose": (
        "float[6,4,3,3] w, float[1,1,1,6] b",
        "k = Conv(x, w)  t = Transpose<perm = [0, 2, 3, 1]>(k)  a = Add(t, b)  c = Transpose<perm = [0, 3, 1, 2]>(a)",
        lambda w, s: w * s[:, None, None, None],
    ),
}  # fmt: skip


@pytest.mark.parametrize("norm", ["four tensors", "three tensors", "two tensors", "caffe"])
@pytest.mark.parametrize("host", HOSTS)
def test_fold_into_a_convolution(host: str, norm: str, tmp_path: Path) -> None:
    inputs, body, scaled = HOSTS[host]
    norm_inputs, norm_body = FORMS[norm]
    text = net(f"{body}  {norm_body.split('  ', 1)[1]}", f"{inputs}, {norm_inputs.split(', ', 1)[1]}")
    proto, classifier = load(text, tmp_path)
    network = noise_layers(classifier, "fold")
    same_logits(network, proto)
    assert graphs.kinds(network) == ["conv", "dense"]
    values = graphs.initializers(proto)
    scale, shift = affine(values, norm)
    kernel, bias = (network.constants[tensor.value] for tensor in network.layers[0].tensors)
    np.testing.assert_allclose(kernel, scaled(values["w"], scale), rtol=1e-5)
    old = values["b"].ravel() if "b" in values else np.zeros(6)
    np.testing.assert_allclose(bias.ravel(), old * scale + shift, rtol=1e-5, atol=1e-6)
    assert network.layers[0].tensors[0].name == "w"
    notice = network.notices[-1]
    assert (notice.code, notice.message) == (
        "bn_folded",
        "1 batch norms were merged into the convolution or dense layer before them",
    )
    assert not {"BatchNormalization", "Mul", "Sub", "Div"} & {node.op_type for node in network.nodes}


DENSE = {
    "Gemm": ("float[4,6] w, float[6] b", "d = Gemm(a, w, b)"),
    "Gemm, transB": ("float[6,4] w, float[6] b", "d = Gemm<transB = 1>(a, w, b)"),
    "Gemm without bias": ("float[6,4] w", "d = Gemm<transB = 1>(a, w)"),
    "Gemm with alpha and beta": ("float[4,6] w, float[6] b", "d = Gemm<alpha = 0.5, beta = 2.0>(a, w, b)"),
    "MatMul": ("float[4,6] w", "d = MatMul(a, w)"),
    "MatMul and Add": ("float[4,6] w, float[6] b", "p = MatMul(a, w)  d = Add(p, b)"),
    "MatMul with a shape question": ("float[4,6] w", "d = MatMul(a, w)  s = Shape(d)"),
}  # fmt: skip


@pytest.mark.parametrize("norm", ["BatchNormalization", "Mul, Add", "in four dimensions"])
@pytest.mark.parametrize("host", DENSE)
def test_fold_into_a_dense_layer(host: str, norm: str, tmp_path: Path) -> None:
    inputs, body = DENSE[host]
    forms = {
        "BatchNormalization": (NORM, f"o = {BN}(d, ga, be, me, var)"),
        "Mul, Add": ("float[6] ga, float[6] be", "m = Mul(d, ga)  o = Add(m, be)"),
        "in four dimensions": (
            NORM,
            f"i = Constant<value_ints = [-1, 6, 1, 1]>()  r = Reshape(d, i)  n = {BN}(r, ga, be, me, var)"
            "  j = Constant<value_ints = [-1, 6]>()  o = Reshape(n, j)",
        ),
    }
    norm_inputs, norm_body = forms[norm]
    end = "z = Reshape(o, s)" if "Shape(" in body else "z = Relu(o)"
    text = (
        f"(float[N,4,8,8] x, {inputs}, {norm_inputs}, float[5,6] fw, float[5] fb) => (float[N,5] y) {{"
        f" g = GlobalAveragePool(x)  a = Flatten(g)  {body}  {norm_body}  {end}  y = Gemm<transB = 1>(z, fw, fb) }}"
    )
    proto, classifier = load(text, tmp_path)
    network = noise_layers(classifier, "fold")
    same_logits(network, proto)
    assert graphs.kinds(network) == ["dense", "dense"]
    assert network.layers[0].parameters == 30
    assert [tensor.role for tensor in network.layers[0].tensors] == [0, 1]


def test_fold_on_tokens(tmp_path: Path) -> None:
    """Rank 3: the bias is an Add of its own, and the norm's channels are the last dimension."""
    text = (
        "(float[N,4,8,8] x, float[4,6] w, float[6] b, float[6] ga, float[6] be, float[5,6] fw, float[5] fb) => (float[N,5] y) {"
        " i = Constant<value_ints = [0, 4, 64]>()  r = Reshape(x, i)  t = Transpose<perm = [0, 2, 1]>(r)  p = MatMul(t, w)"
        " q = Add(p, b)  m = Mul(q, ga)  o = Add(m, be)  n = Constant<value_ints = [1]>()  f = ReduceMean<keepdims = 0>(o, n)"
        " y = Gemm<transB = 1>(f, fw, fb) }"
    )
    proto, classifier = load(text, tmp_path)
    network = noise_layers(classifier, "fold")
    same_logits(network, proto)
    assert graphs.kinds(network) == ["dense", "dense"]


NOT_FOLDED = {
    "a residual taps the convolution": (f"c = Conv(x, w)  n = {BN}(c, ga, be, me, var)  h = Add(n, c)", ""),
    "behind a Relu": (f"c = Conv(x, w)  r = Relu(c)  h = {BN}(r, ga, be, me, var)", ""),
    "before the convolution": (f"i = {BN}(x, ga, be, me, var)  h = Conv(i, w)", "float[6,4,3,3] w, float[4] ga, float[4] be, float[4] me, float[4] var"),
    "behind a sum": (f"c = Conv(x, w)  d = Conv(x, v)  s = Add(c, d)  h = {BN}(s, ga, be, me, var)", f"float[6,4,3,3] w, float[6,4,3,3] v, {NORM}"),
    "behind quantization": (f"c = Conv(x, w)  q = QuantizeLinear(c, step)  d = DequantizeLinear(q, step)  h = {BN}(d, ga, be, me, var)", f"float[6,4,3,3] w, {NORM}, float step"),
    "columns, not channels": ("c = Conv(x, w)  m = Mul(c, ga)  h = Add(m, be)", "float[6,4,3,3] w, float[6] ga, float[6] be"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "inputs"), NOT_FOLDED.values(), ids=NOT_FOLDED.keys())
def test_what_no_convolution_alone_feeds_is_affine_and_listed(body: str, inputs: str, tmp_path: Path) -> None:
    proto, classifier = load(
        net(body, inputs or f"float[6,4,3,3] w, {NORM}"), tmp_path, {"step": 0.5} if "step" in body else None
    )
    network = noise_layers(classifier, "fold")
    x = graphs.image((3, 4, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=0.3 if "step" in body else 1e-4)
    left = only(network, "batchnorm")
    assert {tensor.role for tensor in left.tensors} == {0, 1}
    assert network.notices[-1].code == "bn_folded"
    assert network.notices[-1].message.endswith(f"1 have none and are treated as affine: {left.name}")


def test_fold_renumbers_and_equals_the_merged_export(tmp_path: Path) -> None:
    """A residual block; an exporter's own merging is done here with NumPy."""
    tensors = ", ".join(f"float[6] {kind}{i}" for i in (1, 2, 3) for kind in ("ga", "be", "me", "var"))
    norms = [f"n{i} = {BN}(c{i}, ga{i}, be{i}, me{i}, var{i})" for i in (1, 2, 3)]
    kernels = "float[6,4,3,3] w1, float[6,6,3,3] w2, float[6,4,1,1] w3"
    block = (
        "c1 = Conv<pads = [1, 1, 1, 1]>(x, w1{})  {}  r = Relu(n1)  c2 = Conv<pads = [1, 1, 1, 1]>(r, w2{})  {}"
        "  c3 = Conv(x, w3{})  {}  h = Add(n3, n2)"
    )
    kept = net(block.format("", norms[0], "", norms[1], "", norms[2]), f"{kernels}, {tensors}")
    proto, classifier = load(kept, tmp_path)
    values = graphs.initializers(proto)
    given: dict[str, Any] = {"fw": values["fw"], "fb": values["fb"]}
    for i in (1, 2, 3):
        scale = values[f"ga{i}"].astype(np.float64) / np.sqrt(values[f"var{i}"] + EPSILON)
        given[f"w{i}"] = values[f"w{i}"] * scale[:, None, None, None]
        given[f"b{i}"] = values[f"be{i}"] - values[f"me{i}"] * scale
    same = [f"n{i} = Identity(c{i})" for i in (1, 2, 3)]
    merged_text = net(
        block.format(", b1", same[0], ", b2", same[1], ", b3", same[2]),
        f"{kernels}, float[6] b1, float[6] b2, float[6] b3",
    )
    _, merged = load(merged_text, tmp_path, given)
    ours, theirs = noise_layers(classifier, "fold"), find_layers(merged)
    same_logits(ours, proto)
    assert len(noise_layers(classifier, "group").layers) == 7
    assert [layer.index for layer in ours.layers] == [1, 2, 3, 4]
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        assert (mine.index, mine.kind, mine.parameters) == (other.index, other.kind, other.parameters)
        np.testing.assert_allclose(mine.sigma_w, other.sigma_w, atol=1e-6)


@pytest.mark.parametrize("policy", ["group", "raw", "affine", "fold", "clean"])
def test_no_policy_changes_the_clean_network(policy: Policy, tmp_path: Path) -> None:
    """Shared tensors, a batch norm of each form, and one that feeds two branches."""
    body = (
        f"c = Conv(x, w, b)  n = {BN}(c, ga, be, me, var)  r = Relu(n)  d = Conv(r, w2, b)  o = {BN}(d, ga, be, me, var)"
        "  m = Mul(r, s)  p = Add(m, t)  e = Conv(p, w2)  q = Sub(e, m3)  u = Div(q, vard)  v = Add(u, t)  h = Sum(o, v, r)"
    )
    inputs = f"float[6,4,3,3] w, float[6,6,1,1] w2, float[6] b, {NORM}, float[6,1,1] s, float[6,1,1] t, float[6,1,1] m3, float[6,1,1] vard"
    proto, classifier = load(net(body, inputs), tmp_path)
    network = noise_layers(classifier, policy)
    same_logits(network, proto)
    values = [tensor.value for layer in network.layers for tensor in layer.tensors]
    assert len(set(values)) == len(values)
    assert set(values) <= network.constants.keys()
    reads = Counter(name for node in network.nodes for name in node.input)
    assert all(reads[value] == 1 for value in values)
    assert network.parameters == sum(network.constants[value].size for value in values)
    expected = {"fold": 5, "clean": 4}.get(policy, 8)
    assert len(network.layers) == expected
