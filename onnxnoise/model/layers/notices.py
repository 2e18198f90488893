"""Honest warnings about a network's layers: those that the exporter merged or split, and weights that stay without noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod

import onnx

from onnxnoise.model.classifier import Classifier
from onnxnoise.model.graph import Array, Graph
from onnxnoise.model.layers.candidates import Candidate
from onnxnoise.model.layers.merged_norms import KEEP_NORMS, KERNELS, merged_norms
from onnxnoise.records import BIAS, MEAN, SCALE, VARIANCE, WEIGHT, NoiseLayer, Notice, Unattached
from onnxnoise.runtime.protos import attribute

_TO_NHWC = [0, 2, 3, 1]
_SHOWN = 5
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
        *merged_norms(classifier.raw, layers),
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


def _decomposed(raw: onnx.ModelProto, layers: Sequence[NoiseLayer]) -> Iterator[Notice]:
    """Says how many batch norms are stored as two or three tensors instead of four."""
    roles = Counter(
        tuple(role for role in (SCALE, BIAS, MEAN, VARIANCE) if role in {tensor.role for tensor in layer.tensors})
        for layer in layers
        if layer.kind == "batchnorm"
    )
    better = {
        "tf2onnx": f"Export again with {KEEP_NORMS}",
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
        if len(data) != 1 or proto.op_type in KERNELS:
            return False
        name = data[0]
    return False
