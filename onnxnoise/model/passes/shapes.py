"""Shape arithmetic, and weights cut by it, written so that ONNX Runtime's optimizer computes it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnxnoise.model.origins import constants
from onnxnoise.model.passes.nodes import all_graphs, made_by, put
from onnxnoise.records import Shape


def name_casts(model: ir.Model, types: Mapping[str, int]) -> None:
    """Turn CastLike into Cast, in place, where the type is known (`types` by name): the optimizer folds no constant
    behind CastLike.
    """
    for graph in all_graphs(model):
        for node in graph:
            like = node.inputs[1] if node.op_type == "CastLike" and not node.domain else None
            if like is None or not (to := types.get(like.name or "")):
                continue
            cast = ir.node("Cast", [node.inputs[0]], attributes={"to": to}, name=node.name)
            put(graph, node, cast)


def fold_shapes(model: ir.Model, shapes: Mapping[str, Shape]) -> None:
    """Turn each part of a shape that is known into a constant, in place: torch's exporter cuts a recurrent layer's
    weights by it.
    """
    for node in list(model.graph):
        if node.op_type != "Shape" or node.inputs[0] is None or node.outputs[0].is_graph_output():
            continue
        start, end = (node.attributes.get(name) for name in ("start", "end"))
        shape = shapes.get(node.inputs[0].name or "")
        if shape is None:
            continue
        part = shape[start.as_int() if start else 0 : end.as_int() if end else None]
        if None in part:
            continue
        name = node.outputs[0].name
        tensor = ir.tensor(np.array(part, np.int64), name=name)
        constant = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape([len(part)]), const_value=tensor
        )
        node.outputs[0].replace_all_uses_with(constant)
        model.graph.remove(node, safe=True)
        model.graph.register_initializer(constant)


def fold_sequences(model: ir.Model) -> None:
    """Turn SplitToSequence and SequenceAt of a weight into a Slice, in place: the optimizer computes that one."""
    known = constants(model)
    for node in list(model.graph):
        split = made_by(node.inputs[0], "SplitToSequence") if node.op_type == "SequenceAt" else None
        if split is None or split.inputs[0] not in known or len(split.inputs) < 2:
            continue
        sizes, at = (None if value is None else value.const_value for value in (split.inputs[1], node.inputs[1]))
        if sizes is None or at is None or (place := int(at.numpy())) < 0:
            continue
        lengths = sizes.numpy().ravel()
        start = int(lengths[:place].sum()) if sizes.shape else place * int(lengths[0])
        axis = split.attributes.get("axis")
        bounds = (start, start + int(lengths[place if sizes.shape else 0]), axis.as_int() if axis else 0)
        limits = [ir.node("Constant", [], attributes={"value_ints": [bound]}) for bound in bounds]
        part = ir.node("Slice", [split.inputs[0], *(limit.outputs[0] for limit in limits)])
        put(model.graph, node, *limits, part)
    common.LiftConstantsToInitializersPass(size_limit=0, lift_all_constants=True)(model)
    common.RemoveUnusedNodesPass()(model)
