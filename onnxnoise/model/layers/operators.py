"""Operators that bear weights by their type: convolutions, dense layers, norms, recurrent layers, embeddings, PRelu."""

from __future__ import annotations

from onnxnoise.errors import ModelError
from onnxnoise.model.graph import LAYOUT, QUANTIZE, Place
from onnxnoise.model.layers.candidates import Candidate, Candidates
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
        case "MatMul" | "FusedMatMul":
            _matmul(candidates, i)
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
    if kernel is None:
        return
    value = graph.value(kernel)
    if bias is None and bool((value == 1).all()):
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
        return
    out_in = bool(attribute(node, "transB", 0)) if right else not attribute(node, "transA", 0)
    outputs = graph.value(place).shape[0 if out_in else 1]
    addend = _addend(candidates, i)
    bias = addend if addend is not None and graph.value(addend).size == outputs else None
    candidates.add(
        "dense", i, {WEIGHT: place, BIAS: bias}, transposed=not out_in, outputs=outputs, channel=1 if right else 2
    )
    if bias is None and candidates.free(addend):
        candidates.add("parameter", i, {WEIGHT: addend})


def _matmul(candidates: Candidates, i: int) -> None:
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
    candidates.add("dense", i, {WEIGHT: place}, transposed=transposed, outputs=outputs, channel=1 if right else 2)


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
    for i in graph.chain(candidate.anchor, _BIAS_PATH):
        if graph.nodes[i].op_type != "Add":
            channel = None if channel is None else graph.moved(i, channel, candidate.outputs)
            continue
        for place in (graph.weight(i, 0), graph.weight(i, 1)):
            if place is None or not candidates.free(place) or graph.vector(place) != candidate.outputs:
                continue
            shape = graph.value(place).shape
            if channel in (None, len(shape) - shape.index(candidate.outputs)):
                candidates.join(candidate, BIAS, place)
