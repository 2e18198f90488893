"""Rewrites that must precede ONNX Runtime's optimizer: half precision, and layers that an exporter wrote as arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

Array = npt.NDArray[Any]

_LARGEST_CONSTANT = 1 << 20
"""Elements of a constant expression that is worth evaluating: per-channel vectors, never kernels."""


def upcast_half(model: ir.Model) -> int:
    """float16 everywhere becomes float32, in place, so that weights are not hidden behind Casts; the tensors changed."""
    changed = 0
    for graph in _graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT16:
                value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
                value.type = ir.TensorType(ir.DataType.FLOAT)
                changed += 1
        for node in graph:
            to = node.attributes.get("to")
            if node.op_type == "Cast" and to is not None and to.as_int() == ir.DataType.FLOAT16:
                node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
            fill = node.attributes.get("value")
            if (
                fill is not None
                and fill.type == ir.AttributeType.TENSOR
                and fill.as_tensor().dtype == ir.DataType.FLOAT16
            ):
                node.attributes["value"] = ir.AttrTensor(
                    "value", ir.tensor(fill.as_tensor().numpy().astype(np.float32))
                )
        for value in [*graph.inputs, *(output for node in graph for output in node.outputs)]:
            if value.dtype == ir.DataType.FLOAT16:
                value.type = ir.TensorType(ir.DataType.FLOAT)
    return changed


def _graphs(model: ir.Model) -> Iterator[ir.Graph]:
    yield model.graph
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield attribute.as_graph()


def _shaped(x: Array, shape: Array) -> Array:
    return x.reshape([x.shape[i] if d == 0 else int(d) for i, d in enumerate(shape.tolist())])


_OPERATIONS: dict[str, Callable[..., Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Neg": np.negative,
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Pow": np.power,
    "Identity": lambda x: x,
    "Cast": lambda x: x,
    "Reshape": _shaped,
    "Squeeze": lambda x, *_: x.squeeze(),
}


class _Constants:
    """Small constant expressions: their float64 values and the tensors of more than one element they are made of."""

    def __init__(self) -> None:
        self._known: dict[ir.Value, tuple[Array, frozenset[ir.Value]] | None] = {}

    def __call__(self, value: ir.Value | None) -> tuple[Array, frozenset[ir.Value]] | None:
        if value is None:
            return None
        if value not in self._known:
            self._known[value] = None  # ends a cycle of a malformed graph
            self._known[value] = self._evaluate(value)
        return self._known[value]

    def _evaluate(self, value: ir.Value) -> tuple[Array, frozenset[ir.Value]] | None:
        tensor = value.const_value
        if tensor is not None:
            if not tensor.dtype.is_floating_point() and tensor.dtype != ir.DataType.INT64:
                return None
            if prod(tensor.shape.numpy()) > _LARGEST_CONSTANT:
                return None
            array = tensor.numpy()
            leaf = tensor.dtype.is_floating_point() and array.size > 1
            return array.astype(np.float64), frozenset([value] if leaf else [])
        node = value.producer()
        if node is None or node.domain or len(node.outputs) != 1:
            return None
        if node.op_type in ("Unsqueeze", "Transpose", "Expand"):
            return None if not node.inputs else self._relaid(node)
        operation = _OPERATIONS.get(node.op_type)
        inputs = [self(each) for each in node.inputs]
        if operation is None or not inputs or any(each is None for each in inputs):
            return None
        known = [each for each in inputs if each is not None]
        with np.errstate(all="ignore"):
            try:
                return operation(*(a for a, _ in known)), frozenset().union(*(leaves for _, leaves in known))
            except (ValueError, TypeError):
                return None

    def _relaid(self, node: ir.Node) -> tuple[Array, frozenset[ir.Value]] | None:
        inner = self(node.inputs[0])
        if inner is None:
            return None
        array, leaves = inner
        if node.op_type == "Transpose":
            order = node.attributes.get("perm")
            return array.transpose(list(order.as_ints()) if order else None), leaves
        if node.op_type == "Expand":
            shape = self(node.inputs[1])
            target = None if shape is None else np.broadcast_shapes(array.shape, tuple(map(int, shape[0].tolist())))
            if target is None or prod(target) > _LARGEST_CONSTANT:
                return None
            return np.broadcast_to(array, target), leaves
        attribute = node.attributes.get("axes")
        axes = self(node.inputs[1]) if len(node.inputs) > 1 else None
        if attribute is None and axes is None:
            return None
        places = attribute.as_ints() if attribute is not None else axes[0].astype(int).tolist() if axes else []
        return np.expand_dims(array, tuple(places)), leaves


def restore_batch_norms(model: ir.Model) -> int:
    """Chains of Sub, Mul, Div, Add that compute `(x - mean) * gamma / sqrt(var + eps) + beta` from four per-channel tensors
    become BatchNormalization, in place; returns how many.

    Which tensor is which follows from the numbers: the one assignment whose scale and shift equal the chain's.
    """
    constants = _Constants()
    restored = 0
    for node in list(model.graph):
        chain = _affine_chain(node, constants)
        if chain is None:
            continue
        source, last, scale, shift, leaves = chain
        channel = _channel_axis(scale, shift, source)
        if channel is None:
            continue
        axis, rank = channel
        tensors = [
            leaf.const_value.numpy().astype(np.float64).ravel() for leaf in leaves if leaf.const_value is not None
        ]
        roles = _assign_roles(tensors, scale.ravel(), shift.ravel())
        if roles is None:
            continue
        order, epsilon = roles
        _replace_by_batch_norm(model.graph, source, last, [leaves[i] for i in order], epsilon, axis, rank)
        restored += 1
    if restored:
        common.RemoveUnusedNodesPass()(model)
    return restored


def _operands(node: ir.Node, constants: _Constants) -> tuple[ir.Value, Array, frozenset[ir.Value], bool] | None:
    """(data, constant, its leaves, data comes first) of a binary node with one constant operand."""
    if node.domain or node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    first, second = node.inputs
    right = constants(second)
    if right is not None and first is not None and constants(first) is None:
        return first, *right, True
    left = constants(first)
    if left is not None and second is not None and right is None:
        return second, *left, False
    return None


def _affine_chain(
    node: ir.Node, constants: _Constants
) -> tuple[ir.Value, ir.Node, Array, Array, list[ir.Value]] | None:
    """From its first node: (source, last node, scale, shift, the four leaves); None where the chain is not one."""
    scale, shift = np.float64(1.0) * np.ones(1), np.zeros(1)
    leaves: frozenset[ir.Value] = frozenset()
    source: ir.Value | None = None
    current: ir.Node | None = node
    while current is not None:
        operands = _operands(current, constants)
        if operands is None:
            return None
        data, constant, used, data_first = operands
        source = data if source is None else source
        leaves |= used
        try:
            if current.op_type == "Add":
                shift = shift + constant
            elif current.op_type == "Sub":
                scale, shift = (scale, shift - constant) if data_first else (-scale, constant - shift)
            elif current.op_type == "Mul":
                scale, shift = scale * constant, shift * constant
            elif data_first:
                scale, shift = scale / constant, shift / constant
            else:
                return None
        except ValueError:
            return None
        if len(leaves) > 4:
            return None
        if len(leaves) == 4 and current.op_type in ("Add", "Sub"):
            sizes = {leaf.const_value.size for leaf in leaves if leaf.const_value is not None}
            if len(sizes) == 1 and sizes == {scale.size} == {shift.size}:
                return source, current, scale, shift, sorted(leaves, key=lambda leaf: leaf.name or "")
            return None
        output = current.outputs[0]
        consumers = list(output.consumers())
        current = consumers[0] if len(consumers) == 1 and not output.is_graph_output() else None
    return None


def _channel_axis(scale: Array, shift: Array, source: ir.Value) -> tuple[int, int] | None:
    """(channel axis, rank) of the source, from the constants' shape or, where that is only (channels,), the source's."""
    if scale.shape != shift.shape or sum(d != 1 for d in scale.shape) != 1:
        return None
    from_end = scale.ndim - next(i for i, d in enumerate(scale.shape) if d != 1)
    rank = len(source.shape) if source.shape is not None else scale.ndim if scale.ndim > 1 else None
    if rank is None or rank < max(scale.ndim, 2):
        return None
    return rank - from_end, rank


def _assign_roles(tensors: list[Array], scale: Array, shift: Array) -> tuple[tuple[int, ...], float] | None:
    """Positions of (gamma, beta, mean, variance) and epsilon such that scale and shift come out; None if none does."""
    for order in permutations(range(4)):
        gamma, beta, mean, variance = (tensors[i] for i in order)
        with np.errstate(all="ignore"):
            found = (gamma / scale) ** 2 - variance
        if not np.isfinite(found).all():
            continue
        epsilon = float(np.median(found))
        if not -1e-9 <= epsilon <= 0.1 or (variance + epsilon <= 0).any():
            continue
        epsilon = max(epsilon, 0.0)
        expected = gamma / np.sqrt(variance + epsilon)
        if np.allclose(expected, scale, rtol=1e-4, atol=1e-7) and np.allclose(
            beta - mean * expected, shift, rtol=1e-4, atol=1e-5
        ):
            return order, float(f"{epsilon:.3g}")
    return None


def _replace_by_batch_norm(
    graph: ir.Graph, source: ir.Value, last: ir.Node, leaves: list[ir.Value], epsilon: float, axis: int, rank: int
) -> None:
    x = source
    nodes: list[ir.Node] = []

    def add(op_type: str, inputs: list[ir.Value], **attributes: Any) -> ir.Value:
        node = ir.node(op_type, inputs, attributes=attributes)
        nodes.append(node)
        return node.outputs[0]

    parameters = []
    for leaf in leaves:  # a batch norm takes vectors, whatever shape the exporter gave them
        tensor = leaf.const_value
        assert tensor is not None
        name = f"{leaf.name}:channels"
        if name not in graph.initializers:
            flat = ir.tensor(tensor.numpy().ravel(), name=name)
            graph.register_initializer(
                ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape([tensor.size]), const_value=flat)
            )
        parameters.append(graph.initializers[name] if len(tensor.shape) != 1 else leaf)
    forward = [0, axis, *(i for i in range(1, rank) if i != axis)]
    if axis != 1:
        x = add("Transpose", [x], perm=forward)
    x = add("BatchNormalization", [x, *parameters], epsilon=epsilon)
    if axis != 1:
        x = add("Transpose", [x], perm=[forward.index(i) for i in range(rank)])
    graph.insert_after(last, nodes)
    output = last.outputs[0]
    ir.convenience.replace_all_uses_with(output, x, replace_graph_outputs=True)


def restore_prelu(model: ir.Model) -> int:
    """Keras' `Relu(x) + Mul(Relu(Neg(x)), -alpha)` becomes PRelu(x, alpha), in place; returns how many."""
    constants = _Constants()
    restored = 0
    for node in list(model.graph):
        if node.op_type != "Add" or node.domain or len(node.inputs) != 2:
            continue
        for positive, negative in (node.inputs, node.inputs[::-1]):
            relu, product = (None if v is None else v.producer() for v in (positive, negative))
            if relu is None or product is None or relu.op_type != "Relu" or product.op_type != "Mul":
                continue
            operands = _operands(product, constants)
            mirrored = operands[0].producer() if operands else None
            negation = (
                mirrored.inputs[0].producer()
                if mirrored and mirrored.op_type == "Relu" and mirrored.inputs[0]
                else None
            )
            if (
                operands is None
                or negation is None
                or negation.op_type != "Neg"
                or negation.inputs[0] is not relu.inputs[0]
            ):
                continue
            x = relu.inputs[0]
            assert x is not None
            slope = ir.tensor(
                (-operands[1]).astype(np.float32), name=f"{product.name or product.outputs[0].name}:slope"
            )
            weight = ir.Value(
                name=slope.name, type=ir.TensorType(slope.dtype), shape=ir.Shape(operands[1].shape), const_value=slope
            )
            model.graph.register_initializer(weight)
            replacement = ir.node("PRelu", [x, weight])
            model.graph.insert_after(node, replacement)
            ir.convenience.replace_all_uses_with(node.outputs[0], replacement.outputs[0], replace_graph_outputs=True)
            restored += 1
            break
    if restored:
        common.RemoveUnusedNodesPass()(model)
    return restored
