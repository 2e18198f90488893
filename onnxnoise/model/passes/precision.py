"""Makes weights of other precisions float32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxnoise.model.passes.nodes import all_graphs


def to_single(model: ir.Model) -> None:
    """Turn float16 into float32, in place, so that no Cast hides a weight; float64 too in a model whose weights are float64."""
    others = {ir.DataType.FLOAT16, ir.DataType.DOUBLE} if _has_double_weights(model) else {ir.DataType.FLOAT16}
    for graph in all_graphs(model):
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
    tensors = (value.const_value for graph in all_graphs(model) for value in graph.initializers.values())
    return any(t is not None and t.dtype == ir.DataType.DOUBLE and len(t.shape) > 1 and t.size > 1 for t in tensors)
