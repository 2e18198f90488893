"""Graphs of a few bytes that would fill the memory are refused by arithmetic, before anything computes their constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod
from pathlib import Path

import numpy as np
import onnx

from onnxnoise.errors import ModelError
from onnxnoise.machine import memory
from onnxnoise.model.checks.bounds import Bounds, exactly, known_bounds
from onnxnoise.model.graph import SHAPE_OF
from onnxnoise.model.shapes import printed
from onnxnoise.records import Shape
from onnxnoise.runtime.protos import attribute, named

_GROWTH = 512 << 20
"""The most bytes that the constants of a graph may take beyond the tensors that they are made of."""

_WORK = 1e11
"""The most multiplications that computing the constants of a graph may take: some seconds."""

_PER_ELEMENT = 20
"""Assumed cost of an element of any value but a product's, in multiplications."""

_BYTES = 4
"""Assumed bytes of an element."""


def check_growth(model: onnx.ModelProto, shapes: Mapping[str, Shape], path: Path) -> None:
    """Refuse a graph whose values computed from constants alone (Range, Expand, Concat with itself, ...) outgrow the file.

    `shapes` are those that follow without computing any value. The nodes must be in an executable order. Raises ModelError.
    """
    known = known_bounds(model, shapes)
    made: dict[str, tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    stored = _BYTES * sum(prod(shape) for shape in made.values())
    limit, grown = min(_GROWTH, (memory().usable or 4 * _GROWTH) // 4), 0
    work = 0.0
    for node in model.graph.node:
        if node.op_type in SHAPE_OF and not node.domain:
            made[node.output[0]] = (len(shapes.get(node.input[0]) or ()) or 8,) if node.op_type == "Shape" else ()
            continue
        inputs = [name for name in node.input if name]
        if node.op_type in ("If", "Loop", "Scan") or any(name not in made for name in inputs):
            continue
        given = [made[name] for name in inputs]
        try:
            inferred = [d for d in shapes.get(node.output[0], (None,)) if d is not None]
            whole = len(inferred) == len(shapes.get(node.output[0], (None,)))
            shape = tuple(inferred) if whole else _shape(node, given, known)
        except (IndexError, TypeError, ValueError, ZeroDivisionError):  # a broken node; ONNX Runtime will say how
            shape = max(given, key=prod, default=())
        made |= dict.fromkeys(filter(None, node.output), shape)
        size = _BYTES * prod(shape)
        grown += max(0, size - _BYTES * sum(prod(made[name]) for name in set(inputs)))
        if max(grown, size - stored) > limit:
            raise ModelError(
                f"{path}: constant {node.output[0]!r} of shape {printed(shape)}, made by {node.op_type}, would take "
                f"{size / 1e9:,.1f} GB of this machine's memory; "
                "the file is broken or made to do harm: export it again"
            )
        product = node.op_type in ("MatMul", "Gemm", "Conv", "Einsum")
        work += prod(shape) * (max(given[0], default=1) if product else _PER_ELEMENT)
        if work > _WORK:
            raise ModelError(
                f"{path}: {named(node)} computes with constants of shapes "
                f"{' and '.join(printed(each) for each in given[:2])}; with all that is computed from constants before it, that "
                "would take minutes; the file is broken or made to do harm: export it with this computed"
            )


def _shape(node: onnx.NodeProto, given: Sequence[tuple[int, ...]], known: Mapping[str, Bounds]) -> tuple[int, ...]:
    """The shape of the value that a node makes of constants; where it can't be told, that of the node's largest operand."""
    largest = max(given, key=prod, default=())
    numbers = {slot: _exact(known.get(name)) for slot, name in enumerate(node.input)}
    op = node.op_type if not node.domain else ""
    if op.startswith("Random") and "shape" in {each.name for each in node.attribute}:
        return tuple(attribute(node, "shape", ()))
    match op:
        case "Range":
            start, stop, step = (exactly(known.get(name)) for name in node.input[:3])
            if start is None or stop is None or not step:
                return largest
            return (max(0, ceil((stop - start) / step)),)
        case "ConstantOfShape" if numbers[0] is not None:
            return numbers[0]
        case "Expand" if numbers.get(1) is not None:
            return _broadcast([given[0], numbers[1] or ()])
        case "Tile" if numbers.get(1) is not None:
            return tuple(d * times for d, times in zip(given[0], numbers[1] or (), strict=False))
        case "Resize" | "Upsample":
            sizes = next((each for slot, each in reversed(numbers.items()) if slot and each), None) or ()
            scaled = (len(node.input) < 4 and op == "Resize") or op == "Upsample"
            return tuple(d * max(1, s) if scaled else s for d, s in zip(given[0], sizes, strict=False)) or largest
        case "Pad":
            pads = list(numbers.get(1) or attribute(node, "pads", None) or ())
            half = len(pads) // 2
            return (
                tuple(d + max(0, a) + max(0, b) for d, a, b in zip(given[0], pads[:half], pads[half:], strict=False))
                or largest
            )
        case "OneHot":
            depth = exactly(known.get(node.input[1]))
            return (*given[0], int(depth or 1))
        case "Concat":
            return _joined(given, attribute(node, "axis", 0))
        case "Gather" if given[0]:
            axis = attribute(node, "axis", 0) % len(given[0])
            return (*given[0][:axis], *given[1], *given[0][axis + 1 :])
        case "MatMul" if all(len(each) > 1 for each in given):
            return (*_broadcast([given[0][:-2], given[1][:-2]]), given[0][-2], given[1][-1])
        case "Gemm":
            return (given[0][attribute(node, "transA", 0)], given[1][1 - attribute(node, "transB", 0)])
        case "Einsum":
            return (prod(prod(each) for each in given),) if len(given) > 1 else largest
        case "Conv" | "ConvTranspose":
            return (given[0][0], given[1][0], *given[0][2:]) if min(len(each) for each in given[:2]) > 2 else largest
        case "Transpose":
            order = attribute(node, "perm", list(range(len(given[0])))[::-1])
            return tuple(given[0][axis] for axis in order)
        case "Slice" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "Identity" | "Cast":
            return given[0] if given else ()
    return _broadcast(given) if len(given) > 1 else largest


def _exact(bounds: Bounds | None) -> tuple[int, ...] | None:
    """The whole numbers of a known value."""
    if bounds is None or not (bounds[0] == bounds[1]).all() or not np.isfinite(bounds[0]).all():
        return None
    return tuple(int(each) for each in bounds[0].ravel())


def _broadcast(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of an element-by-element result; the larger of two that don't fit."""
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [(*[1] * (rank - len(shape)), *shape) for shape in shapes]
    return tuple(max(sizes) for sizes in zip(*padded, strict=True))


def _joined(shapes: Sequence[tuple[int, ...]], axis: int) -> tuple[int, ...]:
    rank = max((len(shape) for shape in shapes), default=0)
    if not rank or any(len(shape) != rank for shape in shapes):
        return (sum(prod(shape) for shape in shapes),)
    place = axis % rank
    return tuple(sum(s[i] for s in shapes) if i == place else max(s[i] for s in shapes) for i in range(rank))
