"""Follows the dimension that counts the images from value to value, to the first node that mixes the images of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx

from onnxnoise.model.graph import LAYOUT, QUANTIZE, SHAPE_OF
from onnxnoise.records import Shape
from onnxnoise.runtime.protos import attribute, subgraphs

_REDUCTIONS = frozenset(
    f"Reduce{each}" for each in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
)
_ALONG = frozenset(("ArgMax", "ArgMin", "CumSum", "Hardmax", "LogSoftmax", "LpNormalization", "Softmax", "TopK"))
_SOFTMAX = frozenset(("Hardmax", "LogSoftmax", "Softmax"))
_IMAGE_BY_IMAGE = frozenset(
    (
        *("AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace", "GlobalAveragePool"),
        *("GlobalLpPool", "GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "LRN", "LpPool", "MaxPool"),
        *("Resize", "SpaceToDepth", "Upsample", "FusedConv", "Pad"),
    )
)
_ELEMENT_BY_ELEMENT = frozenset(
    (
        *("Abs", "Add", "And", "Celu", "Ceil", "Clip", "Cos", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp", "Floor"),
        *("Gelu", "FastGelu", "BiasGelu", "QuickGelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish"),
        *("LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mul", "Neg", "Not", "Or", "PRelu"),
        *(
            "Pow",
            "Reciprocal",
            "Relu",
            "Round",
            "Selu",
            "Sigmoid",
            "Sign",
            "Sin",
            "Softplus",
            "Softsign",
            "Sqrt",
            "Sub",
        ),
        *(
            "Sum",
            "Tan",
            "Tanh",
            "ThresholdedRelu",
            "Where",
            "Xor",
            "Identity",
            "Cast",
            "CastLike",
            "LayerNormalization",
        ),
        *("RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization", *QUANTIZE),
    )
)
_SINGLE_AXIS_OPSET = 13
"""The opset from which on Softmax and its kin work along one axis; before, they work along all axes from that one on."""


def mixing_node(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, np.ndarray[Any, Any]],
    shapes: Mapping[str, Shape],
    image: str,
    opset: int,
) -> onnx.NodeProto | None:
    """The first of `nodes` (in an executable order) that computes over the images of a batch, where that is certain.

    The images are followed along the first dimension of the input `image` from value to value. Where a node's effect on that
    dimension is not known, nothing is said about what comes behind it.
    """
    finder = BatchFinder(constants, shapes, opset)
    finder.at[image] = 0
    return next((node for node in nodes if finder.mixes(node)), None)


class BatchFinder:
    """Keeps, for each value of which that is known, the dimension that counts the images."""

    def __init__(self, constants: Mapping[str, np.ndarray[Any, Any]], shapes: Mapping[str, Shape], opset: int) -> None:
        self.constants, self.shapes, self.opset = constants, shapes, opset
        self.at: dict[str, int] = {}
        self.lost: set[str] = set()
        """Values that depend on the images in a way that is not known."""

    def mixes(self, node: onnx.NodeProto) -> bool:
        """Whether a node computes over the images of a batch; keeps where they are in its outputs."""
        if node.op_type in SHAPE_OF and not node.domain:
            return False
        unknown = any(name in self.lost for name in node.input) or any(subgraphs(node))
        if not unknown and all(name not in self.at for name in node.input):
            return False  # no image in it
        if not unknown and node.domain in ("", "com.microsoft"):
            if self._is_mixed(node):
                return True
            axis = self._axis(node)
            if axis is not None:
                self.at.update(dict.fromkeys(filter(None, node.output), axis))
                return False
        self.lost.update(filter(None, node.output))
        return False

    def _rank(self, name: str) -> int | None:
        if name in self.constants:
            return self.constants[name].ndim
        return len(self.shapes[name]) if name in self.shapes else None

    def _axes(self, node: onnx.NodeProto, slot: int, rank: int) -> list[int] | None:
        """The axes that a node names in its attribute or operand, all where it names none; None where they are computed."""
        axes = attribute(node, "axes", None)
        if axes is None and len(node.input) > slot and node.input[slot]:
            given = self.constants.get(node.input[slot])
            if given is None:
                return None
            axes = given.ravel().tolist()
        if not axes:
            return [] if attribute(node, "noop_with_empty_axes", 0) else list(range(rank))
        return [int(axis) % rank for axis in axes]

    def _is_mixed(self, node: onnx.NodeProto) -> bool:
        axis, rank = self.at.get(node.input[0]), self._rank(node.input[0])
        if node.op_type in ("MatMul", "Gemm") and not node.domain:
            return self._contracts(node)
        if axis is None or rank is None:
            return False
        match node.op_type:
            case op if op in _REDUCTIONS:
                return axis in (self._axes(node, 1, rank) or ())
            case "MeanVarianceNormalization":
                return axis in [each % rank for each in attribute(node, "axes", [0, 2, 3])]
            case op if op in _ALONG:
                return self._works_along(node, axis, rank)
            case "LayerNormalization" | "RMSNormalization":
                return bool(attribute(node, "axis", -1) % rank <= axis)
        return False

    def _works_along(self, node: onnx.NodeProto, axis: int, rank: int) -> bool:
        if node.op_type == "CumSum":
            given = self.constants.get(node.input[1])
            return given is not None and int(given.ravel()[0]) % rank == axis
        flat = node.op_type in _SOFTMAX and self.opset < _SINGLE_AXIS_OPSET
        default = {"ArgMax": 0, "ArgMin": 0}.get(node.op_type, 1 if flat else -1)
        along = attribute(node, "axis", default) % rank
        return bool(along <= axis if flat else along == axis)

    def _contracts(self, node: onnx.NodeProto) -> bool:
        """Whether a product sums over the images."""
        for slot, name in enumerate(node.input[:2]):
            axis, rank = self.at.get(name), self._rank(name)
            if axis is None or rank is None:
                continue
            turned = attribute(node, "transB" if slot else "transA", 0) if node.op_type == "Gemm" else 0
            inner = max(0, rank - 2) if (slot == 1) != bool(turned) else rank - 1
            if axis == inner:
                return True
        return False

    def _axis(self, node: onnx.NodeProto) -> int | None:
        """The dimension that counts the images in a node's outputs."""
        op, first = node.op_type, node.input[0]
        axis, rank = self.at.get(first), self._rank(first)
        if op in _ELEMENT_BY_ELEMENT:
            return self._broadcast(node)
        if op in _IMAGE_BY_IMAGE:
            return 0 if axis == 0 else None
        if op == "MatMul" and not node.domain:
            return self._broadcast(node, 2)
        if op == "Gemm":
            return 0 if axis == 0 and node.input[1] not in self.at else None
        if axis is None or rank is None:
            return None
        if op in _REDUCTIONS:
            axes = self._axes(node, 1, rank)
            if axes is None or not attribute(node, "keepdims", 1):
                return None if axes is None else axis - sum(each < axis for each in axes)
            return axis
        if op in ("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "CumSum", "TopK"):
            return axis
        return self._laid_out(node, axis, rank) if op in LAYOUT | {"Gather", "Slice", "Concat", "Split"} else None

    def _broadcast(self, node: onnx.NodeProto, data: int | None = None) -> int | None:
        """The images' dimension in the result of operands of different ranks, which are aligned at their ends."""
        ranks = [self._rank(name) for name in node.input[:data] if name]
        places = {
            rank - self.at[name]
            for name in node.input[:data]
            if name in self.at and (rank := self._rank(name)) is not None
        }
        if len(places) != 1 or any(rank is None for rank in ranks):
            return None
        (from_end,) = places
        return max(rank for rank in ranks if rank is not None) - from_end

    def _laid_out(self, node: onnx.NodeProto, axis: int, rank: int) -> int | None:
        match node.op_type:
            case "Transpose":
                order = list(attribute(node, "perm", range(rank)[::-1]))
                return order.index(axis)
            case "Flatten":
                return 0 if axis == 0 and attribute(node, "axis", 1) % (rank + 1) == 1 else None
            case "Reshape":
                return 0 if axis == 0 and self._keeps_first(node) else None
            case "Squeeze" if (len(node.input) > 1 or attribute(node, "axes", None)) and (
                axes := self._axes(node, 1, rank)
            ):
                return axis - sum(each < axis for each in axes) if axis not in axes else None
            case "Unsqueeze":
                axes = self._axes(node, 1, self._rank(node.output[0]) or 0) if self._rank(node.output[0]) else None
                if axes is None:
                    return None
                kept = [place for place in range(rank + len(axes)) if place not in axes]
                return kept[axis] if len(kept) == rank else None
            case "Gather":
                along, indices = attribute(node, "axis", 0) % rank, self._rank(node.input[1])
                if along == axis or indices is None or node.input[1] in self.at:
                    return None
                return axis + (indices - 1 if along < axis else 0)
            case "Slice":
                starts = attribute(node, "starts", None)
                if starts is not None:  # before opset 10
                    axes = attribute(node, "axes", list(range(len(starts))))
                else:
                    given = self.constants.get(node.input[3]) if len(node.input) > 3 and node.input[3] else None
                    axes = None if given is None else given.ravel().tolist()
                return axis if axes is not None and axis not in [each % rank for each in axes] else None
            case "Concat" | "Split":
                along = attribute(node, "axis", 0) % rank
                others = {self.at.get(name, axis) for name in node.input[: 1 if node.op_type == "Split" else None]}
                return axis if along != axis and others == {axis} else None
        return None

    def _keeps_first(self, node: onnx.NodeProto) -> bool:
        """Whether a Reshape leaves the first dimension as it is."""
        target = self.constants.get(node.input[1]) if len(node.input) > 1 else None
        if target is not None and target.size and target.ravel()[0] == 0 and not attribute(node, "allowzero", 0):
            return True
        before, after = self.shapes.get(node.input[0]), self.shapes.get(node.output[0])
        if not before or not after or None in before[1:] or None in after[1:]:
            return False
        return prod(d or 1 for d in before[1:]) == prod(d or 1 for d in after[1:])
