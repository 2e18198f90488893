"""Answers small questions about ONNX nodes and tensors: an attribute, the names that are read, the values in a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

_HALF_BYTES = frozenset((onnx.TensorProto.INT4, onnx.TensorProto.UINT4))
"""Types of which a file has two in a byte."""


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute, or `default`."""
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def named(node: onnx.NodeProto) -> str:
    """A node as messages call it: its operator, and its name or, where it has none, that of its first value."""
    return f"{node.op_type} {node.name or next(iter(node.output), '')!r}"


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in a node's attributes: the branches of an If, the body of a Loop."""
    for each in node.attribute:
        if each.type == onnx.AttributeProto.GRAPH:
            yield each.g
        yield from each.graphs


def nested(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and all nodes in their subgraphs."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from nested(graph.node)


def reads(node: onnx.NodeProto) -> list[str]:
    """The names that a node needs: its operands without empty ones, then the values that its subgraphs take from outside."""
    names = [name for name in node.input if name]
    for graph in subgraphs(node):
        inner = {i.name for i in (*graph.input, *graph.initializer)}
        for child in graph.node:
            names += [name for name in reads(child) if name not in inner]
            inner.update(child.output)
        names += [output.name for output in graph.output if output.name not in inner]
    return names


def values(tensor: onnx.TensorProto, folder: Path) -> npt.NDArray[Any]:
    """A tensor's values as an array of its own; external data is read from its file, which is named relative to `folder`."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return np.array(onnx.numpy_helper.to_array(tensor))  # the message must not stay in memory
    where = {entry.key: entry.value for entry in tensor.external_data}
    file, offset, size = folder / where["location"], int(where.get("offset", 0)), prod(tensor.dims)
    if tensor.data_type in _HALF_BYTES:
        packed = np.fromfile(file, np.uint8, (size + 1) // 2, offset=offset).tobytes()
        inside = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=packed)
        return np.asarray(onnx.numpy_helper.to_array(inside))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.fromfile(file, dtype, size, offset=offset).reshape(tuple(tensor.dims))
