"""A bias that an exporter subtracts is one that is added, with the other sign: it gets the same noise as in other exports."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from onnxnoise.model.graph import LAYOUT, QUANTIZE
from onnxnoise.model.origins import constants
from onnxnoise.model.passes.nodes import put

_LAYERS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
_SCALES = frozenset(("Mul", "Div"))


def add_subtracted_biases(model: ir.Model) -> None:
    """Turn `layer - constant` into `layer + (-constant)`, in place, behind a convolution or dense layer without a bias.

    Where a scale by a constant follows, the constant is the mean of a batch norm and stays.
    """
    known: dict[ir.Value | None, frozenset[str]] = dict(constants(model).items())
    for node in list(model.graph):
        if node.op_type != "Sub" or node.domain or len(node.inputs) != 2:
            continue
        subtracted = node.inputs[1]
        if subtracted is None or not known.get(subtracted):
            continue
        tensor = subtracted.const_value
        if tensor is not None and sum(d != 1 for d in tensor.shape.numpy()) != 1:
            continue
        if node.inputs[0] in known or not _is_layer(node.inputs[0], known) or _is_scaled(node, known):
            continue
        negated = ir.node("Neg", [subtracted])  # the optimizer computes it
        added = ir.node("Add", [node.inputs[0], negated.outputs[0]], name=node.name)
        put(model.graph, node, negated, added)


def _is_layer(value: ir.Value | None, known: Mapping[ir.Value | None, frozenset[str]]) -> bool:
    """Whether a convolution or dense layer without a bias makes a value, layout and quantization skipped."""
    while value is not None and (maker := value.producer()) is not None and len(list(value.uses())) == 1:
        if maker.op_type in _LAYERS and not maker.domain:
            biased = len(maker.inputs) > 2 and maker.inputs[2] is not None
            return not biased and any(each in known for each in maker.inputs[:2])
        if maker.op_type not in LAYOUT | QUANTIZE:
            return False
        value = maker.inputs[0]
    return False


def _is_scaled(node: ir.Node, known: Mapping[ir.Value | None, frozenset[str]]) -> bool:
    """Whether the next operator behind a node, layout and quantization skipped, is a scale by a constant."""
    while len(uses := list(node.outputs[0].uses())) == 1:
        node = uses[0].node
        if node.op_type not in LAYOUT | QUANTIZE:
            return node.op_type in _SCALES and any(each in known and known[each] for each in node.inputs if each)
    return False
