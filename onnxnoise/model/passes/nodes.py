"""Questions and changes of a graph of onnx-ir: the graphs inside, the node that makes a value, one put in another's place."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir


def all_graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The model's graph, then the graphs in its nodes' attributes at any depth."""
    yield model.graph
    yield from model.graph.subgraphs()


def made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes `value`, if it is one of ONNX's own `op_type`."""
    maker = None if value is None else value.producer()
    return maker if maker is not None and maker.op_type == op_type and not maker.domain else None


def put(graph: ir.Graph, node: ir.Node, *instead: ir.Node) -> None:
    """Put the nodes `instead` in the place of a node with one output: that of the last takes over its name and its uses."""
    graph.insert_after(node, instead)
    old, new = node.outputs[0], instead[-1].outputs[0]
    name = old.name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    new.name = name
