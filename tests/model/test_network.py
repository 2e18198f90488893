from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper
from support import graphs

from onnxnoise.errors import ModelError
from onnxnoise.model.network import Network, find_layers

Array = npt.NDArray[Any]
COMMUTATIVE = ("Add", "Mul", "Sum", "Max", "Min", "Mean")
WEIGHTS = {"Conv": (1,), "BatchNormalization": (1, 2, 3, 4), "Gemm": (1, 2)}


class Oracle:
    """The canonical order as it is defined, slow and recursive, on the file's own graph."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.maker = {name: node for node in proto.graph.node for name in node.output}
        self.values = graphs.initializers(proto)
        self.order: list[str] = []
        self.visited: set[str] = set()
        self.walk(proto.graph.output[0].name)

    def layers(self, name: str) -> dict[str, list[Array]]:
        """The layers in a value's subgraph: the output of its node, its initializers."""
        if name not in self.maker:
            return {}
        node = self.maker[name]
        found: dict[str, list[Array]] = {}
        for operand in node.input:
            found |= self.layers(operand)
        slots = WEIGHTS.get(node.op_type, ())
        return {**found, **({name: [self.values[node.input[slot]] for slot in slots]} if slots else {})}

    def depth(self, name: str) -> int:
        if name == "x":
            return 0
        if name not in self.maker:
            return -1
        node = self.maker[name]
        deepest = max(self.depth(operand) for operand in node.input)
        return deepest + (node.op_type in WEIGHTS) if deepest >= 0 else -1

    def rank(self, name: str) -> tuple[int, int, str]:
        values = [array.ravel() for arrays in self.layers(name).values() for array in arrays]
        noise = np.sort(np.concatenate([*values, np.empty(0, np.float32)]))
        return -self.depth(name), -noise.size, hashlib.sha256(noise.astype("<f4").tobytes()).hexdigest()

    def walk(self, name: str) -> None:
        if name in self.visited or name not in self.maker:
            return
        self.visited.add(name)
        node = self.maker[name]
        operands = list(node.input)
        for operand in sorted(operands, key=self.rank) if node.op_type in COMMUTATIVE else operands:
            self.walk(operand)
        if node.op_type in WEIGHTS:
            self.order.append(node.input[WEIGHTS[node.op_type][0]])


