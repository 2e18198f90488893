"""Shapes of a graph's values, inferred without its weights' payload."""

from __future__ import annotations

from math import prod
from pathlib import Path

import onnx

from onnxnoise.errors import ModelError
from onnxnoise.machine import memory
from onnxnoise.model.file import graphs
from onnxnoise.records import Shape

_UNTOLD = 1 << 34
"""Assumed bytes of memory where a machine does not say how much it has."""

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


def infer_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """The shape of every value whose rank is known, by name; empty where inference fails on the graph."""
    inferred = _inferred(model)
    found = {} if inferred is None else _value_shapes(inferred)
    return {name: shape for name, shape in found.items() if shape is not None}


def infer_types(model: onnx.ModelProto) -> dict[str, int]:
    """The ONNX element type of every tensor whose type is known, by name."""
    inferred = _inferred(model)
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


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto | None:
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
        return onnx.shape_inference.infer_shapes(light, data_prop=True)
    except Exception:  # ONNX Runtime will say what is wrong with it
        return None


def check_sizes(model: onnx.ModelProto, path: Path) -> None:
    """Refuse constants that a few bytes blow up to terabytes, before ONNX Runtime's constant folding makes them.

    Values that are computed from constants alone (ConstantOfShape, Expand, Tile, ...) count with what they take beyond the
    constants they are made of. Raises ModelError.
    """
    inferred = _inferred(model)
    if inferred is None:
        return
    shapes = _value_shapes(inferred)
    sizes = {tensor.name: 4 * prod(tensor.dims) for graph in graphs(model.graph) for tensor in graph.initializer}
    limit, grown = (memory().usable or _UNTOLD) // 4, 0
    for graph in graphs(inferred.graph):
        for node in graph.node:
            if not all(name in sizes for name in node.input if name):
                continue
            given = sum(sizes[name] for name in node.input if name)
            for name in node.output:
                sizes[name] = 4 * prod(d or 1 for d in shapes.get(name) or ())
                grown += max(0, sizes[name] - given)
                if grown > limit:
                    raise ModelError(
                        f"{path}: constant {name!r} of shape {printed(shapes.get(name))}, made by {node.op_type}, would take "
                        f"{sizes[name] / 1e9:,.1f} GB of this machine's memory; "
                        "the file is broken or made to do harm: export it again"
                    )
