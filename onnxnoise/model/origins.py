"""The file's weights in each value that constant folding will make, so that layers keep their names."""

from __future__ import annotations

import onnx_ir as ir

from onnxnoise.model.graph import QUANTIZE, SHAPE_OF


def origins(model: ir.Model) -> dict[str, tuple[str, ...]]:
    """The file's tensors of more than one element in each value that constant folding will make.

    A value that is made of one-element constants alone (an attention mask, zeros in place of a bias) has none: it isn't a weight.
    """
    return {
        value.name: tuple(sorted(leaves))
        for value, leaves in constants(model).items()
        if value.name and value.producer() is not None
    }


def _can_be_weights(dtype: ir.DataType) -> bool:
    return dtype.is_floating_point() or dtype in (
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.INT4,
        ir.DataType.UINT4,
    )


def constants(model: ir.Model) -> dict[ir.Value, frozenset[str]]:
    """Every constant, and every value made of constants alone, each with the names of the weights in it."""
    found = {
        value: frozenset([value.name or ""] if tensor.size > 1 and _can_be_weights(tensor.dtype) else [])
        for value in model.graph.initializers.values()
        if (tensor := value.const_value) is not None
    }
    for node in model.graph:
        inputs = [value for value in node.inputs if value is not None]
        if node.op_type in SHAPE_OF:
            leaves: frozenset[str] = frozenset()
        elif node.op_type == "ConstantOfShape":  # onnx's own light models fill their weights so
            fill = node.attributes.get("value")
            filled = fill is not None and bool((fill.as_tensor().numpy() % 1).any())
            leaves = frozenset([node.outputs[0].name or ""] if filled else [])
        elif not all(value in found for value in inputs):
            continue
        elif node.op_type in QUANTIZE:
            leaves = found[inputs[0]] or frozenset([inputs[0].name or ""])
        else:
            leaves = frozenset().union(*(found[value] for value in inputs))
        found |= dict.fromkeys(node.outputs, leaves)
    return found
