"""Keeps ONNX Runtime from copying large matrices, by making them inputs of a graph, which are used where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxnoise.runtime.protos import nested

LARGE_BYTES = 64 << 20

_INDIFFERENT = frozenset(("Gather", "Gemm", "MatMul"))
"""Operators that run the same kernel on an input as on a constant that isn't prepacked."""


def as_inputs(
    stub: bytes, weights: Mapping[str, npt.NDArray[Any]], limit: int = LARGE_BYTES
) -> tuple[bytes, frozenset[str]]:
    """(the serialized ModelProto with its matrices of `limit` bytes or more as inputs, the names of these).

    ONNX Runtime 1.31 copies every initializer of a session, also those handed over with `add_external_initializers`. `weights`
    has the values of the stub's external initializers.
    """
    large = {name for name, value in weights.items() if value.nbytes >= limit and value.ndim == 2}
    if not large:
        return stub, frozenset()
    model = onnx.ModelProto.FromString(stub)
    for node in nested(model.graph.node):
        if node.op_type not in _INDIFFERENT or node.domain:
            large.difference_update(node.input)
    large.difference_update(info.name for info in model.graph.output)
    for name in sorted(large):
        dtype = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(weights[name].dtype))
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, dtype, weights[name].shape))
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name in large]:
        model.graph.initializer.remove(tensor)
    return model.SerializeToString(), frozenset(large)
