"""Answers small questions about ONNX nodes: an attribute, the graphs inside, the names that are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import onnx


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute, or `default`."""
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


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