def random_classifier(seed: int, nodes: int = 9) -> onnx.ModelProto:
    """Branches of few sizes that meet again and again, so that depths, sizes and sometimes values tie."""
    random = np.random.default_rng(seed)
    body, tensors, values = [], [], ["x"]

    def add(op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"{op_type.lower()}_{len(body)}"
        body.append(helper.make_node(op_type, inputs, [name], **attributes))
        values.append(name)
        return name

    def tensor(*shape: int, positive: bool = False) -> str:
        name = f"t{len(tensors)}"
        value = random.normal(0, 0.5, shape).astype(np.float32)
        tensors.append(onnx.numpy_helper.from_array(np.abs(value) + 0.5 if positive else value, name))
        return name

    for _ in range(nodes):
        picked = [values[i] for i in random.integers(max(0, len(values) - 5), len(values), 3)]
        match random.integers(6):
            case 0 | 1 | 2:
                add("Conv", [picked[0], tensor(3, 3, 1, 1)])
            case 3:
                add("BatchNormalization", [picked[0], *(tensor(3, positive=k == 3) for k in range(4))])
            case 4:
                add(str(random.choice(["Add", "Mul", "Max"])), picked[:2])
            case _:
                add("Concat", picked[:2], axis=1)
                add("Conv", [values.pop(), tensor(3, 6, 1, 1)])
    last = add("Sum", values[-4:])
    flat = add("Flatten", [add("GlobalAveragePool", [last])])
    body.append(helper.make_node("Gemm", [flat, tensor(5, 3), tensor(5)], ["y"], transB=1))
    images = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 4, 4])
    scores = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 5])
    graph = helper.make_graph(body, "g", [images], [scores], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def rearranged(proto: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The same network as another exporter would write it: other node order and names, operands swapped."""
    random = np.random.default_rng(seed)
    other = onnx.ModelProto.FromString(proto.SerializeToString())
    names = {name: f"v{random.integers(1 << 40)}" for node in other.graph.node for name in node.output if name != "y"}
    waiting = list(other.graph.node)
    made = {"x", *(tensor.name for tensor in other.graph.initializer)}
    placed = []
    while waiting:
        ready = [node for node in waiting if all(name in made for name in node.input)]
        node = ready[random.integers(len(ready))]
        waiting.remove(node)
        made.update(node.output)
        placed.append(node)
    for node in placed:
        inputs = [names.get(name, name) for name in node.input]
        outputs = [names.get(name, name) for name in node.output]
        if node.op_type in COMMUTATIVE:
            random.shuffle(inputs)
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
    copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in placed]
    del other.graph.node[:]
    other.graph.node.extend(copied)
    tensors = list(other.graph.initializer)
    random.shuffle(tensors)  # type: ignore[arg-type]
    tensors = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in tensors]
    del other.graph.initializer[:]
    other.graph.initializer.extend(tensors)
    return other


def first_tensors(network: Network) -> list[str]:
    return [layer.tensors[0].name for layer in network.layers]


@pytest.mark.parametrize("seed", range(40))
def test_canonical_order_is_the_designs(seed: int, tmp_path: Path) -> None:
    proto = random_classifier(seed)
    network = find_layers(graphs.load(proto, tmp_path))
    assert first_tensors(network) == Oracle(proto).order
    again = find_layers(graphs.load(rearranged(proto, seed), tmp_path))
    assert first_tensors(again) == first_tensors(network)
    made = {network.image.name, *network.constants}
    for node in network.nodes:
        assert all(name in made for name in node.input if name)
        made.update(node.output)
    x = graphs.image((2, 3, 4, 4))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), rtol=1e-3, atol=1e-3)


def branches(join: str, left: str, right: str, inputs: str = "") -> str:
    more = f", {inputs}" if inputs else ""
    return (
        f"(float[N,3,4,4] x, float[3,3,1,1] a, float[3,3,1,1] b{more}, float[5,3] fw) => (float[N,5] y) {{"
        f" {left}  {right}  h = {join}  g = GlobalAveragePool(h)  f = Flatten(g)  y = Gemm<transB = 1>(f, fw) }}"
    )


def test_the_deeper_branch_comes_first(tmp_path: Path) -> None:
    deep, shallow = "c = Conv(x, a)  p = Conv(c, k)", "q = Conv(x, b)"
    for join in ("Add(p, q)", "Add(q, p)"):
        text = branches(join, deep, shallow, "float[3,3,1,1] k")
        assert first_tensors(find_layers(graphs.load(graphs.model(text), tmp_path))) == ["a", "k", "b", "fw"]
    text = branches("Concat<axis = 1>(q, p)", deep, shallow, "float[3,3,1,1] k").replace("[5,3]", "[5,6]")
    assert first_tensors(find_layers(graphs.load(graphs.model(text), tmp_path))) == ["b", "a", "k", "fw"]


def test_more_parameters_break_a_tie(tmp_path: Path) -> None:
    for join in ("Add(p, q)", "Add(q, p)"):
        text = branches(join, "p = Conv(x, a)", "q = Conv<pads = [1, 1, 1, 1]>(x, b)").replace(
            "[3,3,1,1] b", "[3,3,3,3] b"
        )
        assert first_tensors(find_layers(graphs.load(graphs.model(text), tmp_path))) == ["b", "a", "fw"]


@pytest.mark.parametrize("seed", range(4))
def test_then_the_smaller_digest(seed: int, tmp_path: Path) -> None:
    orders = set()
    for join in ("Add(p, q)", "Add(q, p)"):
        proto = graphs.model(branches(join, "p = Conv(x, a)", "q = Conv(x, b)"), seed=seed)
        values = graphs.initializers(proto)
        digests = {n: hashlib.sha256(np.sort(values[n].ravel()).tobytes()).hexdigest() for n in "ab"}
        names = first_tensors(find_layers(graphs.load(proto, tmp_path)))
        assert names == [*sorted("ab", key=digests.__getitem__), "fw"]
        orders.add(tuple(names))
    assert len(orders) == 1


def test_signed_zeros_do_not_make_a_digest_random(tmp_path: Path) -> None:
    zeros = [0.0, -0.0, 0.0, -0.0, -0.0, 0.0, 1, 2, 3]
    orders = set()
    for a, b in ((zeros, zeros[::-1]), ([*zeros[:6][::-1], 3, 2, 1], zeros)):
        proto = graphs.model(branches("Add(p, q)", "p = Conv(x, a)", "q = Conv(x, b)"), {"a": a, "b": b})
        orders.add(tuple(first_tensors(find_layers(graphs.load(proto, tmp_path)))))
    assert orders == {("a", "b", "fw")}  # equal digests: the given order


def test_what_the_branches_share_is_counted_too(tmp_path: Path) -> None:
    """Depth counts the layers on a path, not those of the whole subgraph."""
    left, right = "c = Conv(x, a)  s = Add(c, x)  p = Conv(s, k)", "q = Conv(x, b)  r = Mul(q, c)"
    text = branches("Add(r, p)", left, right, "float[3,3,1,1] k")
    proto = graphs.model(text)
    assert first_tensors(find_layers(graphs.load(proto, tmp_path))) == Oracle(proto).order == ["a", "k", "b", "fw"]


@dataclass(frozen=True)
class Deep:
    blocks: int
    kind: str

    def model(self) -> onnx.ModelProto:
        random = np.random.default_rng(0)
        nodes, tensors, x = [], [], "x"
        for i in range(self.blocks):
            branches = ["a", "b"] if self.kind == "twins" else ["a"]
            for branch in branches:
                value = random.normal(0, 0.05, (2, 2, 1, 1)).astype(np.float32)
                tensors.append(onnx.numpy_helper.from_array(value, f"w{branch}{i}"))
                nodes.append(helper.make_node("Conv", [x, f"w{branch}{i}"], [f"{branch}{i}"]))
            if self.kind == "chain":
                nodes.append(helper.make_node("Relu", [f"a{i}"], [f"s{i}"]))
            else:
                nodes.append(helper.make_node("Add", [x if self.kind == "residual" else f"b{i}", f"a{i}"], [f"s{i}"]))
            x = f"s{i}"
        nodes += [helper.make_node("GlobalAveragePool", [x], ["g"]), helper.make_node("Flatten", ["g"], ["y"])]
        images = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2, 2, 2])
        scores = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 2])
        graph = helper.make_graph(nodes, "g", [images], [scores], tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    "deep", [Deep(1500, "chain"), Deep(1500, "residual"), Deep(400, "twins")], ids=lambda d: d.kind
)
def test_deep_networks_take_no_recursion_and_little_time(deep: Deep, tmp_path: Path) -> None:
    classifier = graphs.load(deep.model(), tmp_path)
    begun = time.perf_counter()
    network = find_layers(classifier)
    assert time.perf_counter() - begun < 5
    assert [layer.index for layer in network.layers] == list(range(1, len(network.layers) + 1))
    if deep.kind != "twins":
        assert first_tensors(network) == [f"wa{i}" for i in range(deep.blocks)]


def test_cuts_come_in_the_layers_order(tmp_path: Path) -> None:
    for seed in range(10):
        network = find_layers(graphs.load(random_classifier(seed, 14), tmp_path))
        starts = [layer.start for layer in network.layers]
        assert starts == sorted(starts)
        for layer in network.layers:
            users = [i for i, node in enumerate(network.nodes) for t in layer.tensors if t.value in node.input]
            assert layer.start <= min(users)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    kernel = np.ones((5, 3, 1, 1), np.float32)
    kernel[2, 1] = bad
    body = "{ c = Conv(x, k) p = GlobalAveragePool(c) y = Flatten(p) }"
    proto = graphs.model(f"(float[N,3,4,4] x, float[5,3,1,1] k) => (float[N,5] y) {body}", {"k": kernel})
    with pytest.raises(ModelError, match="initializer 'k' has values that are not finite"):
        find_layers(graphs.load(proto, tmp_path))
