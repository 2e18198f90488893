"""Opsets that ONNX Runtime does not run as they are: spelled otherwise, or older than it knows."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx

from onnxnoise.errors import ModelError
from onnxnoise.model.protobuf import all_nodes
from onnxnoise.runtime.protos import attribute, named

_OLDEST = 7
"""The oldest opset that ONNX Runtime runs."""

_SWITCHED = frozenset(("BatchNormalization", "Dropout"))
"""Operators that had a switch for training, `is_test`, up to opset 6."""


def current(stub: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The model in an opset that ONNX Runtime runs, without norms of each pixel (`spatial = 0`); `stub` where it is so already.

    Raises ModelError where the onnx package can't convert it.
    """
    opset = next((each.version for each in stub.opset_import if not each.domain), _OLDEST)
    if opset >= _OLDEST and not any(_is_of_each_pixel(node) for node in stub.graph.node):
        return stub
    model = onnx.ModelProto()
    model.CopyFrom(stub)
    _flatten_norms(model)
    if opset >= _OLDEST:
        return model
    for node in all_nodes(model):
        _switch_off(node, path)
    try:
        return _converted(model)
    except Exception as error:  # the converter's errors share no base
        reason = next(
            (line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__
        ).strip()
        raise ModelError(
            f"{path}: its opset {opset} is older than what ONNX Runtime runs ({_OLDEST}), and the onnx package can't convert it: "
            f"{reason[:200]}; export it again with opset 13 or so"
        ) from error


def _converted(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in the oldest opset that runs.

    The converter wants every initializer as an input too, no free dimension, and no payload.
    """
    light = onnx.ModelProto(ir_version=3, opset_import=model.opset_import, graph=model.graph)
    declared = {info.name for info in model.graph.input}
    large = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in model.graph.initializer:
        if tensor.name not in declared:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for info in (*light.graph.input, *light.graph.output):
        for dimension in info.type.tensor_type.shape.dim[:1]:
            if dimension.dim_value < 1:
                dimension.dim_value = 1
    del light.graph.value_info[:]
    kept = [t for t in light.graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL]
    small = onnx.GraphProto(initializer=kept).initializer
    del light.graph.initializer[:]
    light.graph.initializer.extend(small)
    done = light
    for target in (_OLDEST - 1, _OLDEST):  # shapes are inferred anew for each step, and the last one needs them
        done = onnx.version_converter.convert_version(done, target)
    done.graph.initializer.extend(large)
    for field in ("input", "output"):  # with the free dimensions
        del getattr(done.graph, field)[:]
        getattr(done.graph, field).extend(getattr(model.graph, field))
    del done.graph.value_info[:]
    done.metadata_props.extend(model.metadata_props)
    done.ir_version = max(model.ir_version, 3)
    return done


def _switch_off(node: onnx.NodeProto, path: Path) -> None:
    """Mark a norm that has one output as one for inference, as the standard says; raises ModelError for a dropout left on."""
    if node.op_type not in _SWITCHED or node.domain or attribute(node, "is_test", 0):
        return
    if node.op_type == "Dropout":
        raise ModelError(
            f"{path}: exported in training mode: {named(node)} drops values at random (is_test is 0); "
            "export the inference graph"
        )
    kept = [each for each in node.attribute if each.name != "is_test"]
    node.ClearField("attribute")
    node.attribute.extend([*kept, onnx.helper.make_attribute("is_test", 1)])


def _is_of_each_pixel(node: onnx.NodeProto) -> bool:
    return node.op_type == "BatchNormalization" and not node.domain and attribute(node, "spatial", 1) == 0


def _flatten_norms(model: onnx.ModelProto) -> None:
    """Turn norms with parameters of each pixel, in place, into norms with channels between two Reshapes."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for given in model.graph.node:
        node = onnx.NodeProto.FromString(given.SerializeToString())
        nodes.append(node)
        if not _is_of_each_pixel(node):
            continue
        kept = [each for each in node.attribute if each.name != "spatial"]
        del node.attribute[:]
        node.attribute.extend(kept)
        parameters = [tensors[name] for name in node.input[1:5] if name in tensors]
        shape = list(parameters[0].dims) if parameters else [1]
        if len(shape) < 2:  # of a vector: the same as with channels
            continue
        for tensor in parameters:
            del tensor.dims[:]
            tensor.dims.append(prod(shape))
            for info in model.graph.input:
                if info.name == tensor.name:
                    info.CopyFrom(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        output, flat, normed = node.output[0], f"{node.output[0]}:flat", f"{node.output[0]}:normed"
        for name, target in ((f"{flat}:shape", [0, -1]), (f"{normed}:shape", [0, *shape])):
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(target, np.int64), name))
        nodes.insert(-1, onnx.helper.make_node("Reshape", [node.input[0], f"{flat}:shape"], [flat]))
        nodes.append(onnx.helper.make_node("Reshape", [normed, f"{normed}:shape"], [output]))
        node.input[0], node.output[0] = flat, normed
    del model.graph.node[:]
    model.graph.node.extend(nodes)
