"""Which value of a graph ranks the classes: an output's, before what follows it without changing the ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from onnxnoise.errors import ModelError, UsageError
from onnxnoise.model.graph import LAYOUT, QUANTIZE, Graph
from onnxnoise.model.shapes import dims, printed
from onnxnoise.records import Shape
from onnxnoise.runtime.protos import attribute

_FLOAT = onnx.TensorProto.FLOAT


def find_logits(
    model: onnx.ModelProto, graph: Graph, path: Path, wanted: str | None, classes: Callable[[], int | None]
) -> tuple[str, int | None]:
    """(name of the value that ranks the classes, its number of columns where the file says).

    `wanted` names an output, `classes` gives the number of columns that the logits should have. Raises ModelError where no
    output, or more than one, could be the logits; UsageError where `wanted` is no output.
    """
    outputs = {o.name: o for o in model.graph.output}
    if wanted is not None:
        if wanted not in outputs:
            raise UsageError(f"{path} has no output {wanted!r}; it has {', '.join(outputs)}")
        outputs = {wanted: outputs[wanted]}
    fitting: dict[str, int | None] = {}
    for name, info in outputs.items():
        shape = dims(info)
        if info.type.tensor_type.elem_type == _FLOAT and _is_row(shape):
            fitting[name] = None if shape is None else next((d for d in shape[1:] if d != 1), None)
    if not fitting:
        listed = ", ".join(f"{name!r} {printed(dims(info))}" for name, info in outputs.items())
        raise ModelError(
            f"{path}: no classifier output among {listed}; one float row of class scores an image is needed"
        )
    if len(fitting) > 1 and (count := classes()) in fitting.values():
        fitting = {name: columns for name, columns in fitting.items() if columns == count}
    values = {_before_softmax(graph, name): columns for name, columns in fitting.items()}
    if len(values) > 1:
        listed = ", ".join(f"{name!r} ({columns or '?'} columns)" for name, columns in fitting.items())
        raise ModelError(f"{path}: several outputs could be the logits: {listed}; say which with --output NAME")
    return next(iter(values.items()))


def _is_row(shape: Shape | None) -> bool:
    """Whether a value can be one row of class scores an image: (N, classes), or (N, classes, 1, 1) and the like."""
    return shape is None or (len(shape) >= 2 and sum(d != 1 for d in shape[1:]) == 1)


def _before_softmax(graph: Graph, output: str) -> str:
    """The input of a final Softmax or LogSoftmax (only layout and quantization after it), else `output` itself."""
    name = output
    while (maker := graph.producer.get(name)) is not None:
        node = graph.nodes[maker]
        if node.op_type in ("Softmax", "LogSoftmax") and not node.domain:
            return str(node.input[0]) if attribute(node, "axis", -1) != 0 else output
        if node.op_type not in LAYOUT | QUANTIZE:
            break
        name = node.input[0]
    return output
