"""From an ONNX file to a normalized classifier: one image input, logits, every weight a float32 constant."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxnoise.errors import ModelError, UsageError
from onnxnoise.model.file import read_model
from onnxnoise.model.graph import LAYOUT, QUANTIZE, Graph, needed
from onnxnoise.model.prepare import prepared
from onnxnoise.model.shapes import dims, infer_shapes, printed
from onnxnoise.records import ImageInput, Layout, Shape
from onnxnoise.runtime import session
from onnxnoise.runtime.optimizer import normalize
from onnxnoise.runtime.protos import attribute, nested, reads

Array = npt.NDArray[Any]

_FLOAT, _UINT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
_TO_NCHW = [0, 3, 1, 2]
_ELEMENT_BY_ELEMENT = frozenset(("Add", "Concat", "Mul", "Sub"))
_RENAMED = re.compile(r"^(?:UnsqueezeElimination_|ConvAddFusion_(?:Add_)?B_)+")
"""What ONNX Runtime puts before the name of an initializer that it reshapes."""


Classes = Callable[[Mapping[str, str]], int | None]
"""From a file's metadata to the number of classes that its logits should have, asked only where several outputs could be them."""


@dataclass(frozen=True)
class Classifier:
    """A normalized network: nodes in an executable order, constants by name, the image input and the logits' name.

    `classes` is None where the file doesn't tell. `shapes` holds what could be inferred. `origins` tells what the constants that
    normalizing computed were made of. `raw` is the graph as read, for what normalizing removed.
    """

    name: str
    path: Path
    sha256: str
    nodes: tuple[onnx.NodeProto, ...]
    constants: Mapping[str, Array]
    opsets: Mapping[str, int]
    image: ImageInput
    logits: str
    classes: int | None
    metadata: Mapping[str, str]
    shapes: Mapping[str, Shape]
    origins: Mapping[str, tuple[str, ...]]
    raw: onnx.ModelProto

    def behind(self, constant: str) -> tuple[str, ...]:
        """The file's tensors of more than one element behind a constant: itself, or what normalizing computed it of."""
        name = _RENAMED.sub("", constant)
        return self.origins.get(name, (name,))


def load_classifier(path: Path, *, output: str | None = None, classes: Classes = lambda _: None) -> Classifier:
    """Read and normalize the ONNX file at `path`.

    Where a file has several outputs, `output` names the logits, or `classes` tells how many columns they have. Raises ModelError
    with the reason if the file can't be used: not ONNX, cut short, exported in training mode, integer operators, no weights, no
    image input, no classifier output; UsageError if `output` is not one of the file's.
    """
    file = read_model(path)
    ready = prepared(file)
    try:
        optimized = normalize(ready.model, file.folder, str(path))
    except ModelError as error:
        raise ModelError(_explained(str(error), file.stub, path)) from error
    constants = _values(optimized, file.folder)
    image = _image_input(optimized, constants, path)
    # a node of the message itself would keep all its tensors in memory
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in optimized.graph.node if n.op_type != "Constant"]
    metadata = {p.key: p.value for p in file.stub.metadata_props}
    logits, columns = _logits(optimized, Graph(nodes, constants), path, output, lambda: classes(metadata))
    nodes, constants = _once(needed(nodes, logits), constants, image.batch)
    used = {name for node in nodes for name in reads(node)}
    domains = {node.domain for node in nested(nodes)} | {""}
    if image.name not in used:
        raise ModelError(f"{path}: output {logits!r} does not depend on the image input {image.name!r}")
    return Classifier(
        name=path.stem,
        path=path,
        sha256=file.sha256,
        nodes=tuple(nodes),
        constants={name: value for name, value in constants.items() if name in used},
        opsets={o.domain: o.version for o in optimized.opset_import if o.domain in domains},
        image=image,
        logits=logits,
        classes=columns,
        metadata=metadata,
        shapes=infer_shapes(optimized),
        origins=ready.origins,
        raw=file.stub,
    )


