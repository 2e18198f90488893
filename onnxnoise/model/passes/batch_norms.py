"""Batch norms that an exporter wrote out as arithmetic on four tensors become BatchNormalization again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations, product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from onnxnoise.model.graph import SHAPE_OF
from onnxnoise.records import Shape

Array = npt.NDArray[np.float64]
Expression = tuple[Array, frozenset[ir.Value]]
"""(value of a constant expression, the per-channel tensors it is made of)."""

_LARGEST = 1 << 20
"""Most elements of a constant expression that is evaluated: it must be a vector per channel, never a kernel."""

_THROUGH = frozenset(("Identity", "Cast", "CastLike"))
_ARITHMETIC = frozenset(("Add", "Sub", "Mul", "Div"))


def restore_batch_norms(model: ir.Model, shapes: Mapping[str, Shape]) -> None:
    """Chains of Sub, Mul, Div, Add that compute `(x - mean) * gamma / sqrt(var + eps) + beta` from four per-channel tensors
    become BatchNormalization, in place; `shapes` by name, where they are known.

    Which tensor is which follows from numbers: random ones stand for the tensors, and only one assignment of the four roles
    gives the chain's scale and shift. Trained values can coincide (gamma 0, or as the variance 1), random ones don't.
    """
    expressions = _expressions(model.graph)
    for node in list(model.graph):
        chain = _affine_chain(node, expressions, shapes)
        if chain is not None:
            _replace_by_batch_norm(model.graph, *chain)
    common.RemoveUnusedNodesPass()(model)


def _expressions(graph: ir.Graph) -> dict[ir.Value, Expression]:
    """Every small constant expression, a tensor of more than one element standing as random numbers between 0.5 and 2."""
    random = np.random.default_rng(0)
    known: dict[ir.Value, Expression] = {}
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype not in (ir.DataType.FLOAT, ir.DataType.INT64):
            continue
        shape = tuple(tensor.shape.numpy())
        if tensor.size == 1 or (tensor.dtype == ir.DataType.INT64 and tensor.size <= 8):
            known[value] = tensor.numpy().astype(np.float64), frozenset()
        elif tensor.dtype == ir.DataType.FLOAT and sum(d != 1 for d in shape) == 1 and tensor.size <= _LARGEST:
            known[value] = random.uniform(0.5, 2, shape), frozenset([value])
    for node in graph:
        if node.domain or len(node.outputs) != 1 or any(each not in known for each in node.inputs if each is not None):
            continue
        inputs = [known[each] for each in node.inputs if each is not None]
        result = _evaluated(node, [array for array, _ in inputs]) if inputs else None
        if result is not None:
            known[node.outputs[0]] = result, frozenset().union(*(leaves for _, leaves in inputs))
    return known


_OPERATIONS: dict[str, Callable[..., Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Neg": np.negative,
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Pow": np.power,
}


def _evaluated(node: ir.Node, inputs: Sequence[Array]) -> Array | None:
    first = inputs[0]
    with np.errstate(all="ignore"):
        try:
            if node.op_type in _OPERATIONS:
                if prod(np.broadcast_shapes(*(array.shape for array in inputs))) > _LARGEST:
                    return None
                return np.asarray(_OPERATIONS[node.op_type](*inputs))
            match node.op_type:
                case "Identity" | "Cast" | "CastLike":
                    return first
                case "Transpose":
                    order = node.attributes.get("perm")
                    return first.transpose(list(order.as_ints()) if order else None)
                case "Reshape":
                    return first.reshape(
                        [first.shape[i] if d == 0 else int(d) for i, d in enumerate(inputs[1].tolist())]
                    )
                case "Squeeze":
                    return first.squeeze(_axes(node, inputs))
                case "Unsqueeze":
                    return np.expand_dims(first, _axes(node, inputs) or ())
                case "Expand":
                    target = np.broadcast_shapes(first.shape, tuple(map(int, inputs[1].tolist())))
                    return np.broadcast_to(first, target) if prod(target) <= _LARGEST else None
        except (ValueError, TypeError, IndexError, OverflowError):  # a broken file; ONNX Runtime will say how
            return None
    return None


def _axes(node: ir.Node, inputs: Sequence[Array]) -> tuple[int, ...] | None:
    attribute = node.attributes.get("axes")
    if attribute is not None:
        return tuple(attribute.as_ints())
    return tuple(map(int, inputs[1].ravel().tolist())) if len(inputs) > 1 else None


NormChain = tuple[ir.Value, ir.Node, list[ir.Value], float | None, int, int]
"""(the value that is normalized, the chain's last node, [gamma, beta, mean, variance], epsilon, channel axis, rank).

Epsilon is None where the fourth tensor is `sqrt(var + eps)`, which an exporter computed already.
"""


def _affine_chain(
    node: ir.Node, expressions: dict[ir.Value, Expression], shapes: Mapping[str, Shape]
) -> NormChain | None:
    """The batch norm whose arithmetic starts at `node`; None where none does."""
    scale, shift = np.ones(1), np.zeros(1)
    leaves: frozenset[ir.Value] = frozenset()
    source: ir.Value | None = None
    current: ir.Node | None = node
    while current is not None:
        if source is not None and current.op_type in _THROUGH:
            current = _only_user(current)
            continue
        operands = _operands(current, expressions)
        if operands is None:
            return None
        data, (constant, used), data_first = operands
        source = data if source is None else source
        leaves |= used
        try:
            match current.op_type:
                case "Add":
                    shift = shift + constant
                case "Sub":
                    scale, shift = (scale, shift - constant) if data_first else (-scale, constant - shift)
                case "Mul":
                    scale, shift = scale * constant, shift * constant
                case _ if data_first:
                    scale, shift = scale / constant, shift / constant
                case _:
                    return None
        except ValueError:  # constants of other sizes: not per channel
            return None
        if len(leaves) > 4 or scale.size > _LARGEST:
            return None
        if current.op_type in ("Add", "Sub") and len({expressions[leaf][0].size for leaf in leaves}) == 1:
            ordered = sorted(leaves, key=lambda leaf: leaf.name or "")
            roles = _roles([expressions[leaf][0].ravel() for leaf in ordered], scale.ravel(), shift.ravel())
            channel = None if roles is None else _channel_axis(scale, shift, shapes.get(source.name or ""))
            if roles is not None and channel is not None:
                return source, current, [ordered[i] for i in roles[0]], roles[1], *channel
        current = _only_user(current)
    return None


def _only_user(node: ir.Node) -> ir.Node | None:
    output = node.outputs[0]
    users = [use for use in output.uses() if use.node.op_type not in SHAPE_OF]
    return users[0].node if len(users) == 1 and not output.is_graph_output() else None


def _operands(node: ir.Node, expressions: dict[ir.Value, Expression]) -> tuple[ir.Value, Expression, bool] | None:
    """(data, constant, data comes first) of a binary node with one constant operand."""
    if node.domain or node.op_type not in _ARITHMETIC or len(node.inputs) != 2:
        return None
    first, second = node.inputs
    if first is None or second is None or (first in expressions) == (second in expressions):
        return None
    return (first, expressions[second], True) if second in expressions else (second, expressions[first], False)


def _roles(tensors: list[Array], scale: Array, shift: Array) -> tuple[tuple[int, ...], float | None] | None:
    """Positions of (gamma, beta, mean, variance) in `tensors`, each used at least once, and epsilon; None if none fits.

    Epsilon None: the last is the standard deviation.
    """
    if not 2 <= len(tensors) <= 4 or {scale.size, shift.size} != {tensors[0].size}:
        return None
    for order in product(range(len(tensors)), repeat=4):
        gamma, beta, mean, variance = (tensors[i] for i in order)
        found = (gamma / scale) ** 2 - variance
        epsilon = float(np.median(found))
        if (
            len(set(order)) == len(tensors)
            and -1e-9 <= epsilon <= 1
            and np.allclose(found, epsilon, rtol=0, atol=1e-6)
            and np.allclose(gamma / np.sqrt(variance + epsilon), scale, rtol=1e-6)
            and np.allclose(beta - mean * scale, shift, rtol=1e-6, atol=1e-6)
        ):
            return order, max(epsilon, 0.0)
    for order in permutations(range(4)) if len(tensors) == 4 else ():
        gamma, beta, mean, deviation = (tensors[i] for i in order)
        if np.allclose(gamma / deviation, scale, rtol=1e-6) and np.allclose(beta - mean * scale, shift, rtol=1e-6):
            return order, None
    return None


def _channel_axis(scale: Array, shift: Array, source: Shape | None) -> tuple[int, int] | None:
    """(channel axis, rank) of the normalized value, from the constants' shape and, where that leaves it open, its own."""
    places = {array.ndim - next(i for i, d in enumerate(array.shape) if d != 1) for array in (scale, shift)}
    if len(places) > 1 or any(sum(d != 1 for d in array.shape) > 1 for array in (scale, shift)):
        return None
    (from_end,) = places
    widest = max(scale.ndim, shift.ndim)
    if source is not None:
        rank = len(source)
    elif widest == 1:
        return None
    else:
        rank = max(widest, from_end + 1)  # (channels, 1, 1) leaves the batch out
    return (rank - from_end, rank) if from_end < rank and widest <= rank else None


def _replace_by_batch_norm(
    graph: ir.Graph,
    source: ir.Value,
    last: ir.Node,
    leaves: list[ir.Value],
    epsilon: float | None,
    axis: int,
    rank: int,
) -> None:
    nodes: list[ir.Node] = []

    def add(op_type: str, inputs: list[ir.Value], **attributes: Any) -> ir.Value:
        nodes.append(ir.node(op_type, inputs, attributes=attributes))
        return nodes[-1].outputs[0]

    forward = [0, axis, *(i for i in range(1, rank) if i != axis)]
    x = source if axis == 1 else add("Transpose", [source], perm=forward)
    flat = ir.Value(name=f"{last.name}:flat", const_value=ir.tensor(np.array([-1]), name=f"{last.name}:flat"))
    graph.register_initializer(flat)
    tensors = [add("Reshape", [leaf, flat]) for leaf in leaves]
    if epsilon is None:
        tensors[3] = add("Mul", [tensors[3], tensors[3]])
    x = add("BatchNormalization", [x, *tensors], epsilon=epsilon or 0.0)
    nodes[-1].name = last.name
    if axis != 1:
        x = add("Transpose", [x], perm=[forward.index(i) for i in range(rank)])
    graph.insert_after(last, nodes)
    ir.convenience.replace_all_uses_with(last.outputs[0], x, replace_graph_outputs=True)
