"""Who makes and who uses each value of a flat list of ONNX nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

Array = npt.NDArray[Any]

LAYOUT = frozenset(
    ("Cast", "CastLike", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
)
"""Operators that only move the values of their first operand."""

QUANTIZE = frozenset(("QuantizeLinear", "DequantizeLinear"))


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute, or `default`."""
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def reads(node: onnx.NodeProto) -> list[str]:
    """Names a node needs: its operands, then what its subgraphs take from outside; empty optional operands left out."""
    names = [name for name in node.input if name]
    for each in node.attribute:
        for graph in [each.g] if each.type == onnx.AttributeProto.GRAPH else each.graphs:
            inner = {i.name for i in (*graph.input, *graph.initializer)}
            for child in graph.node:
                names += [name for name in reads(child) if name not in inner]
                inner.update(child.output)
            names += [output.name for output in graph.output if output.name not in inner]
    return names


class Graph:
    """An index over `nodes` (any order that a model file may have) and `constants` (name to value)."""

    def __init__(self, nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Array]) -> None:
        self.nodes = nodes
        self.constants = constants
        self.reads = [reads(node) for node in nodes]
        self.producer = {name: i for i, node in enumerate(nodes) for name in node.output if name}
        self.consumers: dict[str, list[int]] = defaultdict(list)
        for i, names in enumerate(self.reads):
            for name in names:
                self.consumers[name].append(i)

    def root(self, node: int, slot: int) -> tuple[int, int] | None:
        """Where the constant behind an operand enters: (node, slot) of itself or of the first layout node; None if data."""
        operands = self.nodes[node].input
        if slot >= len(operands) or not operands[slot]:
            return None
        if operands[slot] in self.constants:
            return node, slot
        maker = self.producer.get(operands[slot])
        if maker is None or self.nodes[maker].op_type not in LAYOUT:
            return None
        return self.root(maker, 0)

    def value(self, place: tuple[int, int]) -> Array:
        return self.constants[self.nodes[place[0]].input[place[1]]]

    def weight(self, node: int, slot: int) -> tuple[int, int] | None:
        """As `root`, for float constants only."""
        place = self.root(node, slot)
        return place if place is not None and self.value(place).dtype == np.float32 else None

    def only_consumer(self, name: str, outputs: Iterable[str] = ()) -> int | None:
        """The one node that uses a value, if there is just one use."""
        users = self.consumers.get(name, [])
        return users[0] if len(users) == 1 and name not in outputs else None


def needed(nodes: Sequence[onnx.NodeProto], target: str) -> list[onnx.NodeProto]:
    """The nodes that `target` depends on, in their given order."""
    graph = Graph(nodes, {})
    keep: set[int] = set()
    waiting = [target]
    while waiting:
        maker = graph.producer.get(waiting.pop())
        if maker is not None and maker not in keep:
            keep.add(maker)
            waiting += graph.reads[maker]
    return [nodes[i] for i in sorted(keep)]
