"""Kernels that a batch normalization standardizes depend on no batch: they are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from onnxnoise.model.origins import constants
from onnxnoise.records import Shape

_AXES_AS_OPERAND = 18


def compute_standardized(model: ir.Model, shapes: Mapping[str, Shape]) -> None:
    """Turn each BatchNormalization over a constant into arithmetic that the optimizer computes, in place.

    `(x - mean) / sqrt(variance + epsilon) * scale + bias`, mean and variance over all dimensions but the second: so torch's
    exporters write weight standardization.
    """
    norms = [
        node for node in model.graph if node.op_type == "BatchNormalization" and not node.domain and _is_training(node)
    ]
    if not norms:
        return
    known = constants(model)
    opset = model.opset_imports.get("", 1)
    for node in norms:
        x = node.inputs[0]
        shape = None if x is None else _shape(x, shapes)
        if x is None or x not in known or shape is None or len(shape) < 2:
            continue
        scale, bias = node.inputs[1:3]
        epsilon = node.attributes.get("epsilon")
        if scale is None or bias is None:
            continue
        write = _Writer(opset, [axis for axis in range(len(shape)) if axis != 1])
        centered = write.add("Sub", x, write.mean(x))
        variance = write.mean(write.add("Mul", centered, centered))
        floor = write.constant(np.array(1e-5 if epsilon is None else epsilon.as_float(), np.float32))
        result = write.add("Div", centered, write.add("Sqrt", write.add("Add", variance, floor)))
        row = [1, -1, *[1] * (len(shape) - 2)]
        for op_type, value, neutral in (("Mul", scale, 1), ("Add", bias, 0)):
            if value.const_value is None or (value.const_value.numpy() != neutral).any():
                result = write.add(
                    op_type, result, write.add("Reshape", value, write.constant(np.array(row, np.int64)))
                )
        model.graph.insert_after(node, write.nodes)
        ir.convenience.replace_all_uses_with(node.outputs[0], result)
    common.LiftConstantsToInitializersPass(size_limit=0, lift_all_constants=True)(model)
    common.RemoveUnusedNodesPass()(model)


def _is_training(node: ir.Node) -> bool:
    mode = node.attributes.get("training_mode")
    return mode is not None and mode.as_int() == 1


def _shape(value: ir.Value, shapes: Mapping[str, Shape]) -> Shape | None:
    return shapes.get(value.name or "") if value.const_value is None else tuple(value.const_value.shape.numpy())


class _Writer:
    """Writes nodes one after another."""

    def __init__(self, opset: int, axes: Sequence[int]) -> None:
        self.opset, self.axes = opset, list(axes)
        self.nodes: list[ir.Node] = []

    def add(self, op_type: str, *inputs: ir.Value) -> ir.Value:
        self.nodes.append(ir.node(op_type, inputs))
        return self.nodes[-1].outputs[0]

    def mean(self, value: ir.Value) -> ir.Value:
        if self.opset >= _AXES_AS_OPERAND:
            return self.add("ReduceMean", value, self.constant(np.array(self.axes, np.int64)))
        self.nodes.append(ir.node("ReduceMean", [value], attributes={"axes": self.axes}))
        return self.nodes[-1].outputs[0]

    def constant(self, value: npt.NDArray[Any]) -> ir.Value:
        self.nodes.append(ir.node("Constant", [], attributes={"value": ir.tensor(value)}))
        return self.nodes[-1].outputs[0]
