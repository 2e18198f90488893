"""Stores parameters once that an export of fixed batch size has stored once for each image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from onnxnoise.model.graph import Array
from onnxnoise.runtime.protos import reads

_ELEMENT_BY_ELEMENT = frozenset(("Add", "Concat", "Mul", "Sub"))


def stored_once(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Array], batch: int | None
) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """A parameter that an export of fixed batch size stores once for each image (a class token) is stored once,
    followed by Expand.
    """
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
