"""Bodies of If and Loop that hold weights become part of the graph, where layers are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxnoise.model.checks.bounds import Bounds, exactly, known_bounds
from onnxnoise.model.protobuf import graphs
from onnxnoise.model.shapes import infer
from onnxnoise.records import Shape
from onnxnoise.runtime.protos import attribute, nested, subgraphs

_MOST_ROUNDS = 64
"""The deepest nesting of bodies: no network that anybody trained has more."""

_MOST_STEPS, _MOST_NODES = 256, 20_000
"""A loop that takes more steps, or whose steps take more nodes together, stays a loop."""

_PASSED_ON = frozenset(("Identity", "Cast"))
_AXES_AS_OPERAND = 13
_TRUE = "onnxnoise:true"


def lift_bodies(model: onnx.ModelProto) -> bool:
    """Put bodies of If and Loop that hold weights in their node's place, in place; returns whether there were any.

    Of an If whose condition follows from shapes, or whose branches do the same, one branch takes its place. Of another, both
    branches run and a Where chooses, if what they make has the same shape. A Loop of a known number of steps is unrolled: its
    weights meet the images once a step, as in a traced network.
    """
    lifted = False
    for _ in range(_MOST_ROUNDS):
        weights = _weights(model.graph)
        bodies = [node for node in model.graph.node if node.op_type in ("If", "Loop") and _reads_any(node, weights)]
        if not bodies:
            break
        shapes, _ = infer(model)
        lifting = _Lifting(model, shapes, known_bounds(model, shapes))
        nodes: list[onnx.NodeProto] = []
        for node in model.graph.node:
            made = lifting.lifted(node) if any(node is each for each in bodies) else None
            nodes += [onnx.NodeProto.FromString(node.SerializeToString())] if made is None else made
        if not lifting.done:
            break
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        lifted = True
    return lifted


_WEIGHT_TYPES = frozenset(
    (
        *(onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE),
        *(onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT4, onnx.TensorProto.UINT4),
    )
)


def _weights(graph: onnx.GraphProto) -> set[str]:
    """The names of tensors that can be weights, and of values that nodes make of such constants alone."""
    constants = {tensor.name for tensor in graph.initializer}
    weights = {t.name for t in graph.initializer if prod(t.dims) > 1 and t.data_type in _WEIGHT_TYPES}
    for node in graph.node:
        if not constants.issuperset(filter(None, node.input)):
            continue
        constants.update(node.output)
        if not weights.isdisjoint(node.input):
            weights.update(node.output)
    return weights


def _reads_any(node: onnx.NodeProto, names: set[str]) -> bool:
    return any(not names.isdisjoint(inner.input) for inner in nested([node]) if inner is not node)


class _Lifting:
    """Replaces a node of a model's main graph by the nodes in its body."""

    def __init__(self, model: onnx.ModelProto, shapes: Mapping[str, Shape], known: Mapping[str, Bounds]) -> None:
        self.graph, self.shapes, self.known = model.graph, shapes, known
        self.opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 1)
        self.defined = Counter(_definitions(model.graph))
        self.named = Counter(node.name for node in model.graph.node)
        self.done = False

    def lifted(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """The nodes that take an If's or Loop's place; None where it stays."""
        made = self._if(node) if node.op_type == "If" else self._loop(node)
        self.done = self.done or made is not None
        return made

    def _leaves(self, *bodies: onnx.GraphProto) -> None:
        """The names in bodies that leave the graph are free again."""
        for body in bodies:
            self.defined.subtract(_definitions(body))

    def _if(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        then, other = attribute(node, "then_branch", None), attribute(node, "else_branch", None)
        if then is None or other is None:
            return None
        condition = exactly(self.known.get(node.input[0]))
        if condition is None and _same(then, other):
            condition = 1
        if condition is None and not all(
            _alike(self.shapes.get(a.name), self.shapes.get(b.name))
            for a, b in zip(then.output, other.output, strict=True)
        ):
            return None
        self._leaves(then, other)
        if condition is not None:
            nodes, outputs = self._copied(then if condition else other, {})
            return nodes + [_identity(source, target) for source, target in zip(outputs, node.output, strict=True)]
        nodes, yes = self._copied(then, {})
        more, no = self._copied(other, {})
        chosen = [
            onnx.helper.make_node("Where", [node.input[0], a, b], [target])
            for a, b, target in zip(yes, no, node.output, strict=True)
        ]
        return nodes + more + chosen

    def _loop(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        body = attribute(node, "body", None)
        operands = [*node.input, "", ""]
        steps, goes_on = exactly(self.known.get(operands[0])), exactly(self.known.get(operands[1]))
        if body is None or steps is None or (operands[1] and goes_on != 1) or not self._never_ends(body):
            return None
        count = int(max(0, steps))
        if count > _MOST_STEPS or count * len(list(nested(body.node))) > _MOST_NODES:
            return None
        carried = list(node.input[2:])
        if count == 0 and len(body.output) > 1 + len(carried):
            return None
        self._leaves(body)
        self._constant(_TRUE, np.array(True))
        made: list[onnx.NodeProto] = []
        kept: list[list[str]] = [[] for _ in body.output[1 + len(carried) :]]
        for step in range(count):
            at = f"onnxnoise:step{step}"
            self._constant(at, np.array(step, np.int64))
            given = dict(zip([info.name for info in body.input], [at, _TRUE, *carried], strict=True))
            nodes, outputs = self._copied(body, given)
            made += nodes
            carried = outputs[1 : 1 + len(carried)]
            for each, name in zip(kept, outputs[1 + len(carried) :], strict=True):
                each.append(name)
        made += [_identity(source, target) for source, target in zip(carried, node.output, strict=False) if target]
        for each, target in zip(kept, node.output[len(carried) :], strict=True):
            made += self._stacked(each, target) if target else []
        return made

    def _never_ends(self, body: onnx.GraphProto) -> bool:
        """Whether a body says after each step that it goes on."""
        makers = {name: node for node in body.node for name in node.output}
        name = body.output[0].name
        while name in makers and makers[name].op_type in _PASSED_ON:
            name = makers[name].input[0]
        return name == body.input[1].name or exactly(self.known.get(name)) == 1

    def _stacked(self, names: Sequence[str], target: str) -> list[onnx.NodeProto]:
        """The nodes that stack a value of all steps along a new first dimension."""
        self._constant("onnxnoise:first", np.array([0], np.int64))
        rows = [self._fresh(f"{target}:row") for _ in names]
        nodes = [
            onnx.helper.make_node("Unsqueeze", [name, "onnxnoise:first"], [row])
            if self.opset >= _AXES_AS_OPERAND
            else onnx.helper.make_node("Unsqueeze", [name], [row], axes=[0])
            for name, row in zip(names, rows, strict=True)
        ]
        return [*nodes, onnx.helper.make_node("Concat", rows, [target], axis=0)]

    def _constant(self, name: str, value: npt.NDArray[Any]) -> None:
        if all(tensor.name != name for tensor in self.graph.initializer):
            self.graph.initializer.append(onnx.numpy_helper.from_array(value, name))

    def _fresh(self, name: str) -> str:
        new, number = name, 0
        while self.defined[new]:
            number += 1
            new = f"{name}~{number}"
        self.defined[new] += 1
        return new

    def _copied(self, body: onnx.GraphProto, given: Mapping[str, str]) -> tuple[list[onnx.NodeProto], list[str]]:
        """(a body's nodes with names of their own, the names of its outputs); `given` names what its inputs get."""
        renamed = dict(given)
        for name in _definitions(body, inputs=False):
            renamed[name] = self._fresh(name)
        for tensor in body.initializer:
            copy = self.graph.initializer.add()
            copy.CopyFrom(tensor)
            copy.name = renamed[tensor.name]
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in body.node]
        for node in nodes:
            _rename(node, renamed)
            if node.name:  # ONNX Runtime refuses two nodes of one name
                self.named[node.name] += 1
                node.name += f"~{self.named[node.name]}" if self.named[node.name] > 1 else ""
        return nodes, [renamed.get(info.name, info.name) for info in body.output]


def _definitions(graph: onnx.GraphProto, *, inputs: bool = True) -> Iterator[str]:
    """The names that a graph, or one inside it, gives to values; with `inputs` the names of its inputs too."""
    for each in graphs(graph):
        yield from (tensor.name for tensor in each.initializer)
        yield from (name for node in each.node for name in node.output if name)
        if inputs or each is not graph:
            yield from (info.name for info in each.input)


def _rename(node: onnx.NodeProto, renamed: Mapping[str, str]) -> None:
    for names in (node.input, node.output):
        for at, name in enumerate(names):
            names[at] = renamed.get(name, name)
    for graph in subgraphs(node):
        for info in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            info.name = renamed.get(info.name, info.name)
        for inner in graph.node:
            _rename(inner, renamed)


def _identity(source: str, target: str) -> onnx.NodeProto:
    return onnx.helper.make_node("Identity", [source], [target])


def _alike(first: Shape | None, second: Shape | None) -> bool:
    """Whether two values have the same known rank, and no dimension in which they are known to differ."""
    if first is None or second is None or not first or len(first) != len(second):
        return False
    return all(a is None or b is None or a == b for a, b in zip(first, second, strict=True))


def _same(first: onnx.GraphProto, second: onnx.GraphProto) -> bool:
    """Whether two bodies do the same to the same values."""
    return _normal_form(first) == _normal_form(second)


def _normal_form(graph: onnx.GraphProto) -> bytes:
    copy = onnx.GraphProto(node=graph.node, output=[onnx.ValueInfoProto(name=info.name) for info in graph.output])
    copy.initializer.extend(graph.initializer)
    renamed = {name: f"#{number}" for number, name in enumerate(_definitions(copy, inputs=False))}
    for node in copy.node:
        _rename(node, renamed)
    for inner in nested(copy.node):
        inner.name = inner.doc_string = ""
        del inner.metadata_props[:]
    for each in (*copy.output, *copy.initializer):
        each.name = renamed.get(each.name, each.name)
    form: bytes = copy.SerializeToString(deterministic=True)
    return form
