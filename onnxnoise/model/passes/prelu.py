"""A PRelu that an exporter wrote as arithmetic becomes a PRelu again."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from onnxnoise.model.origins import constants
from onnxnoise.model.passes.nodes import made_by


def restore_prelu(model: ir.Model) -> None:
    """Turn Keras' `Relu(x) + Mul(Relu(Neg(x)), -alpha)` into PRelu(x, alpha), in place."""
    known = constants(model)
    for node in list(model.graph):
        if node.op_type != "Add" or node.domain or len(node.inputs) != 2:
            continue
        for positive, negative in (node.inputs, node.inputs[::-1]):
            relu, product = made_by(positive, "Relu"), made_by(negative, "Mul")
            if relu is None or product is None:
                continue
            for mirrored, slope in (product.inputs, product.inputs[::-1]):
                inner = made_by(mirrored, "Relu")
                negation = None if inner is None else made_by(inner.inputs[0], "Neg")
                if negation is None or negation.inputs[0] is not relu.inputs[0] or slope not in known:
                    continue
                alpha = ir.node("Neg", [slope])  # the optimizer turns it into an initializer
                prelu = ir.node("PRelu", [relu.inputs[0], alpha.outputs[0]])
                model.graph.insert_after(node, [alpha, prelu])
                ir.convenience.replace_all_uses_with(node.outputs[0], prelu.outputs[0], replace_graph_outputs=True)
    common.RemoveUnusedNodesPass()(model)
