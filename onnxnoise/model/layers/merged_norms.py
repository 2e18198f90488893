"""Batch norms that an exporter merged into the layers before them: who did it, and how to export without."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx

from onnxnoise.model.graph import LAYOUT, QUANTIZE
from onnxnoise.model.protobuf import all_nodes
from onnxnoise.records import BIAS, NoiseLayer, Notice

_SIGNATURE = "pkg.torch.export.ExportedProgram.graph_signature"
_RULE = "pkg.onnxscript.rewriter.rule_name"
KERNELS = frozenset(("Conv", "ConvTranspose", "FusedConv", "Gemm", "MatMul"))
_FOLDED = re.compile(r"BatchNorm_Fold|(?:Conv2D|depthwise|MatMul)_Fold(?:/|_|;|$)", re.IGNORECASE)
"""The names that TensorFlow 1's quantization gives a layer whose batch norm it merged."""


@dataclass(frozen=True)
class _Merger:
    """A program that merges batch norms into the convolutions before them, and how to make it keep them."""

    name: str
    instead: str


_DYNAMO = _Merger("torch's exporter", "torch.onnx.export(..., dynamo=True, optimize=False)")
_TORCHSCRIPT = _Merger(
    "torch's TorchScript exporter",
    "torch.onnx.export(..., dynamo=False, training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)",
)
_TF2ONNX = _Merger(
    "tf2onnx",
    "its rewrite switched off: tf2onnx.optimizer.back_to_back_optimizer._func_map.pop(('Conv', 'BatchNormalization'))",
)
_GRAPPLER = _Merger(
    "TensorFlow's graph optimizer",
    "tf.nn.batch_normalization replaced by tf.compat.v1.nn.fused_batch_norm before the model is traced",
)
KEEP_NORMS = _GRAPPLER.instead
"""The way to have tf2onnx keep batch norms that TensorFlow writes as arithmetic."""

_FREEZING = _Merger(
    "TensorFlow's optimize_for_inference", "tensorpack's export_serving or export_compact(..., optimize=False)"
)
_TFLITE = _Merger("TFLite", "tf2onnx from the Keras model or the SavedModel, not from the .tflite file")
_ONNXRUNTIME = _Merger("ONNX Runtime's graph optimizer", "the file that was given to ONNX Runtime")
_ONNXSLIM = _Merger("onnxslim", "the file that was given to onnxslim")


def merged_norms(raw: onnx.ModelProto, layers: Sequence[NoiseLayer]) -> Iterator[Notice]:
    """Says how many batch norms were merged, by the marks that exporters leave; gives a neutral hint where there is no mark."""
    mergers = Counter(merger for node, *names in _convolutions(raw) if (merger := _merger(node, *names)) is not None)
    traced = next((p.value for p in raw.graph.metadata_props if p.key == _SIGNATURE), None)
    if traced is not None and not mergers:
        mergers[_DYNAMO] = _missing(raw, traced)
    for merger, count in mergers.items():
        if count:
            yield Notice(
                "merged_batchnorm",
                f"{count} batch norms were merged into the layers before them by {merger.name}. That can't be undone: they bear "
                f"no noise of their own, and the merged weights have another sigma. Export again with {merger.instead}",
            )
    convolutions = [layer for layer in layers if layer.kind == "conv"]
    biased = all(any(tensor.role == BIAS for tensor in layer.tensors) for layer in convolutions)
    silent = traced is None and not mergers.total() and all(layer.kind != "batchnorm" for layer in layers)
    if convolutions and biased and silent:
        yield Notice("no_batchnorm", "no batch norm found; if the network had any, its exporter merged them")


def _missing(raw: onnx.ModelProto, traced: str) -> int:
    """The number of batch norms of the traced model that are missing in the graph although a tensor beside them is there."""
    names = [tensor.name for tensor in raw.graph.initializer]
    norms = re.findall(r"target='(.+)\.running_var'", traced)
    kept = sum(node.op_type == "BatchNormalization" for node in all_nodes(raw))
    beside = [f"{parent}." if (parent := norm.rpartition(".")[0]) else "" for norm in norms]
    used = sum(any(name.startswith(prefix) for name in names) for prefix in beside)
    return max(0, used - kept)


def _convolutions(raw: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, str, str]]:
    """(node, name of its kernel, name of its bias) of each convolution and dense layer in the file, looking through
    layout nodes.
    """
    makers = {output: node for node in raw.graph.node for output in node.output}

    def initializer(name: str) -> str:
        while name in makers and makers[name].op_type in LAYOUT | QUANTIZE:
            name = makers[name].input[0]
        return name.removesuffix("_quantized")

    for node in raw.graph.node:
        if node.op_type in KERNELS:
            operands = [*node.input, "", ""]
            yield node, initializer(operands[1]), initializer(operands[2])


def _merger(node: onnx.NodeProto, kernel: str, bias: str) -> _Merger | None:
    """The program that merged a batch norm into this node; None where the names show none."""
    output = node.output[0]
    if any(p.key == _RULE and "FuseBatchNorm" in p.value for p in node.metadata_props):
        return _DYNAMO
    if all(re.fullmatch(r"onnx::Conv(Transpose)?_\d+", name) for name in (kernel, bias)):
        return _TORCHSCRIPT
    if kernel.endswith("_weights_fused_bn"):
        return _TF2ONNX
    if any(_FOLDED.search(name) for name in (kernel, bias, output)):
        return _TFLITE
    if any(";" in name and "FusedBatchNorm" in name for name in (kernel, bias, output)):
        return _TFLITE
    if re.search(r"_bn_offset(:\d+)?$", bias) or re.search(r"(^|/)FusedBatchNorm(V\d)?$", node.name):
        return _FREEZING
    if kernel.endswith("/merged_input:0") or re.search(r"/batchnorm/(sub|mul|add)(_\d+)?:0$", bias):
        return _GRAPPLER
    if kernel.startswith(("ConvBnFusion_W_", "ConvMulFusion_W_")) or bias.startswith("ConvBnFusion_BN_B_"):
        return _ONNXRUNTIME
    if (kernel, bias) == (f"{output}_weight", f"{output}_bias"):
        return _ONNXSLIM
    return None
