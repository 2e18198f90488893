"""Drops outputs that are no tensors: the maps and sequences that scikit-learn, WinML and Custom Vision put behind the scores."""

from __future__ import annotations

import onnx


def only_tensors(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with tensors alone among its outputs; the model itself where that is so already.

    In the place of a ZipMap's output stands the ZipMap's input, the scores that it gives names to.
    """
    if all(_is_tensor(info) for info in model.graph.output):
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    scores = {name: node.input[0] for node in graph.node if node.op_type == "ZipMap" for name in node.output}
    kept = [info for info in graph.output if _is_tensor(info)]
    names = {info.name for info in kept}
    for info in graph.output:
        name = scores.get(info.name)
        if name is not None and name not in names:
            kept.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
            names.add(name)
    outputs, known = list(map(_copy, kept)), [_copy(info) for info in graph.value_info if _is_tensor(info)]
    nodes = [node for node in graph.node if node.op_type != "ZipMap"]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.output[:], graph.value_info[:], graph.node[:]
    graph.output.extend(outputs)
    graph.value_info.extend(known)
    graph.node.extend(copies)
    return changed


def _is_tensor(info: onnx.ValueInfoProto) -> bool:
    return info.type.WhichOneof("value") in (None, "tensor_type")


def _copy(info: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    copied: onnx.ValueInfoProto = onnx.ValueInfoProto.FromString(info.SerializeToString())
    return copied
