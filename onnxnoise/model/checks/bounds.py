"""Bounds of a graph's shape arithmetic before it runs: the least and the greatest number that each small value can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxnoise.records import Shape
from onnxnoise.runtime.protos import attribute

Array = npt.NDArray[np.float64]
Bounds = tuple[Array, Array]
"""(least, greatest) of each element, float64 of the value's shape; equal where it is known."""

_LARGEST = 64
"""Most elements of a value that is followed: a shape, axes, a condition."""

_BOOL = onnx.TensorProto.BOOL


def known_bounds(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> dict[str, Bounds]:
    """The bounds of each small value of the main graph that follows from constants and `shapes`, by name.

    An unknown dimension is at least 1. The nodes must be in an executable order.
    """
    known: dict[str, Bounds] = {}
    for tensor in model.graph.initializer:
        if prod(tensor.dims) <= _LARGEST and tensor.data_location != onnx.TensorProto.EXTERNAL:
            array = onnx.numpy_helper.to_array(tensor)
            if array.dtype.kind in "biuf":
                known[tensor.name] = (array.astype(np.float64), array.astype(np.float64))
    for node in model.graph.node:
        if node.domain or len(node.output) != 1:
            continue
        try:
            with np.errstate(all="ignore"):
                found = _bounds(node, known, shapes)
        except (ValueError, IndexError, TypeError, OverflowError):  # a broken file; ONNX Runtime will say how
            continue
        if found is not None and found[0].size <= _LARGEST and not any(np.isnan(each).any() for each in found):
            known[node.output[0]] = found
    return known


def exactly(bounds: Bounds | None) -> float | None:
    """The value of one known element, None where it is not known or there are more."""
    if bounds is None or bounds[0].size != 1 or bounds[0].item() != bounds[1].item():
        return None
    return float(bounds[0].item())


def _bounds(node: onnx.NodeProto, known: Mapping[str, Bounds], shapes: Mapping[str, Shape]) -> Bounds | None:
    op = node.op_type
    if op == "Shape":
        shape = shapes.get(node.input[0])
        if shape is None:
            return None
        part = shape[attribute(node, "start", 0) : attribute(node, "end", None)]
        return np.array([d or 1 for d in part], np.float64), np.array([d or inf for d in part], np.float64)
    if op == "Size":
        shape = shapes.get(node.input[0])
        if shape is None:
            return None
        return np.float64(prod(d or 1 for d in shape)) + np.zeros(()), np.float64(
            prod(d or inf for d in shape)
        ) + np.zeros(())
    if not node.input or any(name not in known for name in node.input if name):
        return None
    inputs = [known[name] for name in node.input if name]
    if op in _COMPARISONS:
        return _COMPARISONS[op](*inputs)
    if op in _MONOTONE:
        return _MONOTONE[op](*(low for low, _ in inputs)), _MONOTONE[op](*(high for _, high in inputs))
    low, high = inputs[0]
    rest = [exact for each in inputs[1:] if (exact := _exact(each)) is not None]
    if op == "Concat":
        axis = attribute(node, "axis", 0)
        return tuple(np.concatenate([each[side] for each in inputs], axis) for side in (0, 1))  # type: ignore[return-value]
    if len(rest) < len(inputs) - 1:
        return _SHRINKING[op](*inputs) if op in _SHRINKING else None
    match op:
        case "Identity" | "CastLike":
            return low, high
        case "Cast":
            return _cast(low, high, attribute(node, "to", 1))
        case "Not":
            return 1 - high, 1 - low
        case "Neg":
            return -high, -low
        case "Sub" | "Mul":
            return _SHRINKING[op](*inputs)
        case "Div" | "Mod":
            exact = (low == high).all()
            return (_divided(op, low, rest[0]),) * 2 if exact and rest[0].all() else None
        case "ReduceProd" | "ReduceSum" | "ReduceMax" | "ReduceMin":
            return _reduced(node, low, high, rest)
    moved = _moved(node, rest)
    return None if moved is None else (moved(low), moved(high))


def _exact(bounds: Bounds) -> Array | None:
    return bounds[0] if (bounds[0] == bounds[1]).all() else None


def _truth(yes: Any, no: Any) -> Bounds:
    """Bounds of a condition that holds where `yes`, fails where `no`, and is open elsewhere."""
    return np.asarray(yes, np.float64), 1 - np.asarray(no, np.float64)


def _equal(a: Bounds, b: Bounds) -> Bounds:
    same = (a[0] == a[1]) & (b[0] == b[1]) & (a[0] == b[0])
    return _truth(same, (a[0] > b[1]) | (a[1] < b[0]))


_COMPARISONS: dict[str, Callable[..., Bounds]] = {
    "Equal": _equal,
    "Greater": lambda a, b: _truth(a[0] > b[1], a[1] <= b[0]),
    "GreaterOrEqual": lambda a, b: _truth(a[0] >= b[1], a[1] < b[0]),
    "Less": lambda a, b: _truth(a[1] < b[0], a[0] >= b[1]),
    "LessOrEqual": lambda a, b: _truth(a[1] <= b[0], a[0] > b[1]),
}

_MONOTONE: dict[str, Callable[..., Array]] = {
    "Add": np.add,
    "And": np.minimum,
    "Or": np.maximum,
    "Max": lambda *each: np.asarray(np.max(np.broadcast_arrays(*each), axis=0)),
    "Min": lambda *each: np.asarray(np.min(np.broadcast_arrays(*each), axis=0)),
}
"""Operators whose result grows with each operand (And and Or of 0 and 1)."""


def _product(a: Bounds, b: Bounds) -> Bounds:
    ends = [x * y for x in a for y in b]
    return np.min(ends, axis=0), np.max(ends, axis=0)


_SHRINKING: dict[str, Callable[..., Bounds]] = {
    "Sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "Mul": _product,
}


def _divided(op: str, a: Array, b: Array) -> Array:
    quotient = np.trunc(a / b) if op == "Div" and not (np.mod(a, 1).any() or np.mod(b, 1).any()) else a / b
    return np.mod(a, b) if op == "Mod" else quotient


def _cast(low: Array, high: Array, to: int) -> Bounds:
    if to == _BOOL:
        return _truth((low > 0) | (high < 0), (low == 0) & (high == 0))
    kind = onnx.helper.tensor_dtype_to_np_dtype(to).kind
    return (np.trunc(low), np.trunc(high)) if kind in "iu" else (low, high)


def _reduced(node: onnx.NodeProto, low: Array, high: Array, rest: Sequence[Array]) -> Bounds:
    reductions: dict[str, Callable[..., Any]] = {
        "ReduceProd": np.prod,
        "ReduceSum": np.sum,
        "ReduceMax": np.max,
        "ReduceMin": np.min,
    }
    reduction = reductions[node.op_type]
    axes = attribute(node, "axes", None) or (rest[0].ravel().tolist() if rest else None)
    axis = None if axes is None else tuple(int(each) for each in axes)
    keep = bool(attribute(node, "keepdims", 1))
    return np.asarray(reduction(low, axis=axis, keepdims=keep)), np.asarray(reduction(high, axis=axis, keepdims=keep))


def _moved(node: onnx.NodeProto, rest: Sequence[Array]) -> Callable[[Array], Array] | None:
    """A function that does to an array what a node that only selects or lays out elements does to its first operand."""
    whole = [each.astype(np.int64) for each in rest]
    axes = attribute(node, "axes", None)
    match node.op_type:
        case "Gather":
            axis = attribute(node, "axis", 0)
            return lambda array: np.take(array, whole[0], axis)
        case "Slice" if whole:
            starts, ends = (each.ravel().tolist() for each in whole[:2])
            along = whole[2].ravel().tolist() if len(whole) > 2 else list(range(len(starts)))
            steps = whole[3].ravel().tolist() if len(whole) > 3 else [1] * len(starts)

            def part(array: Array) -> Array:
                for start, end, axis, step in zip(starts, ends, along, steps, strict=True):
                    place = [slice(None)] * array.ndim
                    place[axis] = slice(start, None if step < 0 and end < -array.shape[axis] else end, step)
                    array = array[tuple(place)]
                return array

            return part
        case "Squeeze":
            gone = tuple(axes or (whole[0].ravel().tolist() if whole else ())) or None
            return lambda array: array.squeeze(gone)
        case "Unsqueeze":
            new = tuple(axes or whole[0].ravel().tolist())
            return lambda array: np.expand_dims(array, new)
        case "Reshape":
            return lambda array: array.reshape(
                [array.shape[i] if d == 0 else d for i, d in enumerate(whole[0].tolist())]
            )
    return None
