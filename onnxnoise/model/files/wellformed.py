"""Files that break ONNX's own rules are refused as ONNX's checker and ONNX Runtime refuse them, before they are rewritten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import onnx

from onnxnoise.errors import ModelError
from onnxnoise.model.graph import QUANTIZE
from onnxnoise.model.protobuf import all_nodes, graphs
from onnxnoise.runtime.protos import attribute, named, nested

_BROKEN = "the file is broken, export it again"


def check_unique(stub: onnx.ModelProto, path: Path) -> None:
    """Raise ModelError where two things have one name (initializers, attributes of a node), or a function names no opset."""
    for graph in graphs(stub.graph):
        names = (*(t.name for t in graph.initializer), *(t.values.name for t in graph.sparse_initializer))
        if (name := _twice(names)) is not None:
            raise ModelError(
                f"{path}: two initializers are called {name!r}, and programs differ in which one they use; {_BROKEN}"
            )
    for node in all_nodes(stub):
        if (name := _twice(each.name for each in node.attribute)) is not None:
            raise ModelError(f"{path}: {named(node)} has two attributes {name!r}; {_BROKEN}")
    for function in stub.functions:
        if not function.opset_import:
            raise ModelError(
                f"{path}: function {function.domain}.{function.name} does not say which opset it is in; {_BROKEN}"
            )


def check_types(model: onnx.ModelProto, types: Mapping[str, int], path: Path) -> None:
    """Raise ModelError where an operand has a type that ONNX's operator doesn't take; `types` by name, where they are known."""
    opset = next((each.version for each in model.opset_import if not each.domain), 1)
    for node in nested(model.graph.node):
        schema = None if node.domain else _schema(node.op_type, opset)
        if schema is None or not schema.inputs:
            continue
        for slot, name in enumerate(node.input):
            element = types.get(name, 0) if name else 0
            expected = schema.inputs[min(slot, len(schema.inputs) - 1)]
            kind = f"tensor({onnx.TensorProto.DataType.Name(element).lower()})" if element else ""
            if kind and any(each.startswith("tensor(") for each in expected.types) and kind not in expected.types:
                raise ModelError(
                    f"{path}: operand {expected.name!r} of {named(node)} is {name!r}, a {kind}, "
                    f"which {node.op_type} does not take; {_BROKEN}"
                )


def check_axes(stub: onnx.ModelProto, path: Path) -> None:
    """Raise ModelError where a tensor is quantized along a dimension that it doesn't have."""
    ranks = {tensor.name: len(tensor.dims) for graph in graphs(stub.graph) for tensor in graph.initializer}
    sizes = {t.name: prod(t.dims) for graph in graphs(stub.graph) for t in graph.initializer}
    for node in all_nodes(stub):
        if node.op_type not in QUANTIZE or len(node.input) < 2 or sizes.get(node.input[1], 1) == 1:
            continue
        rank, axis = ranks.get(node.input[0]), attribute(node, "axis", 1)
        if rank is not None and not -rank <= axis < rank and any(each.name == "axis" for each in node.attribute):
            raise ModelError(
                f"{path}: {named(node)} works along axis {axis} of {node.input[0]!r}, which has {rank} dimensions; {_BROKEN}"
            )


def _twice(names: Iterable[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1 and name), None)


@cache
def _schema(operator: str, opset: int) -> Any:
    """ONNX's definition of one of its operators in an opset, None where it has none."""
    try:
        return onnx.defs.get_schema(operator, opset, "")
    except onnx.defs.SchemaError:
        return None
