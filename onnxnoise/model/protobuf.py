"""Walks over everything in a ModelProto: its graphs, nodes, tensors and names, at any depth."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from onnxnoise.runtime.protos import nested, subgraphs


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, then the graphs in its nodes' attributes at any depth."""
    yield graph
    for node in nested(graph.node):
        yield from subgraphs(node)


def read_names(graph: onnx.GraphProto) -> set[str]:
    """The names that nodes of a graph or of its subgraphs read, and the names of these graphs' outputs."""
    inner = list(graphs(graph))
    return {name for each in inner for node in each.node for name in node.input if name} | {
        info.name for each in inner for info in each.output
    }


def all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node of a model, those in subgraphs and functions too."""
    yield from nested(model.graph.node)
    for function in model.functions:
        yield from nested(function.node)


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: initializers, subgraphs' too, and attributes such as a Constant's value."""
    for graph in graphs(model.graph):
        yield from graph.initializer
    for node in all_nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
