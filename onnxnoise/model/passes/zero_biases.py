"""Biases that are only zeros, which an exporter gave to convolutions that have none."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

_FILLED = frozenset(("Expand", "Cast", "CastLike", "Identity", "Reshape"))


def drop_zero_biases(model: ir.Model) -> None:
    """Remove, in place, biases of convolutions that are one zero expanded: torch's exporter writes them where a layer
    has no bias.
    """
    for node in model.graph:
        if node.op_type not in ("Conv", "ConvTranspose") or len(node.inputs) < 3:
            continue
        value = node.inputs[2]
        while value is not None and (maker := value.producer()) is not None and maker.op_type in _FILLED:
            value = maker.inputs[0]
        if value is None or value is node.inputs[2]:
            continue
        if value.const_value is not None and value.const_value.size == 1 and not value.const_value.numpy().any():
            node.resize_inputs(2)
    common.RemoveUnusedNodesPass()(model)
