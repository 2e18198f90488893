"""A classifier with its noise layers in canonical order: what every sweep runs on (DESIGN 3.2)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxnoise.classifier import Classifier, ImageInput
from onnxnoise.errors import ModelError
from onnxnoise.graph import Graph
from onnxnoise.layers import Draft, Place, group
from onnxnoise.names import layer_name
from onnxnoise.noise import pooled_sigma, sigma
from onnxnoise.records import NoiseLayer, NoiseTensor, Notice

Array = npt.NDArray[Any]

_COMMUTATIVE = frozenset(("Add", "Mul", "Sum", "Max", "Min", "Mean"))


@dataclass(frozen=True)
class Network:
    """Nodes in canonical (and executable) order, constants by name, and the layers with their cuts in that order.

    Every noise tensor's `value` names a constant that nothing else uses. `pooling`, `preprocessing` and other constants that
    bear no noise are in `constants` alone.
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

    @cached_property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)


def find_layers(classifier: Classifier) -> Network:
    """Group a classifier's initializers into noise layers; raises ModelError where there is none."""
    graph = Graph(classifier.nodes, classifier.constants)
    grouping = group(graph, classifier.image.name, str(classifier.path))
    if not grouping.drafts:
        raise ModelError(
            f"{classifier.path}: no weights in the file: no convolution, dense layer or norm has a constant kernel; "
            "export with the parameters inside (torch: export_params=True)"
        )
    order, drafts = _Walk(graph, grouping.drafts, classifier.image.name).run(classifier.logits)
    nodes = [onnx.NodeProto.FromString(graph.nodes[i].SerializeToString()) for i in order]
    position = {node: at for at, node in enumerate(order)}
    constants = dict(classifier.constants)
    uses = Counter(name for names in graph.reads for name in names)
    layers: list[NoiseLayer] = []
    for index, draft in enumerate(drafts, 1):
        tensors = []
        for role, (node, slot) in sorted(draft.members.items()):
            name = graph.nodes[node].input[slot]
            value = name
            if uses[name] > 1:  # exporters merge equal tensors: each layer gets its own
                value = f"{name}@{index}.{role}"
                constants[value] = constants[name]
                nodes[position[node]].input[slot] = value
            transposed = draft.transposed and role == 0
            tensors.append(
                NoiseTensor(
                    name, value, role, _canonical(constants[name], draft, role), transposed, sigma(constants[name])
                )
            )
        values = [constants[tensor.value] for tensor in tensors]
        anchor = graph.nodes[draft.anchor]
        layers.append(
            NoiseLayer(
                index=index,
                name=layer_name([tensor.name for tensor in tensors], anchor),
                kind=draft.kind,
                parameters=sum(value.size for value in values),
                sigma_w=pooled_sigma(values),
                tensors=tuple(tensors),
                start=min(position[draft.anchor], *(position[node] for node, _ in draft.members.values())),
            )
        )
    used = {name for node in nodes for name in Graph([node], {}).reads[0]}
    return Network(
        name=classifier.name,
        sha256=classifier.sha256,
        nodes=tuple(nodes),
        constants={name: value for name, value in constants.items() if name in used},
        opsets=classifier.opsets,
        image=classifier.image,
        logits=classifier.logits,
        classes=classifier.classes,
        layers=tuple(layers),
        notices=tuple(_notices(graph, layers, grouping.unattached)),
    )


def _canonical(value: Array, draft: Draft, role: int) -> tuple[int, ...]:
    if draft.transposed and role == 0:
        return tuple(reversed(value.shape))
    if (
        draft.kind in ("conv", "dense", "batchnorm", "norm")
        and sum(d != 1 for d in value.shape) <= 1
        and (role > 0 or draft.kind in ("batchnorm", "norm"))
    ):
        return (value.size,)
    return tuple(value.shape)


