"""Operators that bear weights by their type: convolutions, dense layers, norms, recurrent layers, embeddings, PRelu."""

from __future__ import annotations

from onnxnoise.errors import ModelError
from onnxnoise.model.graph import LAYOUT, QUANTIZE, Place
from onnxnoise.model.layers.candidates import Claims, Draft
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


def claim_operator(claims: Claims, i: int, source: str) -> None:
    """The layer anchored at node `i`, if its operator bears weights; raises ModelError for a norm in training mode."""
    graph = claims.graph
    node, weight = graph.nodes[i], graph.weight
    if node.domain not in ("", "com.microsoft"):
        return
    match node.op_type:
        case "Conv" | "ConvTranspose" | "FusedConv":
            _convolution(claims, i)
        case "Gemm" | "FusedGemm":
            _gemm(claims, i)
        case "MatMul" | "FusedMatMul":
            _matmul(claims, i)
        case "BatchNormalization":
            _batch_norm(claims, i, source)
        case op if op in _NORMALIZATION:
            _normalization(claims, i)
        case "LSTM" | "GRU" | "RNN":
            claims.layer("recurrent", i, {0: weight(i, 1), 1: weight(i, 2), 2: weight(i, 3)})
            claims.no_weight(*(place for slot in (5, 6) if (place := weight(i, slot)) and not graph.value(place).any()))
        case "Gather":
            table = weight(i, 0)
            if claims.free(table) and graph.root(i, 1) is None:
                claims.layer("embedding", i, {WEIGHT: table})
        case "PRelu":
            claims.layer("scale", i, {WEIGHT: weight(i, 1)})


def _convolution(claims: Claims, i: int) -> None:
    graph = claims.graph
    node, kernel, bias = graph.nodes[i], graph.weight(i, 1), _addend(claims, i)
    if kernel is None:
        return
    value = graph.value(kernel)
    if bias is None and bool((value == 1).all()):
        claims.no_weight(kernel)  # an average pooling, not a layer
        return
    outputs = value.shape[1] * attribute(node, "group", 1) if node.op_type == "ConvTranspose" else value.shape[0]
    claims.layer("conv", i, {WEIGHT: kernel, BIAS: bias}, outputs=outputs, channel=value.ndim - 1)


def _addend(claims: Claims, i: int) -> Place | None:
    """The constant third operand, unless it is only zeros in place of a bias."""
    place = claims.graph.weight(i, 2)
    if place is not None and claims.is_computed(place) and not claims.graph.value(place).any():
        claims.no_weight(place)
        return None
    return place


def _gemm(claims: Claims, i: int) -> None:
    graph = claims.graph
    node = graph.nodes[i]
    right, left = graph.weight(i, 1), graph.weight(i, 0)
    place = right or left
    if place is None:
        return
    out_in = bool(attribute(node, "transB", 0)) if right else not attribute(node, "transA", 0)
    outputs = graph.value(place).shape[0 if out_in else 1]
    addend = _addend(claims, i)
    bias = addend if addend is not None and graph.value(addend).size == outputs else None
    claims.layer(
        "dense", i, {WEIGHT: place, BIAS: bias}, transposed=not out_in, outputs=outputs, channel=1 if right else 2
    )
    if bias is None and claims.free(addend):
        claims.layer("parameter", i, {WEIGHT: addend})


def _matmul(claims: Claims, i: int) -> None:
    graph = claims.graph
    right, left = graph.weight(i, 1), graph.weight(i, 0)
    place = right or left
    if place is None:
        return
    shape = graph.value(place).shape
    turned = bool(attribute(graph.nodes[i], "transB" if right else "transA", 0))  # FusedMatMul's
    out_in = turned if right else not turned
    outputs = 1 if len(shape) == 1 else shape[-2 if out_in else -1]
    transposed = not out_in and len(shape) > 1
    claims.layer("dense", i, {WEIGHT: place}, transposed=transposed, outputs=outputs, channel=1 if right else 2)


def _normalization(claims: Claims, i: int) -> None:
    graph = claims.graph
    scale, bias = graph.weight(i, 1), graph.weight(i, 2)
    neutral = all(place is None or bool((graph.value(place) == fill).all()) for place, fill in ((scale, 1), (bias, 0)))
    if neutral and _followed_by_gamma(claims, i):  # torch's GroupNorm: a core whose gamma and beta follow
        claims.no_weight(scale, bias)
        claims.cores.add(i)
    else:
        claims.layer("norm", i, {SCALE: scale, BIAS: bias})


def _batch_norm(claims: Claims, i: int, source: str) -> None:
    graph = claims.graph
    scale, bias, mean, variance = (graph.weight(i, slot) for slot in (1, 2, 3, 4))
    if mean is not None and variance is not None:
        claims.layer("batchnorm", i, {SCALE: scale, BIAS: bias, MEAN: mean, VARIANCE: variance})
        return
    neutral = all(place is None or bool((graph.value(place) == fill).all()) for place, fill in ((scale, 1), (bias, 0)))
    constant = any(place is not None and graph.value(place).size > 1 for place in (scale, bias))
    if not neutral or (constant and not _followed_by_gamma(claims, i)):
        name = graph.nodes[i].name or graph.nodes[i].output[0]
        raise ModelError(
            f"{source}: exported in training mode: batch norm {name!r} takes its mean and variance from the batch; "
            "export the inference graph (model.eval(), tensorpack's predict graph)"
        )
    claims.no_weight(scale, bias)
    claims.cores.add(i)


def _followed_by_gamma(claims: Claims, i: int) -> bool:
    """Whether a Mul by a constant comes next, layout aside: `i` is only the core of a norm."""
    graph = claims.graph
    last = list(graph.chain(i, LAYOUT))[-1:]
    return any(graph.nodes[n].op_type == "Mul" and (graph.weight(n, 0) or graph.weight(n, 1)) for n in last)


def claim_separate_bias(claims: Claims, draft: Draft) -> None:
    """The bias of a convolution or dense layer that stayed an Add of its own, behind layout or quantization."""
    graph = claims.graph
    channel: int | None = draft.channel
    for i in graph.chain(draft.anchor, _BIAS_PATH):
        if graph.nodes[i].op_type != "Add":
            channel = None if channel is None else graph.moved(i, channel, draft.outputs)
            continue
        for place in (graph.weight(i, 0), graph.weight(i, 1)):
            if place is None or not claims.free(place) or graph.vector(place) != draft.outputs:
                continue
            shape = graph.value(place).shape
            if channel in (None, len(shape) - shape.index(draft.outputs)):
                claims.join(draft, BIAS, place)
