"""The name a person knows a layer by, from the names that an exporter left."""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx

_ANONYMOUS = re.compile(
    r"(onnx::\w+|\d+|(const|val|clone|view|mul|t|p|_v|w|b|new_var|tensor|Constant|const_fold_opt_*|initializer|tmp|n)_*\d*"
    r"|ortshared\w*|[0-9a-f]{16,})([:_@.]*\d*)*"
)
_TENSOR_SUFFIX = re.compile(
    r"([./](weight|bias|running_mean|running_var|kernel|gamma|beta|moving_mean|moving_variance|scale|mean|variance|slope)"
    r"|[./](W|b|gamma|beta|mean/EMA|variance/EMA)(/read)?"
    r"|/(Conv2D|BiasAdd|MatMul|depthwise|FusedBatchNormV3|batchnorm|convolution|add|Cast|Reshape|transpose|separable_conv2d)"
    r"(/ReadVariableOp|/merged_input|/mul|/sub|/resource|/Cast)*(_\d+)?"
    r"|/(ReadVariableOp|Squeeze|merged_input|ExpandDims)(_\d+)?"
    r"|_(weight|bias|scale|kernel|W|B|b|w|gamma|beta|mean|var|variance|running_mean|running_var|quantized|weights_fused_bn|bias_fused_bn)"
    r"|_DequantizeLinear_Output|:channels|:slope|:\d+)$"
)


def layer_name(initializers: Sequence[str], anchor: onnx.NodeProto) -> str:
    """`layer1.0.conv1` for `layer1.0.conv1.weight`, `conv0` for `conv0/W/read:0`; the node's name where a tensor says nothing."""
    for initializer in initializers:
        name = _stripped(initializer)
        if name and not _ANONYMOUS.fullmatch(name):
            return name
    return _node_name(anchor)


def _stripped(name: str) -> str:
    while (shorter := _TENSOR_SUFFIX.sub("", name)) != name and shorter:
        name = shorter
    return name


def _node_name(node: onnx.NodeProto) -> str:
    name = node.name or (node.output[0] if node.output else node.op_type)
    return _stripped(name.strip("/")) or node.op_type