class _Walk:
    """The post-order depth-first walk from the logits, the deepest operand of a commutative operator first."""

    def __init__(self, graph: Graph, drafts: list[Draft], image: str) -> None:
        self.graph = graph
        self.image = image
        self.at: dict[int, list[int]] = {}
        for number, draft in enumerate(drafts):
            self.at.setdefault(draft.anchor, []).append(number)
        self.drafts = drafts
        self.depths: dict[str, int] = {image: 0}
        self.fed: dict[str, frozenset[int]] = {}

    def run(self, logits: str) -> tuple[list[int], list[Draft]]:
        """(node positions in canonical order, drafts in the order of their anchors)."""
        self._measure(logits)
        order: list[int] = []
        done: set[int] = set()
        stack = [(self.graph.producer[logits], False)]
        while stack:
            node, complete = stack.pop()
            if node in done:
                continue
            if complete:
                done.add(node)
                order.append(node)
                continue
            stack.append((node, True))
            makers = [self.graph.producer.get(name) for name in self._operands(node)]
            stack += [(maker, False) for maker in reversed(makers) if maker is not None and maker not in done]
        numbers = [number for node in order for number in self.at.get(node, ())]
        return self._late(order), [self.drafts[number] for number in numbers]

    def _measure(self, logits: str) -> None:
        """Of each value: the most distinct layers on any path from the image (-1: none leads there), and all layers before."""
        stack = [(self.graph.producer[logits], False)]
        done: set[int] = set()
        while stack:
            node, complete = stack.pop()
            if node in done:
                continue
            names = self.graph.reads[node]
            if not complete:
                stack.append((node, True))
                stack += [(maker, False) for name in names if (maker := self.graph.producer.get(name)) is not None]
                continue
            done.add(node)
            here = self.at.get(node, [])
            depth = max((self.depths.get(name, -1) for name in names), default=-1)
            fed = frozenset().union(*(self.fed.get(name, frozenset()) for name in names), here)
            for output in self.graph.nodes[node].output:
                self.depths[output] = depth + len(here) if depth >= 0 else -1
                self.fed[output] = fed

    def _operands(self, node: int) -> list[str]:
        names = self.graph.reads[node]
        proto = self.graph.nodes[node]
        if proto.op_type not in _COMMUTATIVE or proto.domain:
            return names
        data = [name for name in names if name in self.graph.producer]
        ranks = [(-self.depths.get(name, -1), -self._size(name)) for name in data]
        if len(set(ranks)) < len(ranks):
            keyed = [(*rank, self._digest(name)) for rank, name in zip(ranks, data, strict=True)]
        else:
            keyed = [(*rank, "") for rank in ranks]
        return [name for _, name in sorted(zip(keyed, data, strict=True), key=lambda pair: pair[0])]

    def _size(self, name: str) -> int:
        return sum(prod(self.graph.value(p).shape) for p in self._places(name))

    def _places(self, name: str) -> list[Place]:
        return [place for number in sorted(self.fed.get(name, ())) for place in self.drafts[number].members.values()]

    def _digest(self, name: str) -> str:
        values = [self.graph.value(place).ravel() for place in self._places(name)]
        return hashlib.sha256(np.sort(np.concatenate(values, dtype="<f4")).tobytes() if values else b"").hexdigest()

    def _late(self, order: list[int]) -> list[int]:
        """Nodes that only lay out a layer's constant (Expand of a class token) go right before the layer, behind its cut."""
        moved: dict[int, list[int]] = {}
        for draft in self.drafts:
            for node, _ in draft.members.values():
                chain = []
                while (
                    node != draft.anchor and len(users := self.graph.consumers[self.graph.nodes[node].output[0]]) == 1
                ):
                    chain.append(node)
                    (node,) = users
                if node == draft.anchor and chain:
                    moved.setdefault(node, []).extend(chain)
        early = {node for chain in moved.values() for node in chain}
        return [each for node in order if node not in early for each in (*moved.get(node, ()), node)]


def _notices(graph: Graph, layers: list[NoiseLayer], unattached: list[Place]) -> list[Notice]:
    notices = []
    kernels = Counter(t.name for layer in layers for t in layer.tensors if t.role == 0 and len(t.shape) > 1)
    tied = [name for name, count in kernels.items() if count > 1]
    if tied:
        notices.append(
            Notice(
                "tied_kernels",
                f"{len(tied)} kernels serve more than one layer ({', '.join(tied[:3])}{', ...' if len(tied) > 3 else ''}): "
                "each layer draws its own noise, as if the chip stored a copy",
            )
        )
    left = {graph.nodes[i].input[slot]: (graph.value((i, slot)).size, graph.nodes[i].op_type) for i, slot in unattached}
    if left:
        total = sum(layer.parameters for layer in layers) + sum(size for size, _ in left.values())
        share = sum(size for size, _ in left.values()) / total
        listed = ", ".join(
            f"{name} ({size:,} values into {op})"
            for name, (size, op) in sorted(left.items(), key=lambda i: -i[1][0])[:5]
        )
        notices.append(
            Notice(
                "unattached",
                f"{len(left)} float tensors, {share:.1%} of all parameters, belong to no layer and stay without noise: {listed}"
                + (", ..." if len(left) > 5 else ""),
            )
        )
    return notices
