"""A parameter that is added to zeros, or multiplied by ones, only takes their shape: a class token, repeated for each image."""

from __future__ import annotations

import onnx_ir as ir

from onnxnoise.model.origins import constants
from onnxnoise.model.passes.nodes import made_by, put

_NEUTRAL = {"Add": 0, "Mul": 1}
_SAME = ("Cast", "CastLike", "Identity")


def expand_parameters(model: ir.Model) -> None:
    """Turn `zeros(shape) + parameter` and `ones(shape) * parameter` into `Expand(parameter, shape)`, in place."""
    known = constants(model)
    for node in list(model.graph):
        if node.op_type not in _NEUTRAL or node.domain or len(node.inputs) != 2:
            continue
        for filled, parameter in (node.inputs, node.inputs[::-1]):
            shape = _shape_of_filled(filled, _NEUTRAL[node.op_type])
            if shape is None or parameter is None or not known.get(parameter):
                continue
            expanded = ir.node("Expand", [parameter, shape], name=node.name)
            put(model.graph, node, expanded)
            break


def _shape_of_filled(value: ir.Value | None, number: int) -> ir.Value | None:
    """The shape that a value filled with one `number` is given, None for another value."""
    while value is not None and (maker := value.producer()) is not None and maker.op_type in _SAME:
        value = maker.inputs[0]
    expand, filled = made_by(value, "Expand"), made_by(value, "ConstantOfShape")
    if expand is not None:
        tensor = None if expand.inputs[0] is None else expand.inputs[0].const_value
        return expand.inputs[1] if tensor is not None and tensor.size == 1 and tensor.numpy().item() == number else None
    if filled is None:
        return None
    fill = filled.attributes.get("value")
    return filled.inputs[0] if (0 if fill is None else fill.as_tensor().numpy().item()) == number else None
