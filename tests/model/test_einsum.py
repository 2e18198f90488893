"""Einsum with a weight is a dense layer: the same table, noise and logits as the product that it stands for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import graphs

from onnxnoise.engine.layer_noise import in_memory
from onnxnoise.model.network import Network, find_layers
from onnxnoise.records import NoiseSetting

TOKENS = "i = Constant<value_ints = [0, 4, 36]>()  r = Reshape(c, i)  t = Transpose<perm = [0, 2, 1]>(r)"
HEAD = "a = Constant<value_ints = [1]>()  f = ReduceMean<keepdims = 0>(o, a)  y = Gemm<transB = 1>(f, fw, fb)"
NET = "(float[N,3,8,8] x, float[4,3,3,3] w, {} float[5,{}] fw, float[5] fb) => (float[N,5] y) {{ c = Conv(x, w)  {}  {}  {} }}"
MATRIX = np.random.default_rng(5).normal(size=(6, 4)).astype(np.float32)
BIAS = np.random.default_rng(6).normal(size=6).astype(np.float32)


def found(proto_text: str, values: dict[str, np.ndarray], folder: Path) -> Network:  # type: ignore[type-arg]
    proto = graphs.model(proto_text, values)
    network = find_layers(graphs.load(proto, folder))
    x = graphs.image((2, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=1e-4)
    return network


def noisy_logits(network: Network) -> np.ndarray:  # type: ignore[type-arg]
    changed = {}
    for layer in network.layers:
        noise = in_memory(layer, network.constants, NoiseSetting(), 0)
        changed |= noise.at(5.0)[0]
    return graphs.logits(network, graphs.image((2, 3, 8, 8)), changed)


def plain(folder: Path, bias: bool = True) -> Network:
    body = "p = MatMul(t, k)  o = Add(p, b)" if bias else "o = MatMul(t, k)"
    inputs = "float[4,6] k, float[6] b," if bias else "float[4,6] k,"
    values = {"k": MATRIX.T, "b": BIAS} if bias else {"k": MATRIX.T}
    return found(NET.format(inputs, 6, TOKENS, body, HEAD), values, folder)


FLAT = "j = Constant<value_ints = [0, 36, 6]>()  o = Reshape(e, j)"
HEADS = MATRIX.T.reshape(4, 2, 3)
CASES = {
    "in, out": ("float[4,6] k, float[6] b,", 'p = Einsum<equation = "bti,io->bto">(t, k)  o = Add(p, b)', {"k": MATRIX.T, "b": BIAS}),
    "out, in": ("float[6,4] k, float[6] b,", 'p = Einsum<equation = "bti,oi->bto">(t, k)  o = Add(b, p)', {"k": MATRIX, "b": BIAS}),
    "weight first": ("float[6,4] k, float[6] b,", 'p = Einsum<equation = "oi, bti -> bto">(k, t)  o = Add(p, b)', {"k": MATRIX, "b": BIAS}),
    "ellipsis": ("float[4,6] k, float[6] b,", 'p = Einsum<equation = "...i,io->...o">(t, k)  o = Add(p, b)', {"k": MATRIX.T, "b": BIAS}),
    "implicit": ("float[4,6] k, float[6] b,", 'p = Einsum<equation = "abi,io">(t, k)  o = Add(p, b)', {"k": MATRIX.T, "b": BIAS}),
    "heads": ("float[4,2,3] k, float[2,3] b,", f'p = Einsum<equation = "btd,dhk->bthk">(t, k)  e = Add(p, b)  {FLAT}', {"k": HEADS, "b": BIAS.reshape(2, 3)}),
    "heads first": ("float[2,4,3] k, float[2,3] b,", f'p = Einsum<equation = "btd,hdk->bthk">(t, k)  e = Add(p, b)  {FLAT}', {"k": HEADS.transpose(1, 0, 2), "b": BIAS.reshape(2, 3)}),
    "channels first": ("float[4,6] k, float[6] b,", 'p = Einsum<equation = "bit,io->bto">(r, k)  o = Add(p, b)', {"k": MATRIX.T, "b": BIAS}),
}  # fmt: skip


@pytest.mark.parametrize(("inputs", "body", "values"), CASES.values(), ids=CASES.keys())
def test_a_dense_layer(inputs: str, body: str, values: dict[str, np.ndarray], tmp_path: Path) -> None:  # type: ignore[type-arg]
    network, truth = found(NET.format(inputs, 6, TOKENS, body, HEAD), values, tmp_path), plain(tmp_path)
    assert graphs.members(network) == graphs.members(truth)
    assert [[t.shape for t in layer.tensors] for layer in network.layers] == [
        [t.shape for t in layer.tensors] for layer in truth.layers
    ]
    assert [layer.sigma_w for layer in network.layers] == [layer.sigma_w for layer in truth.layers]
    assert not network.notices
    np.testing.assert_allclose(noisy_logits(network), noisy_logits(truth), atol=1e-4)


def test_several_dimensions_are_summed(tmp_path: Path) -> None:
    cut = "j = Constant<value_ints = [0, 0, 2, 2]>()  q = Reshape(t, j)"
    body = f'{cut}  o = Einsum<equation = "bthk,hkd->btd">(q, k)'
    network = found(NET.format("float[2,2,6] k,", 6, TOKENS, body, HEAD), {"k": MATRIX.T.reshape(2, 2, 6)}, tmp_path)
    np.testing.assert_allclose(noisy_logits(network), noisy_logits(plain(tmp_path, bias=False)), atol=1e-4)


def test_a_matrix_for_each_group(tmp_path: Path) -> None:
    cut = "j = Constant<value_ints = [0, 0, 2, 2]>()  q = Reshape(t, j)"
    flat = "l = Constant<value_ints = [0, 36, 6]>()  o = Reshape(e, l)"
    body = f'{cut}  e = Einsum<equation = "btgi,gio->btgo">(q, k)  {flat}'
    network = found(NET.format("float[2,2,3] k,", 6, TOKENS, body, HEAD), {}, tmp_path)
    assert graphs.kinds(network) == ["conv", "dense", "dense"]
    assert network.layers[1].parameters == 12


def test_a_scale(tmp_path: Path) -> None:
    body = 'o = Einsum<equation = "btd,d->btd">(t, k)'
    network = found(NET.format("float[4] k,", 4, TOKENS, body, HEAD), {}, tmp_path)
    assert graphs.members(network)[1] == ("scale", {0: "k"})


def test_a_vector(tmp_path: Path) -> None:
    body = 'v = Einsum<equation = "btd,d->bt">(t, k)'
    text = NET.format("float[4] k,", 36, TOKENS, body, "y = Gemm<transB = 1>(v, fw, fb)")
    assert graphs.kinds(found(text, {}, tmp_path)) == ["conv", "dense", "dense"]


def test_two_of_images_stay(tmp_path: Path) -> None:
    body = 's = Einsum<equation = "btd,bsd->bts">(t, t)  o = MatMul(s, t)'
    network = found(NET.format("", 4, TOKENS, body, HEAD), {}, tmp_path)
    assert any(node.op_type == "Einsum" for node in network.nodes)
    assert graphs.kinds(network) == ["conv", "dense"]
