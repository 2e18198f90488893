"""The integers as which a quantized file stores its weights, with the scales and zero points of its DequantizeLinear nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxnoise.records import Codes
from onnxnoise.runtime.protos import attribute, nested, values

Array = npt.NDArray[Any]

_TYPES = {
    onnx.TensorProto.INT4: (4, True),
    onnx.TensorProto.UINT4: (4, False),
    onnx.TensorProto.INT8: (8, True),
    onnx.TensorProto.UINT8: (8, False),
    onnx.TensorProto.INT16: (16, True),
    onnx.TensorProto.UINT16: (16, False),
}
"""(bits, whether signed) of the types of weights; biases of 32 bits are sums, and no codes of weights."""


class StoredCodes:
    """The codes of a file's integer weights, looked up by the file's name of a tensor; `raw` is the graph as read."""

    def __init__(self, raw: onnx.ModelProto, folder: Path) -> None:
        self._folder = folder
        self._tensors = {tensor.name: tensor for tensor in raw.graph.initializer}
        for node in raw.graph.node:
            if node.op_type == "Constant" and node.output and attribute(node, "value", None) is not None:
                self._tensors[node.output[0]] = attribute(node, "value", None)
        self._nodes: dict[str, onnx.NodeProto] = {}
        for node in nested(raw.graph.node):
            if node.op_type == "DequantizeLinear" and len(node.input) > 1 and node.input[0] in self._tensors:
                self._nodes[node.input[0]] = node

    def of(self, name: str, values: Array) -> Codes | None:
        """The codes of the file's tensor `name`, whose dequantized `values` are a layer's weight.

        None where the file stores no integers, or where `values` are no longer what they stand for: folded, or laid out anew.
        """
        node = self._nodes.get(name)
        tensor = self._tensors.get(name)
        if node is None or tensor is None or tensor.data_type not in _TYPES or tuple(tensor.dims) != values.shape:
            return None
        scale = self._spread(node, node.input[1], values.shape)
        zero = (
            self._spread(node, node.input[2], values.shape) if len(node.input) > 2 and node.input[2] else np.zeros(())
        )
        if scale is None or zero is None:
            return None
        bits, signed = _TYPES[tensor.data_type]
        codes = Codes(bits, signed, scale.astype(np.float64), zero.astype(np.float64))
        return codes if codes.fit(values) else None

    def _spread(self, node: onnx.NodeProto, name: str, shape: tuple[int, ...]) -> Array | None:
        """A scale or zero point, broadcastable to the tensor: one number, one for each row of the axis, or one for each block."""
        tensor = self._tensors.get(name)
        if tensor is None:
            return None
        numbers = values(tensor, self._folder)
        axis = int(attribute(node, "axis", 1)) % max(1, len(shape))
        block = int(attribute(node, "block_size", 0))
        if numbers.size == 1:
            return numbers.reshape(())
        if block and numbers.ndim == len(shape):
            return np.repeat(numbers, block, axis=axis)[tuple(map(slice, shape))]
        if numbers.ndim == 1 and numbers.size == shape[axis]:
            return numbers.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return None
