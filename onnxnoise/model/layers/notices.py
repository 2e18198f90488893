"""Honest warnings about a network's layers: those that the exporter merged or split, and weights that stay without noise."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import onnx

from onnxnoise.model.classifier import Classifier
from onnxnoise.model.graph import LAYOUT, QUANTIZE, Array, Graph
from onnxnoise.model.layers.candidates import Candidate
from onnxnoise.model.protobuf import all_nodes
from onnxnoise.records import BIAS, MEAN, SCALE, VARIANCE, WEIGHT, NoiseLayer, Notice, Unattached
from onnxnoise.runtime.protos import attribute

_SIGNATURE = "pkg.torch.export.ExportedProgram.graph_signature"
_RULE = "pkg.onnxscript.rewriter.rule_name"
_TO_NHWC = [0, 2, 3, 1]
_KERNELS = frozenset(("Conv", "ConvTranspose", "FusedConv", "Gemm", "MatMul"))
_SHOWN = 5
_FOLDED = re.compile(r"BatchNorm_Fold|(?:Conv2D|depthwise|MatMul)_Fold(?:/|_|;|$)", re.IGNORECASE)
"""What TensorFlow 1's quantization calls a layer whose batch norm it merged."""

_WITH_BACKGROUND = 1001
"""Classes of networks that have ImageNet's 1,000 behind one for the background."""


