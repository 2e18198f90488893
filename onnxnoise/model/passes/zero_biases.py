"""Rewrites that must precede ONNX Runtime's optimizer: other precisions, and layers that an exporter wrote as arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnxnoise.model.origins import constants
from onnxnoise.records import Shape

_FILLED = frozenset(("Expand", "Cast", "CastLike", "Identity", "Reshape"))


def to_single(model: ir.Model) -> None:
    """float16 everywhere becomes float32, in place, so that weights are not hidden behind Casts; float64 where weights are."""
    others = {ir.DataType.FLOAT16, ir.DataType.DOUBLE} if _has_double_weights(model) else {ir.DataType.FLOAT16}
    for graph in _graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None and value.const_value.dtype in others:
                value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
                value.dtype = ir.DataType.FLOAT
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if name in ("to", "dtype", "output_dtype") and attribute.value in others:
                    node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)
                elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in others:
                    full = ir.tensor(attribute.as_tensor().numpy().astype(np.float32))
                    node.attributes[name] = ir.AttrTensor(name, full)
        for value in [*graph.inputs, *(output for node in graph for output in node.outputs)]:
            if value.dtype in others:
                value.dtype = ir.DataType.FLOAT


def _has_double_weights(model: ir.Model) -> bool:
    """Whether a matrix or kernel is float64; a vector can be shape arithmetic, whose precision must stay."""
    tensors = (value.const_value for graph in _graphs(model) for value in graph.initializers.values())
    return any(t is not None and t.dtype == ir.DataType.DOUBLE and len(t.shape) > 1 and t.size > 1 for t in tensors)


def name_casts(model: ir.Model, types: Mapping[str, int]) -> None:
    """CastLike becomes Cast, in place, where the type is known (`types` by name): the optimizer folds no constant behind it."""
    for graph in _graphs(model):
        for node in graph:
            like = node.inputs[1] if node.op_type == "CastLike" and not node.domain else None
            if like is None or not (to := types.get(like.name or "")):
                continue
            cast = ir.node("Cast", [node.inputs[0]], attributes={"to": to}, name=node.name)
            graph.insert_after(node, cast)
            name = node.outputs[0].name
            ir.convenience.replace_all_uses_with(node.outputs[0], cast.outputs[0], replace_graph_outputs=True)
            graph.remove(node, safe=True)
            cast.outputs[0].name = name


def _graphs(model: ir.Model) -> Iterator[ir.Graph]:
    yield model.graph
    yield from model.graph.subgraphs()


def drop_zero_biases(model: ir.Model) -> None:
    """A convolution's bias that is a zero blown up to its size (torch's exporter, where a layer has none) goes, in place."""
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


def fold_shapes(model: ir.Model, shapes: Mapping[str, Shape]) -> None:
    """The known part of a shape becomes a constant, in place: torch's exporter cuts a recurrent layer's weights by it."""
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
    """A part of a weight taken by SplitToSequence and SequenceAt is a Slice, which the optimizer computes; in place."""
    known = constants(model)
    for node in list(model.graph):
        split = _made_by(node.inputs[0], "SplitToSequence") if node.op_type == "SequenceAt" else None
        if split is None or split.inputs[0] not in known or len(split.inputs) < 2:
            continue
        sizes, at = (None if value is None else value.const_value for value in (split.inputs[1], node.inputs[1]))
        if sizes is None or at is None or (place := int(at.numpy())) < 0:
            continue
        lengths = sizes.numpy().ravel()
        start = int(lengths[:place].sum()) if sizes.shape else place * int(lengths[0])
        axis = split.attributes.get("axis")
        bounds = (start, start + int(lengths[place if sizes.shape else 0]), axis.as_int() if axis else 0)
        name = node.outputs[0].name
        limits = [ir.node("Constant", [], attributes={"value_ints": [bound]}) for bound in bounds]
        part = ir.node("Slice", [split.inputs[0], *(limit.outputs[0] for limit in limits)])
        model.graph.insert_after(node, [*limits, part])
        node.outputs[0].replace_all_uses_with(part.outputs[0])
        model.graph.remove(node, safe=True)
        part.outputs[0].name = name
    common.LiftConstantsToInitializersPass(size_limit=0, lift_all_constants=True)(model)
    common.RemoveUnusedNodesPass()(model)


def restore_prelu(model: ir.Model) -> None:
    """Keras' `Relu(x) + Mul(Relu(Neg(x)), -alpha)` becomes PRelu(x, alpha), in place."""
    known = constants(model)
    for node in list(model.graph):
        if node.op_type != "Add" or node.domain or len(node.inputs) != 2:
            continue
        for positive, negative in (node.inputs, node.inputs[::-1]):
            relu, product = _made_by(positive, "Relu"), _made_by(negative, "Mul")
            if relu is None or product is None:
                continue
            for mirrored, slope in (product.inputs, product.inputs[::-1]):
                inner = _made_by(mirrored, "Relu")
                negation = None if inner is None else _made_by(inner.inputs[0], "Neg")
                if negation is None or negation.inputs[0] is not relu.inputs[0] or slope not in known:
                    continue
                alpha = ir.node("Neg", [slope])  # the optimizer turns it into an initializer
                prelu = ir.node("PRelu", [relu.inputs[0], alpha.outputs[0]])
                model.graph.insert_after(node, [alpha, prelu])
                ir.convenience.replace_all_uses_with(node.outputs[0], prelu.outputs[0], replace_graph_outputs=True)
    common.RemoveUnusedNodesPass()(model)


def _made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    maker = None if value is None else value.producer()
    return maker if maker is not None and maker.op_type == op_type and not maker.domain else None
