"""An index of the node that makes, and the nodes that use, each value of a flat list of ONNX nodes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxnoise.runtime.protos import attribute, reads

Array = npt.NDArray[Any]
Place = tuple[int, int]
"""A place in a graph where an initializer enters: (position of the node, position of the operand)."""

LAYOUT = frozenset(
    ("Cast", "CastLike", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
)
"""Operators that only move the values of their first operand."""

SHAPE_OF = frozenset(("Shape", "Size"))
QUANTIZE = frozenset(("QuantizeLinear", "DequantizeLinear"))

CONSTANT_PATH = LAYOUT | {"Slice", "Tile"}
"""Operators that a weight may pass through before it meets data."""

_SAME_RANK = QUANTIZE | {"Cast", "CastLike", "Identity", "Expand", "Slice", "Pad"}


class Graph:
    """An index over `nodes` (any order that a model file may have), `constants` (name to value) and known `shapes`."""

    def __init__(
        self,
        nodes: Sequence[onnx.NodeProto],
        constants: Mapping[str, Array],
        shapes: Mapping[str, tuple[int | None, ...]] | None = None,
    ) -> None:
        self.nodes = nodes
        self.constants = constants
        self.shapes = shapes or {}
        self.reads = [reads(node) for node in nodes]
        self.producer = {name: i for i, node in enumerate(nodes) for name in node.output if name}
        self.consumers: dict[str, list[int]] = defaultdict(list)
        for i, names in enumerate(self.reads):
            for name in names:
                self.consumers[name].append(i)

    def root(self, node: int, slot: int) -> Place | None:
        """The place where the constant behind an operand enters the graph, layout nodes skipped; None if it is data."""
        while slot < len(self.nodes[node].input):
            name = self.nodes[node].input[slot]
            if name in self.constants:
                return node, slot
            maker = self.producer.get(name)
            if maker is None or self.nodes[maker].op_type not in CONSTANT_PATH:
                return None
            node, slot = maker, 0
        return None

    def value(self, place: Place) -> Array:
        return self.constants[self.nodes[place[0]].input[place[1]]]

    def weight(self, node: int, slot: int) -> Place | None:
        """The place where the float32 constant behind an operand enters, as `root`; None for other constants."""
        place = self.root(node, slot)
        return place if place is not None and self.value(place).dtype == np.float32 else None

    def vector(self, place: Place) -> int:
        """The number of elements of a constant that has just one dimension other than 1; 0 for any other constant."""
        value = self.value(place)
        return value.size if sum(d != 1 for d in value.shape) == 1 else 0

    def only_consumer(self, name: str) -> int | None:
        """The only node that uses a value, None unless exactly one does; a Shape node doesn't count as a use."""
        users = [user for user in self.consumers.get(name, ()) if self.nodes[user].op_type not in SHAPE_OF]
        return users[0] if len(users) == 1 else None

    def chain(self, node: int, through: Collection[str]) -> Iterator[int]:
        """The nodes after `node`, each the only consumer of the one before; ends with the first that is not one of
        `through`.
        """
        while (following := self.only_consumer(self.nodes[node].output[0])) is not None:
            node = following
            yield node
            if self.nodes[node].op_type not in through:
                return

    def source(self, node: int, slot: int) -> int | None:
        """The node that makes an operand, layout and quantization skipped, where each value on the way has no other use."""
        name = self.nodes[node].input[slot]
        while self.only_consumer(name) is not None:
            maker = self.producer.get(name)
            if maker is None or self.nodes[maker].op_type not in LAYOUT | QUANTIZE:
                return maker
            name = self.nodes[maker].input[0]
        return None

    def moved(self, node: int, from_end: int, size: int) -> int | None:
        """The place from the end (1: the last) where a layout node puts the dimension of `size` that was at `from_end`; None
        where that can't be told.
        """
        proto = self.nodes[node]
        if proto.op_type in _SAME_RANK:
            return from_end
        if proto.op_type == "Transpose":
            order = list(attribute(proto, "perm", []))
            return len(order) - order.index(len(order) - from_end) if order else None
        before, after = self.shapes.get(proto.input[0]), self.shapes.get(proto.output[0])
        if after is None or (before is None and from_end > 1):
            return None
        behind = before[len(before) - from_end + 1 :] if before is not None else ()
        for place in range(1, len(after) + 1):
            rest = after[len(after) - place + 1 :]
            if after[-place] == size and (rest == behind or _product(rest) == _product(behind)):
                return place
        return None


def _product(shape: tuple[int | None, ...]) -> float:
    return prod(math.nan if d is None else d for d in shape)


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