def _explained(message: str, stub: onnx.ModelProto, path: Path) -> str:
    """ONNX Runtime's refusal with what to do about it, where that is known."""
    if newest := re.search(r"support for domain ai\.onnx is till opset (\d+)", message):
        opset = next((each.version for each in stub.opset_import if each.domain in ("", "ai.onnx")), "?")
        return (
            f"{path}: its opset {opset} is newer than what ONNX Runtime {session.VERSION} runs ({newest[1]}); export with "
            f"opset {newest[1]} or older (torch: opset_version, tf2onnx: --opset), or update ONNX Runtime"
        )
    if unknown := re.search(r"(\S+)\(-?\d+\) is not a registered function/op|No Op registered for (\S+)", message):
        return f"{path}: ONNX Runtime knows no operator {unknown[1] or unknown[2]}; export without it, with ONNX's own operators"
    return message


def _values(model: onnx.ModelProto, folder: Path) -> dict[str, Array]:
    """Every initializer's value; external ones are read straight into memory of their own."""
    values: dict[str, Array] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            values[tensor.name] = np.array(onnx.numpy_helper.to_array(tensor))  # the message must not stay in memory
            continue
        where = {entry.key: entry.value for entry in tensor.external_data}
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        flat = np.fromfile(folder / where["location"], dtype, prod(tensor.dims), offset=int(where.get("offset", 0)))
        values[tensor.name] = flat.reshape(tuple(tensor.dims))
    for value in values.values():
        value.flags.writeable = False
    return values


def _image_input(model: onnx.ModelProto, constants: Mapping[str, Array], path: Path) -> ImageInput:
    (info,) = [i for i in model.graph.input if i.name not in constants]
    shape = dims(info)
    element = info.type.tensor_type.elem_type
    described = f"input {info.name!r} of type {onnx.TensorProto.DataType.Name(element)} and shape {printed(shape)}"
    if shape is None or len(shape) != 4:
        raise ModelError(
            f"{path}: no image input: {described}; an image input has four dimensions (N,C,H,W or N,H,W,C)"
        )
    if element not in (_FLOAT, _UINT8):
        raise ModelError(f"{path}: {described}; an image input is float32, float16 or uint8")
    return ImageInput(info.name, "float32" if element == _FLOAT else "uint8", shape, _layout(model, info.name, shape))


def _layout(model: onnx.ModelProto, name: str, shape: Shape) -> Layout | None:
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first != last:
        return "nchw" if first else "nhwc"
    behind = {name}
    for node in model.graph.node:
        if behind.isdisjoint(node.input):
            continue
        if node.op_type == "Transpose":
            return "nhwc" if list(attribute(node, "perm", [])) == _TO_NCHW else None
        if node.op_type == "Conv":
            return "nchw"
        behind.update(node.output)
    return None


def _logits(
    model: onnx.ModelProto, graph: Graph, path: Path, wanted: str | None, classes: Callable[[], int | None]
) -> tuple[str, int | None]:
    """(name of the value that ranks the classes, its number of columns where the file tells)."""
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


def _once(
    nodes: list[onnx.NodeProto], constants: Mapping[str, Array], batch: int | None
) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """A parameter that an export of fixed batch size stores once for each image (a class token) is one again, and an Expand."""
    once, uses = dict(constants), Counter(name for node in nodes for name in reads(node))
    made: list[onnx.NodeProto] = []
    for node in nodes:
        new = node
        if node.op_type in _ELEMENT_BY_ELEMENT and not node.domain and (batch or 1) > 1:
            new = onnx.NodeProto.FromString(node.SerializeToString())
            for slot, name in enumerate(node.input):
                value = constants.get(name)
                if value is None or uses[name] > 1 or value.ndim < 3 or value.dtype != np.float32:
                    continue
                if len(value) == batch and bool((value == value[:1]).all()):
                    once[name], once[f"{name}:shape"] = value[:1], np.array(value.shape, np.int64)
                    new.input[slot] = f"{name}:each"
                    made.append(onnx.helper.make_node("Expand", [name, f"{name}:shape"], [f"{name}:each"]))
        made.append(new)
    return made, once


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
