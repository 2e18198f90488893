"""Shapes of a graph's values, inferred without its weights' payload."""

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


def infer_shapes(model: onnx.ModelProto, *, values: bool = True) -> dict[str, Shape]:
    """The shape of every value whose rank is known, by name; empty where inference fails on the graph.

    With `values` shape arithmetic is computed too, which can be made to fill the memory (see `growth`).
    """
    inferred = _inferred(model, values=values)
    found = {} if inferred is None else _value_shapes(inferred)
    return {name: shape for name, shape in found.items() if shape is not None}


def infer_types(model: onnx.ModelProto, *, values: bool = True) -> dict[str, int]:
    """The ONNX element type of every tensor whose type is known, by name."""
    inferred = _inferred(model, values=values)
    made = {} if inferred is None else {info.name: info.type.tensor_type.elem_type for info in _infos(inferred)}
    return made | {tensor.name: tensor.data_type for graph in graphs(model.graph) for tensor in graph.initializer}


def _value_shapes(model: onnx.ModelProto) -> dict[str, Shape | None]:
    return {info.name: dims(info) for info in _infos(model)}


def _infos(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [
        info
        for graph in graphs(model.graph)
        for info in (*graph.input, *graph.value_info, *graph.output)
        if info.type.HasField("tensor_type")
    ]


def _inferred(model: onnx.ModelProto, *, values: bool = True) -> onnx.ModelProto | None:
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
