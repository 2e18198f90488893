"""The image input of a normalized graph: its type, its shape, and the dimension of its channels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import onnx

from onnxnoise.errors import ModelError
from onnxnoise.model.graph import LAYOUT
from onnxnoise.model.shapes import dims, printed
from onnxnoise.records import ImageInput, Layout, Shape
from onnxnoise.runtime.protos import attribute

_TYPES: dict[int, Literal["float32", "uint8", "int8"]] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT8: "int8",
}
_TO_NCHW = [0, 3, 1, 2]
_MOVES = LAYOUT - {"Cast", "CastLike"}


def image_input(model: onnx.ModelProto, constants: Mapping[str, Any], path: Path) -> ImageInput:
    """The image input of the graph, or another array for each image; raises ModelError, which names `path`, for anything else."""
    (info,) = [i for i in model.graph.input if i.name not in constants]
    shape = dims(info)
    element = info.type.tensor_type.elem_type
    described = f"input {info.name!r} of type {onnx.TensorProto.DataType.Name(element)} and shape {printed(shape)}"
    if shape is None or len(shape) < 2 or (len(shape) == 3 and shape[0] == 3):
        raise ModelError(
            f"{path}: no image input: {described}; an image input has four dimensions (N,C,H,W or N,H,W,C), and any other "
            "has the images' dimension first: (N,features), (N,channels,time)"
        )
    if element not in _TYPES:
        raise ModelError(f"{path}: {described}; an image input is float32, float16, uint8 or int8")
    layout, quantization = _layout(model, info.name, shape), _quantization(model, constants, info.name)
    return ImageInput(info.name, _TYPES[element], shape, layout, quantization)


def _quantization(model: onnx.ModelProto, constants: Mapping[str, Any], name: str) -> tuple[float, int] | None:
    """The scale and zero point with which the graph dequantizes its input, if all that reads it does so."""
    behind, found = {name}, set()
    for node in model.graph.node:
        if behind.isdisjoint(node.input):
            continue
        if node.op_type in _MOVES:
            behind.update(node.output)
            continue
        numbers = [constants[each].item() for each in node.input[1:] if each in constants and constants[each].size == 1]
        if node.op_type != "DequantizeLinear" or len(numbers) < len(node.input) - 1:
            return None
        found.add((float(numbers[0]), int(numbers[1]) if len(numbers) > 1 else 0))
    return found.pop() if len(found) == 1 else None


def _layout(model: onnx.ModelProto, name: str, shape: Shape) -> Layout | None:
    if len(shape) != 4:
        return None
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
