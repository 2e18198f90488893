"""Operators that bear weights by their type: convolutions, dense layers, norms, recurrent layers, embeddings, PRelu."""

from __future__ import annotations

from onnxnoise.errors import ModelError
from onnxnoise.model.graph import LAYOUT, QUANTIZE, Graph, Place
from onnxnoise.model.layers.candidates import Candidate, Candidates, is_filled
from onnxnoise.records import BIAS, MEAN, SCALE, VARIANCE, WEIGHT
from onnxnoise.runtime.protos import attribute

_NORMALIZATION = frozenset(
    (
        "LayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
    )
)
_SKIPPING = {"SkipLayerNormalization": 4, "SkipGroupNorm": 4, "SkipSimplifiedLayerNormalization": 3}
"""The operand with the bias, for operators of com.microsoft that add a second operand and a bias before they normalize."""

_FUSED_BIAS = {"BiasAdd": 1, "BiasGelu": 1, "BiasSplitGelu": 1, "FastGelu": 1, **_SKIPPING}
"""The operand with the bias, for all operators of com.microsoft that add one first."""

_BIAS_PATH = LAYOUT | QUANTIZE | {"Slice", "Pad"}


def claim_operator(candidates: Candidates, i: int, source: str) -> None:
    """Add the layer anchored at node `i`, if its operator bears weights; raises ModelError for a norm in training mode."""
    graph = candidates.graph
    node, weight = graph.nodes[i], graph.weight
    if node.domain not in ("", "com.microsoft"):
        return
    match node.op_type:
        case "Conv" | "ConvTranspose" | "FusedConv":
            _convolution(candidates, i)
        case "Gemm" | "FusedGemm":
            _gemm(candidates, i)
        case "MatMul" | "FusedMatMul" | "TransposeMatMul":
            _matmul(candidates, i)
        case "GemmFastGelu":
            _matmul(candidates, i, weight(i, 2))
        case "Attention" if node.domain:
            _attention(candidates, i)
        case "GroupNorm" if node.domain:
            candidates.add("norm", i, {SCALE: weight(i, 1), BIAS: weight(i, 2)})
        case op if op in _SKIPPING and node.domain:
            slot = 1 if op == "SkipGroupNorm" else 2
            beta = None if op == "SkipSimplifiedLayerNormalization" else weight(i, slot + 1)
            candidates.add("norm", i, {SCALE: weight(i, slot), BIAS: beta})
        case "BatchNormalization":
            _batch_norm(candidates, i, source)
        case op if op in _NORMALIZATION:
            _normalization(candidates, i)
        case "LSTM" | "GRU" | "RNN":
            candidates.add("recurrent", i, {0: weight(i, 1), 1: weight(i, 2), 2: weight(i, 3)})
            candidates.no_weight(
                *(place for slot in (5, 6) if (place := weight(i, slot)) and not graph.value(place).any())
            )
        case "Gather":
            table = weight(i, 0)
            if candidates.free(table) and graph.root(i, 1) is None:
                candidates.add("embedding", i, {WEIGHT: table})
        case "PRelu":
            candidates.add("scale", i, {WEIGHT: weight(i, 1)})


def _convolution(candidates: Candidates, i: int) -> None:
    graph = candidates.graph
    node, kernel, bias = graph.nodes[i], graph.weight(i, 1), _addend(candidates, i)
    if kernel is None:  # computed at run time, from weights of other layers
        candidates.add("conv", i, {BIAS: bias})
        return
    value = graph.value(kernel)
    depthwise = value.shape[1:2] == (1,) and value.shape[0] == attribute(node, "group", 1)
    if bias is None and is_filled(value) and (depthwise or value.flat[0] == 1):
        candidates.no_weight(kernel)  # an average pooling, not a layer
        return
    outputs = value.shape[1] * attribute(node, "group", 1) if node.op_type == "ConvTranspose" else value.shape[0]
    candidates.add("conv", i, {WEIGHT: kernel, BIAS: bias}, outputs=outputs, channel=value.ndim - 1)


def _addend(candidates: Candidates, i: int) -> Place | None:
    """The place of the constant third operand; None where it has only computed zeros in place of a bias."""
    place = candidates.graph.weight(i, 2)
    if place is not None and candidates.is_computed(place) and not candidates.graph.value(place).any():
        candidates.no_weight(place)
        return None
    return place


def _gemm(candidates: Candidates, i: int) -> None:
    graph = candidates.graph
    node = graph.nodes[i]
    right, left = graph.weight(i, 1), graph.weight(i, 0)
    place = right or left
    if place is None:
        candidates.parameter(i, graph.weight(i, 2))
        return
    out_in = bool(attribute(node, "transB", 0)) if right else not attribute(node, "transA", 0)
    outputs = graph.value(place).shape[0 if out_in else 1]
    addend = _addend(candidates, i)
    bias = addend if addend is not None and graph.value(addend).size == outputs else None
    candidates.add(
        "dense", i, {WEIGHT: place, BIAS: bias}, transposed=not out_in, outputs=outputs, channel=1 if right else 2
    )
    if bias is None and candidates.free(addend):
        candidates.parameter(i, addend)


