"""Shapes and types of a graph's values, inferred without its weights' payload."""

from __future__ import annotations

from math import prod

import onnx

from onnxnoise.model.protobuf import graphs
from onnxnoise.records import Shape

_SMALL = 1024
"""Most elements of an initializer whose values shape inference gets to see: it may be a shape, axes or repeats."""


def dims(info: onnx.ValueInfoProto) -> Shape | None:
    """The declared shape, None where the rank is unknown."""
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim)


def printed(shape: Shape | None) -> str:
    return "unknown" if shape is None else "x".join("?" if d is None else str(d) for d in shape)


def infer(model: onnx.ModelProto, *, values: bool = True) -> tuple[dict[str, Shape], dict[str, int]]:
    """The shape of every value whose rank is known and the ONNX element type of every tensor whose type is, both by name.

    Where inference fails on the graph, only the types of initializers are known. With `values` shape arithmetic is computed too,
    which can be made to fill the memory (see `growth`).
    """
    inferred = _inferred(model, values=values)
    infos = [] if inferred is None else _infos(inferred)
    shapes = {info.name: dims(info) for info in infos}
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    types |= {tensor.name: tensor.data_type for graph in graphs(model.graph) for tensor in graph.initializer}
    return {name: shape for name, shape in shapes.items() if shape is not None}, types


def _infos(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [
        info
        for graph in graphs(model.graph)
        for info in (*graph.input, *graph.value_info, *graph.output)
        if info.type.HasField("tensor_type")
    ]


def _inferred(model: onnx.ModelProto, *, values: bool) -> onnx.ModelProto | None:
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = light.graph
    graph.name = "light"
    for field in ("node", "input", "output"):  # not value_info, which a tool may have left wrong
        getattr(graph, field).extend(getattr(model.graph, field))
    for tensor in model.graph.initializer:
        if prod(tensor.dims) <= _SMALL and tensor.data_location != onnx.TensorProto.EXTERNAL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    try:
        return onnx.shape_inference.infer_shapes(light, data_prop=values)
    except Exception:  # ONNX Runtime will say what is wrong with it
        return None
