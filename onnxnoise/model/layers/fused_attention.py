"""ONNX Runtime's fused attention holds the weights of three dense layers in one tensor: each gets its own again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import onnx

from onnxnoise.model.graph import Array
from onnxnoise.runtime.protos import attribute, reads

_PARTS = ("query", "key", "value")
_MERGED = re.compile(r"(?:.*_)?qkv_weights?(?:_\w+)?", re.IGNORECASE)
"""The name that ONNX Runtime's tools give to the weights of three dense layers that they put together.

A weight of another name was one tensor before (`attn.qkv.weight`, GPT-2's `c_attn.weight`) and stays one layer.
"""


def split_attention(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Array]
) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """(nodes, constants) in which Concat puts the merged weights and biases of each attention together from three constants."""
    values, uses = dict(constants), Counter(name for node in nodes for name in reads(node))
    made: list[onnx.NodeProto] = []
    for node in nodes:
        new = node
        if node.domain == "com.microsoft" and node.op_type in ("Attention", "MultiHeadAttention"):
            new = onnx.NodeProto.FromString(node.SerializeToString())
            for slot, axis, what in _slots(new):
                value = constants.get(new.input[slot]) if len(new.input) > slot else None
                sizes = None if value is None else _sizes(node, value.shape[axis])
                if value is None or sizes is None or value.dtype != np.float32 or uses[new.input[slot]] > 1:
                    continue
                base = node.name or new.input[slot]
                names = [f"{base}.{part}.{what}" for part in _PARTS]
                for name, (start, stop) in zip(names, pairwise(np.cumsum([0, *sizes]).tolist()), strict=True):
                    values[name] = np.ascontiguousarray(value[..., start:stop])
                    values[name].flags.writeable = False
                new.input[slot] = f"{base}.{what}"
                made.append(onnx.helper.make_node("Concat", names, [new.input[slot]], axis=axis))
        made.append(new)
    return made, values


def _slots(node: onnx.NodeProto) -> list[tuple[int, int, str]]:
    """(operand, axis of its columns, its meaning) of the tensors of three layers in a node."""
    if node.op_type == "MultiHeadAttention":
        return [(3, 0, "bias")]
    return [(1, 1, "weight"), (2, 0, "bias")] if len(node.input) > 1 and _MERGED.fullmatch(node.input[1]) else []


def _sizes(node: onnx.NodeProto, columns: int) -> list[int] | None:
    sizes = list(attribute(node, "qkv_hidden_sizes", [])) or [columns // 3] * 3
    return sizes if len(sizes) == len(_PARTS) and sum(sizes) == columns and min(sizes) > 0 else None