def _matmul(candidates: Candidates, i: int, bias: Place | None = None) -> None:
    graph = candidates.graph
    right, left = graph.weight(i, 1), graph.weight(i, 0)
    place = right or left
    if place is None:
        return
    shape = graph.value(place).shape
    turned = bool(attribute(graph.nodes[i], "transB" if right else "transA", 0))  # FusedMatMul's
    out_in = turned if right else not turned
    outputs = 1 if len(shape) == 1 else shape[-2 if out_in else -1]
    transposed = not out_in and len(shape) > 1
    members = {WEIGHT: place, BIAS: bias}
    candidates.add("dense", i, members, transposed=transposed, outputs=outputs, channel=1 if right else 2)


def _attention(candidates: Candidates, i: int) -> None:
    """The dense layer in ONNX Runtime's Attention, or the three of them that were merged (`fused_attention`)."""
    graph = candidates.graph
    parts = [graph.producer.get(name) for name in graph.nodes[i].input[1:3]]
    weights, biases = [*parts, None, None][:2]
    if weights is None:
        candidates.add("dense", i, {WEIGHT: graph.weight(i, 1), BIAS: graph.weight(i, 2)}, transposed=True)
        return
    for part in range(len(graph.nodes[weights].input)):
        bias = None if biases is None else graph.weight(biases, part)
        candidates.add("dense", i, {WEIGHT: graph.weight(weights, part), BIAS: bias}, transposed=True)


def _normalization(candidates: Candidates, i: int) -> None:
    graph = candidates.graph
    scale, bias = graph.weight(i, 1), graph.weight(i, 2)
    neutral = all(place is None or bool((graph.value(place) == fill).all()) for place, fill in ((scale, 1), (bias, 0)))
    if neutral and _followed_by_gamma(candidates, i):  # torch's GroupNorm: a core whose gamma and beta follow
        candidates.no_weight(scale, bias)
        candidates.cores.add(i)
    else:
        candidates.add("norm", i, {SCALE: scale, BIAS: bias})


def _batch_norm(candidates: Candidates, i: int, source: str) -> None:
    graph = candidates.graph
    scale, bias, mean, variance = (graph.weight(i, slot) for slot in (1, 2, 3, 4))
    if mean is not None and variance is not None:
        candidates.add("batchnorm", i, {SCALE: scale, BIAS: bias, MEAN: mean, VARIANCE: variance})
        return
    neutral = all(place is None or bool((graph.value(place) == fill).all()) for place, fill in ((scale, 1), (bias, 0)))
    constant = any(place is not None and graph.value(place).size > 1 for place in (scale, bias))
    if not neutral or (constant and not _followed_by_gamma(candidates, i)):
        name = graph.nodes[i].name or graph.nodes[i].output[0]
        raise ModelError(
            f"{source}: exported in training mode: batch norm {name!r} takes its mean and variance from the batch; "
            "export the inference graph (model.eval(), tensorpack's predict graph)"
        )
    candidates.no_weight(scale, bias)
    candidates.cores.add(i)


def _followed_by_gamma(candidates: Candidates, i: int) -> bool:
    """Whether a Mul by a constant comes next, layout nodes skipped; then node `i` is only the core of a norm."""
    graph = candidates.graph
    last = list(graph.chain(i, LAYOUT))[-1:]
    return any(graph.nodes[n].op_type == "Mul" and (graph.weight(n, 0) or graph.weight(n, 1)) for n in last)


def claim_separate_bias(candidates: Candidates, candidate: Candidate) -> None:
    """Give a convolution or dense layer its bias that stayed an Add of its own, behind layout or quantization."""
    graph = candidates.graph
    channel: int | None = candidate.channel
    before = candidate.anchor
    for i in graph.chain(candidate.anchor, _BIAS_PATH):
        if graph.nodes[i].op_type in _BIAS_PATH:
            channel = None if channel is None else graph.moved(i, channel, candidate.outputs)
            before = i
            continue
        for place in _addends(graph, i, graph.nodes[before].output[0]):
            if place is None or not candidates.free(place) or graph.vector(place) != candidate.outputs:
                continue
            shape = graph.value(place).shape
            if channel in (None, len(shape) - shape.index(candidate.outputs)):
                candidates.join(candidate, BIAS, place)
                return


def _addends(graph: Graph, i: int, value: str) -> list[Place | None]:
    """The places where the constants enter that node `i` adds to `value`."""
    node = graph.nodes[i]
    if node.op_type == "Add" and not node.domain:
        return [graph.weight(i, 0), graph.weight(i, 1)]
    if node.domain != "com.microsoft":
        return []
    if node.op_type == "MultiHeadAttention" and len(node.input) > 3:
        biases = graph.producer.get(node.input[3])
        return [] if biases is None else [graph.weight(biases, list(node.input).index(value))]
    return [graph.weight(i, _FUSED_BIAS[node.op_type])] if node.op_type in _FUSED_BIAS else []


def claim_fused_bias(candidates: Candidates, i: int) -> None:
    """Add the bias that an operator of com.microsoft adds, where no layer before has it, as a parameter of its own."""
    node = candidates.graph.nodes[i]
    if node.domain == "com.microsoft" and node.op_type in _FUSED_BIAS:
        candidates.parameter(i, candidates.graph.weight(i, _FUSED_BIAS[node.op_type]))