def notices(
    classifier: Classifier,
    graph: Graph,
    candidates: Sequence[Candidate],
    layers: Sequence[NoiseLayer],
    unattached: Sequence[Unattached],
) -> tuple[Notice, ...]:
    """Everything that a user must know about a network's layers. `graph` is the classifier's; `layers` were made of
    `candidates`.
    """
    return (
        *_merged(classifier.raw, layers),
        *_decomposed(classifier.raw, layers),
        *_unattached(layers, unattached),
        *_tied(graph, candidates),
        *_fixed(graph, candidates, layers),
        *_flattened(graph, candidates, layers),
        *_fixed_batch(classifier),
        *_background(classifier),
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


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
_FREEZING = _Merger(
    "TensorFlow's optimize_for_inference", "tensorpack's export_serving or export_compact(..., optimize=False)"
)
_TFLITE = _Merger("TFLite", "tf2onnx from the Keras model or the SavedModel, not from the .tflite file")
_ONNXRUNTIME = _Merger("ONNX Runtime's graph optimizer", "the file that was given to ONNX Runtime")
_ONNXSLIM = _Merger("onnxslim", "the file that was given to onnxslim")


def _merged(raw: onnx.ModelProto, layers: Sequence[NoiseLayer]) -> Iterator[Notice]:
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
        if node.op_type in _KERNELS:
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


def _decomposed(raw: onnx.ModelProto, layers: Sequence[NoiseLayer]) -> Iterator[Notice]:
    """Says how many batch norms are stored as two or three tensors instead of four."""
    roles = Counter(
        tuple(role for role in (SCALE, BIAS, MEAN, VARIANCE) if role in {tensor.role for tensor in layer.tensors})
        for layer in layers
        if layer.kind == "batchnorm"
    )
    better = {
        "tf2onnx": f"Export again with {_GRAPPLER.instead}",
        "pytorch": "Keras on torch writes them so: export with Keras on TensorFlow (its fused batch norm) or on JAX",
    }.get(raw.producer_name, "Export again with BatchNormalization nodes")
    for found, count in roles.items():
        if VARIANCE not in found:
            form, effect = (
                ("x*scale + shift", "under every policy their noise falls on these two, as under affine")
                if MEAN not in found
                else (
                    "(x - mean)*scale + shift",
                    "their variance is part of the scale, and noise can't make it negative",
                )
            )
            yield Notice(
                "decomposed_batchnorm",
                f"{count} batch norms are stored as {form}, {len(found)} tensors instead of 4: {effect}. {better}",
            )


def _unattached(layers: Sequence[NoiseLayer], unattached: Sequence[Unattached]) -> Iterator[Notice]:
    if not unattached:
        return
    elements = sum(each.elements for each in unattached)
    share = elements / (sum(layer.parameters for layer in layers) + elements)
    largest = sorted(unattached, key=lambda each: -each.elements)
    yield Notice(
        "unattached",
        f"{len(unattached)} tensors, {share:.1%} of all parameters, belong to no layer and stay without noise: "
        + _listed([f"{each.name} ({each.elements:,} values into {each.operator})" for each in largest]),
    )


def _tied(graph: Graph, candidates: Sequence[Candidate]) -> Iterator[Notice]:
    places = [candidate.members[WEIGHT] for candidate in candidates if WEIGHT in candidate.members]
    kernels = Counter(graph.nodes[node].input[slot] for node, slot in places if graph.value((node, slot)).ndim > 1)
    tied = [name for name, count in kernels.items() if count > 1]
    if tied:
        yield Notice(
            "tied_kernels",
            f"{len(tied)} kernels serve more than one layer ({_listed(tied)}), possibly tied: "
            "each layer draws its own noise, as if the chip stored a copy",
        )


def _fixed_batch(classifier: Classifier) -> Iterator[Notice]:
    """Says where a graph that takes any number of images works with one number only."""
    if (fixed := classifier.fixed) is not None:
        yield Notice(
            "fixed_batch",
            f"its input takes any number of images, but {fixed.node} is written for {fixed.images}: so many go through at once, "
            "which takes longer; export it with the batch size left free inside too (a Reshape to -1 or to the input's own size)",
        )


def _background(classifier: Classifier) -> Iterator[Notice]:
    """Says what a card of ImageNet needs for a network with a class for the background."""
    if classifier.classes == _WITH_BACKGROUND:
        yield Notice(
            "label_offset",
            "1001 classes: most likely those of ImageNet behind one for the background; then the card needs label_offset = 1",
        )


def _fixed(graph: Graph, candidates: Sequence[Candidate], layers: Sequence[NoiseLayer]) -> Iterator[Notice]:
    """Names depthwise convolutions with one kernel for all channels: a blur that nobody trained, most likely."""
    found = [
        layer.name
        for candidate, layer in zip(candidates, layers, strict=True)
        if candidate.kind == "conv"
        and WEIGHT in candidate.members
        and _is_fixed(graph.value(candidate.members[WEIGHT]))
    ]
    if found:
        yield Notice(
            "equal_channels",
            f"{len(found)} depthwise convolutions have the same kernel in all channels ({_listed(found)}), most likely a fixed "
            "filter such as a blur: hardware holds it too, so it stays a layer and gets noise (leave it out with --layers)",
        )


def _is_fixed(kernel: Array) -> bool:
    return len(kernel) > 1 and kernel.shape[1] == 1 and bool((kernel == kernel[:1]).all())


def _flattened(graph: Graph, candidates: Sequence[Candidate], layers: Sequence[NoiseLayer]) -> Iterator[Notice]:
    """Names dense layers whose columns are the pixels of an image in NHWC order."""
    found = [
        layer.name
        for candidate, layer in zip(candidates, layers, strict=True)
        if candidate.kind == "dense" and candidate.outputs and _is_nhwc(graph, candidate)
    ]
    if found:
        yield Notice(
            "nhwc_flatten",
            f"{len(found)} dense layers read flattened pixels in the order height, width, channels ({_listed(found)}): "
            "their noise falls on other columns than in an export of the same network that is NCHW",
        )


def _is_nhwc(graph: Graph, candidate: Candidate) -> bool:
    node, weight_slot = candidate.anchor, candidate.members[WEIGHT][1]
    slot = 1 - weight_slot if candidate.members[WEIGHT][0] == node else 0
    columns = graph.value(candidate.members[WEIGHT]).size // candidate.outputs
    name = graph.nodes[node].input[slot]
    while (maker := graph.producer.get(name)) is not None:
        proto = graph.nodes[maker]
        data = [operand for place, operand in enumerate(proto.input) if graph.root(maker, place) is None]
        if proto.op_type == "Transpose" and list(attribute(proto, "perm", [])) == _TO_NHWC:
            pixels = graph.shapes.get(proto.input[0], ())[1:]
            return None not in pixels and prod(pixels[1:]) > 1 and prod(pixels) == columns  # type: ignore[arg-type]
        if len(data) != 1 or proto.op_type in _KERNELS:
            return False
        name = data[0]
    return False
