"""The network that every sweep runs on: a classifier with its noise layers in canonical order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxnoise.errors import ModelError
from onnxnoise.model.classifier import Classifier
from onnxnoise.model.graph import Graph, Place
from onnxnoise.model.layers.candidates import Candidate
from onnxnoise.model.layers.grouping import group
from onnxnoise.model.layers.names import layer_name
from onnxnoise.model.layers.notices import notices
from onnxnoise.model.layers.order import canonical_order
from onnxnoise.model.layers.stored_codes import StoredCodes
from onnxnoise.model.spread import pooled_sigma, sigma
from onnxnoise.records import WEIGHT, ImageInput, NoiseLayer, NoiseTensor, Notice, Unattached
from onnxnoise.runtime.protos import reads

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Network:
    """Nodes in canonical (and executable) order, constants by name, and the layers with their cuts in that order.

    Every noise tensor's `value` names a constant that nothing else uses. Constants that bear no noise are in `constants` alone.
    """

    name: str
    sha256: str
    nodes: tuple[onnx.NodeProto, ...]
    constants: Mapping[str, Array]
    opsets: Mapping[str, int]
    image: ImageInput
    logits: str
    classes: int | None
    layers: tuple[NoiseLayer, ...]
    notices: tuple[Notice, ...]
    unattached: tuple[Unattached, ...] = ()
    """The tensors that no layer holds, each once."""

    @cached_property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def unattached_share(self) -> float:
        """The share of all parameters that no layer holds, a fraction of 1."""
        elements = sum(each.elements for each in self.unattached)
        return elements / (self.parameters + elements) if elements else 0.0


def _check_finite(path: Path, name: str, values: Array) -> None:
    if not values.size:
        raise ModelError(
            f"{path}: initializer {name!r} is a layer's weight and has no values (shape {'x'.join(map(str, values.shape))}); "
            "the file is damaged: export it again"
        )
    with np.errstate(invalid="ignore"):
        if np.isfinite(values.sum(dtype=np.float64)):  # of finite float32 values it can't overflow
            return
    raise ModelError(
        f"{path}: initializer {name!r} has values that are not finite, so it has no sigma_w and the network no accuracy; "
        "the training diverged or the file is damaged: export a working checkpoint"
    )


def find_layers(classifier: Classifier) -> Network:
    """Group a classifier's initializers into noise layers; raises ModelError where it has no layer."""
    graph = Graph(classifier.nodes, classifier.constants, classifier.shapes)
    candidates, unattached = group(graph, classifier.behind, str(classifier.path))
    if not candidates:
        raise ModelError(
            f"{classifier.path}: no weights in the file: no convolution, dense layer or norm has a constant kernel; "
            "export with the parameters inside (torch: export_params=True)"
        )

    def shown(place: Place) -> str:
        """The file's name of an initializer, also where normalizing computed a value of it."""
        name = graph.nodes[place[0]].input[place[1]]
        behind = classifier.behind(name)
        return behind[0] if len(behind) == 1 else name

    order, candidates = canonical_order(graph, candidates, classifier.image.name, classifier.logits)
    nodes = [onnx.NodeProto.FromString(graph.nodes[i].SerializeToString()) for i in order]
    position = {node: at for at, node in enumerate(order)}
    constants = dict(classifier.constants)
    uses = Counter(name for names in graph.reads for name in names)
    owners = Counter(
        name for candidate in candidates for name in {shown(place) for place in candidate.members.values()}
    )
    stored = StoredCodes(classifier.raw, classifier.folder)
    layers: list[NoiseLayer] = []
    for index, candidate in enumerate(candidates, 1):
        tensors = []
        for role, (node, slot) in sorted(candidate.members.items()):
            name = value = graph.nodes[node].input[slot]
            _check_finite(classifier.path, shown((node, slot)), constants[name])
            if uses[name] > 1:  # exporters merge equal tensors: each layer gets its own
                value = _unused(f"{name}@{index}.{role}", constants, graph.producer)
                constants[value] = constants[name]
                nodes[position[node]].input[slot] = value
            transposed = candidate.transposed and role == WEIGHT
            shape = _canonical(candidate, role, constants[name].shape)
            codes = stored.of(shown((node, slot)), constants[name])
            tensors.append(
                NoiseTensor(shown((node, slot)), value, role, shape, transposed, sigma(constants[name]), codes)
            )
        values = [constants[tensor.value] for tensor in tensors]
        layers.append(
            NoiseLayer(
                index=index,
                name=layer_name(
                    [tensor.name for tensor in tensors if owners[tensor.name] == 1], graph.nodes[candidate.anchor]
                ),
                kind=candidate.kind,
                parameters=sum(value.size for value in values),
                sigma_w=pooled_sigma(values),
                tensors=tuple(tensors),
                start=min(position[candidate.anchor], *(position[node] for node, _ in candidate.members.values())),
            )
        )
    used = {name for node in nodes for name in reads(node)}
    return Network(
        name=classifier.name,
        sha256=classifier.sha256,
        nodes=tuple(nodes),
        constants={name: value for name, value in constants.items() if name in used},
        opsets=classifier.opsets,
        image=classifier.image,
        logits=classifier.logits,
        classes=classifier.classes,
        layers=_cuts_in_order(layers),
        notices=notices(classifier, graph, candidates, layers, unattached),
        unattached=tuple(unattached),
    )


def _unused(name: str, *taken: Collection[str]) -> str:
    while any(name in names for names in taken):
        name += "_"
    return name


def _canonical(candidate: Candidate, role: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which noise is drawn: (out, in) for dense kernels, (channels,) for vectors, else as stored."""
    if candidate.kind == "dense" and role == WEIGHT:
        batch, matrix = shape[:-2], shape[-2:] if len(shape) > 1 else (1, *shape)
        batch = batch if any(d != 1 for d in batch) else ()
        return (*batch, *(reversed(matrix) if candidate.transposed else matrix))
    vector = role != WEIGHT or candidate.kind in ("batchnorm", "norm")
    if vector and candidate.kind in ("conv", "dense", "batchnorm", "norm") and sum(d != 1 for d in shape) <= 1:
        return (prod(shape),)
    return shape


def _cuts_in_order(layers: list[NoiseLayer]) -> tuple[NoiseLayer, ...]:
    """The layers with no cut behind a later layer's cut, so that one pass of clean values meets them all in order."""
    starts = list(accumulate((layer.start for layer in reversed(layers)), min))[::-1]
    return tuple(replace(layer, start=start) for layer, start in zip(layers, starts, strict=True))
