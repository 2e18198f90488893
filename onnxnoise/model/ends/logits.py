"""Finds the logits, the value of a graph that ranks the classes: an output, or a value before it that ranks them alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import onnx

from onnxnoise.errors import ModelError, UsageError
from onnxnoise.model.ends.tails import is_row, ranked_value
from onnxnoise.model.graph import SHAPE_OF, Graph
from onnxnoise.model.shapes import dims, printed
from onnxnoise.records import Shape

_FLOAT = onnx.TensorProto.FLOAT


def find_logits(
    outputs: Iterable[onnx.ValueInfoProto],
    graph: Graph,
    image: str,
    path: Path,
    wanted: str | None,
    classes: Callable[[], int | None],
    types: Mapping[str, int],
) -> tuple[str, int | None]:
    """(name of the value that ranks the classes, its number of columns where the file says).

    `graph` has the known shapes, `image` is its input, `types` has the known element types by name. `wanted` names an output,
    `classes` gives the number of columns that the logits should have. Raises ModelError where no output, or more than one, could
    be the logits; UsageError where `wanted` isn't an output.
    """
    named = {info.name: info for info in outputs}
    if wanted is not None and wanted not in named:
        raise UsageError(f"{path} has no output {wanted!r}; it has {', '.join(named)}")
    seen = _made_from(graph, image)
    choice = {name: info for name, info in named.items() if name == (wanted or name)}
    fitting: dict[str, tuple[str, int | None]] = {}
    for name, info in choice.items():
        value = ranked_value(graph, graph.shapes, name, info.type.tensor_type.elem_type)
        shape = dims(info) if value == name else graph.shapes.get(value, dims(info))
        element = info.type.tensor_type.elem_type if value == name else types.get(value, _FLOAT)
        if name in seen and element == _FLOAT and is_row(shape):
            fitting[name] = value, None if shape is None else next((d for d in shape[1:] if d != 1), None)
    if not fitting:
        if wanted is not None and wanted not in seen:
            raise ModelError(f"{path}: output {wanted!r} does not depend on the image input {image!r}")
        listed = ", ".join(_described(info) for info in choice.values())
        raise ModelError(
            f"{path}: no classifier output among {listed}; one float row of class scores an image is needed: "
            "export the network without what follows them (ArgMax, boxes, masks)"
        )
    if len(fitting) > 1 and (count := classes()) in [columns for _, columns in fitting.values()]:
        fitting = {name: each for name, each in fitting.items() if each[1] == count}
    values = dict(fitting.values())
    if len(values) > 1:
        listed = ", ".join(f"{name!r} ({columns or '?'} columns)" for name, (_, columns) in fitting.items())
        raise ModelError(f"{path}: several outputs could be the logits: {listed}; say which with --output NAME")
    return next(iter(values.items()))


def _made_from(graph: Graph, image: str) -> set[str]:
    """The names of the values that depend on the images' pixels."""
    seen, waiting = {image}, [image]
    while waiting:
        for user in graph.consumers.get(waiting.pop(), ()):
            node = graph.nodes[user]
            new = [name for name in node.output if name and name not in seen and node.op_type not in SHAPE_OF]
            seen.update(new)
            waiting += new
    return seen


def _described(info: onnx.ValueInfoProto) -> str:
    """An output's name, type and shape."""
    tensor = info.type.tensor_type
    kind = (
        onnx.TensorProto.DataType.Name(tensor.elem_type).lower() if info.type.HasField("tensor_type") else "no tensor"
    )
    shape: Shape | None = dims(info)
    return f"{info.name!r} {kind} {'of unknown shape' if shape is None else printed(shape)}"
