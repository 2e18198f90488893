"""Tails, the nodes behind the logits that don't change the classes' ranks: softmaxes in any form, squashings, scales, sorting."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from onnxnoise.model.graph import LAYOUT, QUANTIZE, Graph
from onnxnoise.records import Shape
from onnxnoise.runtime.protos import attribute

_SOFTMAX = frozenset(("Hardmax", "LogSoftmax", "Softmax"))
_INCREASING = frozenset(
    ("Atan", "Celu", "Clip", "Elu", "Erf", "Exp", "HardSigmoid", "LeakyRelu", "Log", "Selu", "Sigmoid", "Softplus")
) | frozenset(("Softsign", "Sqrt", "Tanh"))
"""Operators that keep the order of the elements, but for elements that saturate; with a positive alpha where they have one."""

_POSITIVE = frozenset(
    ("Abs", "Exp", "ReduceL1", "ReduceL2", "ReduceSumSquare", "Sigmoid", "Softmax", "Softplus", "Sqrt")
)
_POSITIVE_OF_POSITIVE = LAYOUT | {
    "Clip",
    "Max",
    "Reciprocal",
    "ReduceMax",
    "ReduceMean",
    "ReduceSum",
    "Add",
    "Mul",
    "Div",
}
_INTEGERS = frozenset((onnx.TensorProto.INT8, onnx.TensorProto.UINT8))
_FLOATS = frozenset((onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE))


def ranked_value(graph: Graph, shapes: Mapping[str, Shape], output: str, element: int) -> str:
    """The first value in the graph that ranks the classes as `output` (of type `element`) does.

    A quantized output is judged before its QuantizeLinear. Layout and quantization are passed where a squashing or a softmax is
    behind them.
    """
    tail = _Tail(graph, shapes)
    name = best = output
    while (maker := graph.producer.get(name)) is not None:
        node = graph.nodes[maker]
        if node.op_type in QUANTIZE or _is_layout(node):
            name = node.input[0]
            if node.op_type == "QuantizeLinear" and element in _INTEGERS and best == output:
                best = name
            continue
        before = tail.before(node, name)
        if before is None or not is_row(shapes.get(before)):
            break
        name = best = before
    return best


def is_row(shape: Shape | None) -> bool:
    """Whether a value can be one row of class scores an image: (N, classes), or (N, classes, 1, 1) and the like."""
    return shape is None or (len(shape) >= 2 and sum(d != 1 for d in shape[1:]) == 1)


def _is_layout(node: onnx.NodeProto) -> bool:
    """Whether a node leaves the scores as they are."""
    return node.op_type in LAYOUT and not (node.op_type == "Cast" and attribute(node, "to", 1) not in _FLOATS)


class _Tail:
    """Finds the scores that a node keeps in the same ranks."""

    def __init__(self, graph: Graph, shapes: Mapping[str, Shape]) -> None:
        self.graph, self.shapes = graph, shapes

    def before(self, node: onnx.NodeProto, output: str) -> str | None:
        """The operand of a node that has the same ranks as its `output`; None where there is none."""
        if node.domain:
            return None
        first = str(node.input[0]) if node.input else ""
        match node.op_type:
            case op if op in _SOFTMAX:
                return first if attribute(node, "axis", -1) != 0 else None
            case op if op in _INCREASING:
                return first if attribute(node, "alpha", 1.0) > 0 else None
            case "TopK" if output == node.output[0] and attribute(node, "largest", 1):
                return first if attribute(node, "axis", -1) != 0 else None
            case "Dropout":
                return first
            case "Pow":
                power = self.graph.constants.get(node.input[1])
                grows = power is not None and power.size == 1 and power.item() > 0 and self._is_positive(first)
                return first if grows else None
            case "Add" | "Mul" | "Sub" | "Div":
                return self._of_arithmetic(node)
        return None

    def _of_arithmetic(self, node: onnx.NodeProto) -> str | None:
        """The scores to which a node adds one number, or which it scales by a positive one: constant, or one for each image."""
        scaled = node.op_type in ("Mul", "Div")
        for slot, name in enumerate(node.input) if node.op_type in ("Add", "Mul") else ((1, node.input[1]),):
            constant = self.graph.constants.get(name)
            if constant is not None:
                fits = constant.size == 1 and np.isfinite(constant).all() and (not scaled or constant.item() > 0)
            else:
                fits = self._is_one_an_image(name) and (not scaled or self._is_positive(name))
            if fits:
                return str(node.input[1 - slot])
        return None

    def _is_one_an_image(self, name: str) -> bool:
        shape = self.shapes.get(name)
        return shape is not None and len(shape) > 1 and all(d == 1 for d in shape[1:])

    def _is_positive(self, name: str) -> bool:
        """Whether a value is never negative."""
        constant = self.graph.constants.get(name)
        if constant is not None:
            return bool((constant >= 0).all())
        maker = self.graph.producer.get(name)
        if maker is None:
            return False
        node = self.graph.nodes[maker]
        if node.op_type in _POSITIVE:
            return True
        if node.op_type not in _POSITIVE_OF_POSITIVE:
            return False
        data = node.input if node.op_type in ("Add", "Mul", "Div") else node.input[:1]
        return all(self._is_positive(each) for each in data)
