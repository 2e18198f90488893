"""The name by which a person knows a layer, made from the names that an exporter left."""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx

_BY_TOOLS = re.compile(
    r"^Conv(?:Bn|Mul)Fusion_(?:W|B|BN_B)_|(?:_DequantizeLinear_Output|_quantized|/MatMulAddFusion|_output_\d+|:\d+)+$"
)
_ANONYMOUS = re.compile(r"onnx::.*|\w?|\w*\d|[0-9a-f]{16,}|(?:.*/)?ConstantFolding/.*")
_PARAMETER = (
    "weights?|bias(?:es)?|kernel|gamma|beta|scale|slope|alpha|mean|variance|W|b|"
    r"(?:weight|bias)_[ih]h_l\d+(?:_reverse)?|(?:running|moving)_(?:mean|var|variance)|(?:depthwise|pointwise|recurrent)_kernel"
)
_SUFFIX = re.compile(
    r"_(?:weights_fused_bn|bias_fused_bn|weights|bn_offset|weight|bias|gamma|beta|(?:running|moving)_(?:mean|var)|[wbs]|rm|riv)(?:_\d+)?$"
)
_TENSORFLOW = re.compile(
    r"(?P<layer>.+?)"
    r"(?:/(?:convolution|depthwise|separable_conv2d|conv2d_transpose))?"
    r"(?:/(?:Conv2D|BiasAdd|MatMul|FusedBatchNorm(?:V\d)?|Tensordot|Squeeze|Reshape|Cast|ExpandDims|Const|batchnorm|"
    r"merged_input|weights_quant|FakeQuantWithMinMaxVars(?:PerChannel)?|mul|sub|add)(?:_\d+)?)*"
    rf"(?:[/.](?:{_PARAMETER}))?"
    r"(?:/(?:read|Read|EMA|resource|ReadVariableOp(?:_\d+)?))*"
)


def layer_name(initializers: Sequence[str], anchor: onnx.NodeProto) -> str:
    """`layer1.0.conv1` for `layer1.0.conv1.weight`, `conv0` for `conv0/W/read:0`; the node's name where no tensor shows it."""
    for at, initializer in enumerate(initializers):
        name = _BY_TOOLS.sub("", initializer)
        if "ConstantFolding/" in name:  # of a tool that names all that it folds alike
            continue
        shown = _layer(_SUFFIX.sub("", name))
        plain = at > 0 or _ANONYMOUS.fullmatch(name) is not None
        if shown and (shown != name or "." in name or "/" in name or not plain):
            return shown
    node = _BY_TOOLS.sub("", anchor.name)
    return _layer(node) or node.strip("/") or next(iter(initializers), anchor.op_type)


def _layer(name: str) -> str:
    """A tensor's or node's name without its parameter and operators; empty where nothing else is in it."""
    if not name.startswith("/"):
        match = _TENSORFLOW.fullmatch(name)
        return match["layer"] if match and not name.startswith("onnx::") else ""
    path: list[str] = []
    for scope in name.split("/")[1:-1]:  # torch: /layer1/layer1.0/conv1/Conv
        if path and scope.startswith(f"{path[-1]}."):
            path.pop()
        path.append(scope)
    return ".".join(path)
