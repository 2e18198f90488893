"""Weights in bodies of If and Loop are layers, as in the plain network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support import graphs

from onnxnoise.model.network import Network, find_layers

HEAD = "g = GlobalAveragePool(h)  f = Flatten(g)  y = Gemm<transB = 1>(f, fw, fb)"
NET = (
    "(float[N,3,8,8] x, float[4,3,3,3] w, float[4,4,1,1] k, float[4] b, float[4] ga, float[4] be, float[4] me, float[4] var,"
    " float[5,4] fw, float[5] fb) => (float[N,5] y) {{ c = Conv(x, w)  {} }}"
)
BLOCK = "d = Conv(c, k, b)  n = BatchNormalization(d, ga, be, me, var)  o = Relu(n)"
PLAIN = NET.format(f"{BLOCK}  h = Identity(o)  {HEAD}")
ONE, THREE, FOUR = (f"i{v} = Constant<value_int = {v}>()" for v in (1, 3, 4))
OTHER = "e (float[N] u) => (float[N,4,6,6] q) { q = Relu(c) }"
THEN = f"t (float[N] u) => (float[N,4,6,6] o) {{ {BLOCK} }}"


def body(text: str) -> onnx.GraphProto:
    """A branch as ONNX text; its input is there for the parser alone."""
    graph = onnx.parser.parse_graph(text)
    del graph.input[:]
    return graph


def with_if(condition: str, then: str = THEN, other: str = OTHER, net: str = NET, head: str = HEAD) -> onnx.ModelProto:
    proto = graphs.model(net.format(f"{condition}  h = Identity(c)  {head}"))
    node = next(node for node in proto.graph.node if list(node.output) == ["h"])
    node.CopyFrom(onnx.helper.make_node("If", ["b0"], ["h"], then_branch=body(then), else_branch=body(other)))
    return proto


def layers_of(proto: onnx.ModelProto, folder: Path) -> Network:
    network = find_layers(graphs.load(proto, folder))
    x = graphs.image((2, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=1e-5)
    return network


def table(network: Network) -> list[Any]:
    return [
        (layer.name, layer.kind, layer.parameters, layer.sigma_w, *(t.shape for t in layer.tensors))
        for layer in network.layers
    ]


CONDITIONS = {
    "rank": f"{FOUR}  s = Shape(x)  r = Size(s)  b0 = Equal(r, i4)",
    "shape of a shape": "i4 = Constant<value_ints = [4]>()  s = Shape(x)  r = Shape(s)  b1 = Equal(r, i4)  z = Constant<value_ints = [0]>()  b0 = Squeeze(b1, z)",
    "channels": f"{ONE}  {THREE}  s = Shape(x)  r = Gather(s, i1)  b0 = Equal(r, i3)",
    "not empty": "i0 = Constant<value_int = 0>()  s = Shape(x)  r = Gather(s, i0)  b0 = Greater(r, i0)",
    "either": f"{ONE}  {THREE}  s = Shape(c)  r = Gather(s, i1)  i0 = Constant<value_int = 0>()  n = Gather(s, i0)  p = Equal(n, i3)  q0 = Greater(r, i3)  b0 = Or(p, q0)",
    "pixels": "a = Constant<value_ints = [2]>()  e = Constant<value_ints = [4]>()  s = Shape(x)  r = Slice(s, a, e)  m = ReduceProd<keepdims = 0>(r)  i64 = Constant<value_int = 64>()  b1 = Less(m, i64)  b0 = Not(b1)",
}  # fmt: skip


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS.keys())
def test_an_if_that_shapes_decide(condition: str, tmp_path: Path) -> None:
    network = layers_of(
        with_if(condition.replace(" n = Gather", " n0 = Gather").replace("Equal(n,", "Equal(n0,")), tmp_path
    )
    assert table(network) == table(find_layers(graphs.load(graphs.model(PLAIN), tmp_path)))
    assert not network.notices
    assert not [node for node in network.nodes if node.op_type in ("If", "Where")]


def test_the_other_branch(tmp_path: Path) -> None:
    network = layers_of(with_if(f"{THREE}  s = Shape(x)  r = Size(s)  b0 = Equal(r, i3)"), tmp_path)
    assert graphs.kinds(network) == ["conv", "dense"]


def test_the_whole_network_in_a_branch_of_a_branch(tmp_path: Path) -> None:
    inner = body(
        f"t (float[N] u) => (float[N,5] y) {{ {BLOCK}  g = GlobalAveragePool(o)  f = Flatten(g)  y = Gemm<transB = 1>(f, fw, fb) }}"
    )
    other = body("e (float[N] u) => (float[N,4] v) { p = GlobalAveragePool(c)  v = Flatten(p) }")
    middle = onnx.helper.make_graph(
        [onnx.helper.make_node("If", ["b0"], ["y"], then_branch=inner, else_branch=other)],
        "m",
        [],
        [onnx.ValueInfoProto(name="y")],
    )
    proto = with_if(CONDITIONS["rank"], head="y = Flatten(h)")
    node = next(node for node in proto.graph.node if list(node.output) == ["h"])
    node.CopyFrom(onnx.helper.make_node("If", ["b0"], ["y"], then_branch=middle, else_branch=other))
    del proto.graph.node[-1]
    network = layers_of(proto, tmp_path)
    assert table(network) == table(find_layers(graphs.load(graphs.model(PLAIN), tmp_path)))


BATCH = f"{THREE}  i0 = Constant<value_int = 0>()  s = Shape(x)  r = Gather(s, i0)  b0 = Greater(r, i3)"


def test_branches_that_do_the_same_are_one(tmp_path: Path) -> None:
    twin = THEN.replace("d = ", "d2 = ").replace("(d,", "(d2,").replace("n = ", "n2 = ").replace("(n)", "(n2)")
    network = layers_of(with_if(BATCH, other=twin.replace(" o = ", " p = ").replace("] o)", "] p)")), tmp_path)
    assert table(network) == table(find_layers(graphs.load(graphs.model(PLAIN), tmp_path)))
    assert not network.notices


def test_both_branches_bear_noise_where_the_condition_is_open(tmp_path: Path) -> None:
    proto = with_if(BATCH)
    network = layers_of(proto, tmp_path)
    assert table(network) == table(find_layers(graphs.load(graphs.model(PLAIN), tmp_path)))
    x = graphs.image((5, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=1e-5)


def test_branches_of_another_shape_stay(tmp_path: Path) -> None:
    proto = with_if(BATCH, other="e (float[N] u) => (float[N,4,1,1] q) { q = GlobalAveragePool(c) }")
    network = layers_of(proto, tmp_path)
    assert graphs.kinds(network) == ["conv", "dense"]
    (notice,) = network.notices
    assert "k (16 values into Conv inside If)" in notice.message
    assert [(each.name, each.elements) for each in network.unattached if each.name in "kb"] == [("k", 16), ("b", 4)]
    assert network.unattached_share == 36 / (network.parameters + 36)


def loop(steps: int | None, outputs: Sequence[str] = ("h",), scanned: bool = False) -> onnx.ModelProto:
    """`steps` times a residual convolution with the same kernel; None: as many as there are images."""
    number = (
        f"m = Constant<value_int = {steps}>()"
        if steps is not None
        else "s = Shape(x)  i0 = Constant<value_int = 0>()  m = Gather(s, i0)"
    )
    tail = HEAD if not scanned else f"a = Constant<value_ints = [0]>()  h = ReduceSum<keepdims = 0>(all, a)  {HEAD}"
    proto = graphs.model(NET.format(f"yes = Constant<value = bool {{1}}>()  {number}  h0 = Identity(c)  {tail}"))
    inside = onnx.parser.parse_graph(
        "b (int64 i, bool on, float[N,4,6,6] v) => (bool go, float[N,4,6,6] u) { d = Conv(v, k, b)  u = Add(d, v)  go = Identity(on) }"
    )
    if scanned:
        inside.node.append(onnx.helper.make_node("Relu", ["u"], ["each"]))
        inside.output.append(onnx.helper.make_tensor_value_info("each", 1, ["N", 4, 6, 6]))
    for node in inside.node:
        node.name = f"/{node.op_type}"
    node = next(node for node in proto.graph.node if list(node.output) == ["h0"])
    node.CopyFrom(onnx.helper.make_node("Loop", ["m", "yes", "c"], list(outputs), body=inside))
    return proto


STEPS = [("d", "c", "u"), ("d2", "u", "u2"), ("d3", "u2", "u3")]


@pytest.mark.parametrize("steps", [1, 3])
def test_a_loop_is_unrolled(steps: int, tmp_path: Path) -> None:
    unrolled = "  ".join(f"{d} = Conv({v}, k, b)  {u} = Add({d}, {v})" for d, v, u in STEPS[:steps])
    plain = graphs.model(NET.format(f"{unrolled}  h = Identity({STEPS[steps - 1][2]})  {HEAD}"))
    network = layers_of(loop(steps), tmp_path)
    assert [row[1:] for row in table(network)] == [row[1:] for row in table(find_layers(graphs.load(plain, tmp_path)))]
    assert [notice.code for notice in network.notices] == (["tied_kernels"] if steps > 1 else [])


def test_what_a_loop_collects(tmp_path: Path) -> None:
    network = layers_of(loop(3, ["last", "all"], scanned=True), tmp_path)
    assert graphs.kinds(network) == ["conv"] * 4 + ["dense"]


def test_a_loop_of_unknown_length_keeps_its_weights_to_itself(tmp_path: Path) -> None:
    network = layers_of(loop(None), tmp_path)
    assert graphs.kinds(network) == ["conv", "dense"]
    assert "k (16 values into Conv inside Loop)" in network.notices[0].message
