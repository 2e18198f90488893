"""Answers small questions about a graph of onnx-ir: the graphs inside it, the node that makes a value."""

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
