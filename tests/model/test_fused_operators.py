"""ONNX Runtime's fused operators hold the same layers as the networks that it fused: same table, noise and logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import graphs

from onnxnoise.engine.layer_noise import in_memory
from onnxnoise.model.network import Network, find_layers
from onnxnoise.records import NoiseSetting

Array = np.ndarray[Any, Any]

TOKENS = "i = Constant<value_ints = [0, 4, 36]>()  r = Reshape(c, i)  t = Transpose<perm = [0, 2, 1]>(r)"
HEAD = "a = Constant<value_ints = [1]>()  f = ReduceMean<keepdims = 0>(o, a)  y = Gemm<transB = 1>(f, fw, fb)"
NET = "(float[N,3,8,8] x, float[4,3,3,3] w, {} float[5,4] fw, float[5] fb) => (float[N,5] y) {{ c = Conv(x, w)  {}  {}  {} }}"


def network_of(inputs: str, body: str, folder: Path, values: dict[str, Array], names: dict[str, str]) -> Network:
    proto = graphs.model(NET.format(inputs, TOKENS, body, HEAD), None, domains=["com.microsoft"])
    random = np.random.default_rng(3)
    for tensor in proto.graph.initializer:
        array = random.normal(0.1, 0.5, tuple(tensor.dims)) if tensor.name in ("w", "fw", "fb") else values[tensor.name]
        raw = np.ascontiguousarray(array, np.float32)
        tensor.ClearField("float_data")
        tensor.raw_data = raw.tobytes()
    for node in proto.graph.node:
        node.name = names.get(node.op_type, "")
        for at, name in enumerate(node.input):
            node.input[at] = names.get(name, name)
    for tensor in proto.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    network = find_layers(graphs.load(proto, folder))
    x = graphs.image((2, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=1e-4)
    return network


def noisy_logits(network: Network) -> Array:
    changed = {}
    for layer in network.layers:
        noise = in_memory(layer, network.constants, NoiseSetting(), 0)
        changed |= noise.at(5.0)[0]
    return graphs.logits(network, graphs.image((2, 3, 8, 8)), changed)


def random(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(0.1, 0.5, shape).astype(np.float32)


K, B, GA, BE = random(1, 4, 4), random(2, 4), 1 + random(4, 4), random(5, 4)
QW, KW, VW = (random(seed, 4, 4) for seed in (11, 12, 13))
QB, KB, VB = (random(seed, 4) for seed in (14, 15, 16))
NORM_INPUTS = "float[4,4] k, float[4] b, float[4] ga, float[4] be,"
NORM_VALUES = {"k": K, "b": B, "ga": GA, "be": BE}
QKV_INPUTS = "float[4,4] qw, float[4] qb, float[4,4] kw, float[4] kb, float[4,4] vw, float[4] vb,"
QKV_VALUES = {"qw": QW, "qb": QB, "kw": KW, "kb": KB, "vw": VW, "vb": VB}
SPLIT = "hs = Constant<value_ints = [0, 36, 2, 2]>()"
ATTEND = (
    f"{SPLIT}  qh = Reshape(q, hs)  qt = Transpose<perm = [0, 2, 1, 3]>(qh)  kh = Reshape(kk, hs)  kt = Transpose<perm = [0, 2, 3, 1]>(kh)"
    "  vh = Reshape(v, hs)  vt = Transpose<perm = [0, 2, 1, 3]>(vh)  s = MatMul(qt, kt)  scale = Constant<value_float = 0.70710678>()"
    "  ss = Mul(s, scale)  p = Softmax<axis = -1>(ss)  z = MatMul(p, vt)  zt = Transpose<perm = [0, 2, 1, 3]>(z)"
    "  back = Constant<value_ints = [0, 36, 4]>()  o = Reshape(zt, back)"
)
DENSE = "q0 = MatMul(t, qw)  q = Add(q0, qb)  k0 = MatMul(t, kw)  kk = Add(k0, kb)  v0 = MatMul(t, vw)  v = Add(v0, vb)"
ATTENTION = "o = com.microsoft.Attention<num_heads = 2>(t, m, n)"
MERGED: dict[str, Array] = {"m": np.concatenate([QW, KW, VW], axis=1), "n": np.concatenate([QB, KB, VB])}

Case = tuple[str, str, dict[str, Array], str, str, dict[str, Array], dict[str, str]]
CASES: dict[str, Case] = {
    "BiasGelu": (
        "float[4,4] k, float[4] b,", "m = MatMul(t, k)  o = com.microsoft.BiasGelu(m, b)", {"k": K, "b": B},
        "float[4,4] k, float[4] b,", "m = MatMul(t, k)  n = Add(m, b)  o = com.microsoft.Gelu(n)", {"k": K, "b": B}, {},
    ),
    "FastGelu": (
        "float[4,4] k, float[4] b,", "m = MatMul(t, k)  o = com.microsoft.FastGelu(m, b)", {"k": K, "b": B},
        "float[4,4] k, float[4] b,", "m = MatMul(t, k)  n = Add(m, b)  o = com.microsoft.FastGelu(n)", {"k": K, "b": B}, {},
    ),
    "SkipLayerNormalization": (
        NORM_INPUTS, "m = MatMul(t, k)  o = com.microsoft.SkipLayerNormalization<epsilon = 0.00001>(t, m, ga, be, b)", NORM_VALUES,
        NORM_INPUTS, "m = MatMul(t, k)  n = Add(m, b)  s = Add(t, n)  o = LayerNormalization(s, ga, be)", NORM_VALUES, {},
    ),
    "SkipLayerNormalization without bias": (
        NORM_INPUTS, "m = MatMul(t, k)  n = Add(m, b)  o = com.microsoft.SkipLayerNormalization<epsilon = 0.00001>(n, t, ga, be)", NORM_VALUES,
        NORM_INPUTS, "m = MatMul(t, k)  n = Add(m, b)  s = Add(t, n)  o = LayerNormalization(s, ga, be)", NORM_VALUES, {},
    ),
    "Attention": ("float[4,12] m, float[12] n,", ATTENTION, MERGED, QKV_INPUTS, f"{DENSE}  {ATTEND}", QKV_VALUES, {"m": "Attention_0_qkv_weight", "n": "Attention_0_qkv_bias"}),
    "Attention of the C++ optimizer": ("float[4,12] m, float[12] n,", ATTENTION, MERGED, QKV_INPUTS, f"{DENSE}  {ATTEND}", QKV_VALUES, {"m": "qkv_weights", "n": "qkv_bias", "Attention": "attention"}),
    "Attention that was one layer": (
        "float[4,12] m, float[12] n,", ATTENTION, MERGED,
        "float[4,12] m, float[12] n,", f"w0 = MatMul(t, m)  w1 = Add(w0, n)  q, kk, v = Split<axis = 2, num_outputs = 3>(w1)  {ATTEND}", MERGED, {"m": "attn.qkv.weight"},
    ),
    "MultiHeadAttention": (
        "float[4,4] qw, float[4,4] kw, float[4,4] vw, float[12] n,",
        "q = MatMul(t, qw)  kk = MatMul(t, kw)  v = MatMul(t, vw)  o = com.microsoft.MultiHeadAttention<num_heads = 2>(q, kk, v, n)",
        {"qw": QW, "kw": KW, "vw": VW, "n": MERGED["n"]},
        QKV_INPUTS, f"{DENSE}  {ATTEND}", QKV_VALUES, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_same_layers(case: Case, tmp_path: Path) -> None:
    inputs, body, values, plain_inputs, plain_body, plain_values, names = case
    network = network_of(inputs, body, tmp_path, values, names)
    truth = network_of(plain_inputs, plain_body, tmp_path, plain_values, {})
    for layer, plain in zip(network.layers, truth.layers, strict=True):
        assert (layer.kind, layer.parameters, layer.sigma_w) == (plain.kind, plain.parameters, plain.sigma_w)
        assert [t.role for t in layer.tensors] == [t.role for t in plain.tensors]
        assert [t.shape for t in layer.tensors] == [t.shape for t in plain.tensors]
    assert not network.notices
    assert not network.unattached
    np.testing.assert_allclose(noisy_logits(network), noisy_logits(truth), atol=1e-3)


def test_merged_layers_have_names(tmp_path: Path) -> None:
    inputs, body, values, *_, names = CASES["Attention"]
    network = network_of(inputs, body, tmp_path, values, {**names, "Attention": "Attention_0"})
    assert [layer.name for layer in network.layers[1:4]] == [
        "Attention_0.query",
        "Attention_0.key",
        "Attention_0.value",
    ]


def test_a_fused_bias_that_follows_no_layer(tmp_path: Path) -> None:
    network = network_of("float[4] b,", "u = Relu(t)  o = com.microsoft.BiasGelu(u, b)", tmp_path, {"b": B}, {})
    assert graphs.members(network)[1] == ("parameter", {0: "b"})


def test_a_bias_beside_a_computed_kernel(tmp_path: Path) -> None:
    text = (
        "(float[1,3,8,8] x, float[4,3,3,3] w, float[4] b, float[5,4] fw) => (float[1,5] y) {"
        " g0 = GlobalAveragePool(x)  e = Expand(w, n)  k = Mul(e, g0)  n = Shape(w)  c = Conv(x, k, b)"
        " g = GlobalAveragePool(c)  f = Flatten(g)  y = Gemm<transB = 1>(f, fw) }"
    ).replace("e = Expand(w, n)  k = Mul(e, g0)  n = Shape(w)", "n = Shape(w)  e = Expand(w, n)  k = Mul(e, g0)")
    network = find_layers(graphs.load(graphs.model(text), tmp_path))
    assert ("conv", {1: "b"}) in graphs.members(network)
