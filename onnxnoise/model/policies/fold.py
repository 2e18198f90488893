"""Merges batch norms into the convolution or dense layer before them, as exporters do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxnoise.model.classifier import Classifier
from onnxnoise.model.graph import LAYOUT, Graph, Place
from onnxnoise.model.network import Network
from onnxnoise.model.policies.affine import Affine, affine_form, places
from onnxnoise.records import BIAS, MEAN, SCALE, WEIGHT, NoiseLayer, NoiseTensor
from onnxnoise.runtime.protos import attribute

Array = npt.NDArray[Any]

_THROUGH = LAYOUT - {"Expand"} | {"Add"}


@dataclass(frozen=True)
class _Host:
    """A layer that a batch norm can go into: its node, output channels, and their dimension from the end."""

    node: int
    weight: NoiseTensor
    bias: NoiseTensor | None
    outputs: int
    channel: int


def fold(classifier: Classifier, network: Network) -> tuple[Classifier, int]:
    """(the classifier without the batch norms that only a convolution or dense layer feeds, how many of them there were).

    W becomes W * scale, b becomes b * scale + shift. `network` holds the classifier's layers.
    """
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in network.nodes]
    constants = dict(network.constants)
    graph = Graph(network.nodes, network.constants, classifier.shapes)
    at = places(network)
    hosts = [host for layer in network.layers if (host := _host(layer, graph, at)) is not None]
    starts = {_first(layer, at): layer for layer in network.layers if layer.kind == "batchnorm"}
    renamed: dict[str, str] = {}
    merged = 0
    for host in hosts:
        first, channel = _followed_by(host, graph, at, starts)
        layer = starts.get(first)
        form = None if layer is None else affine_form(layer, network, at)
        if layer is None or form is None or form.scale.size != host.outputs:
            continue
        if channel is None or channel != _channel(layer, first, graph):
            continue
        added = _merge(nodes[host.node], host, constants, form)
        for node in {at[tensor.value][0] for tensor in layer.tensors}:
            if node == first and added is not None:
                shape = (-1, *[1] * (channel - 1))
                constants[added] = form.shift.astype(np.float32).reshape(shape)
                nodes[node] = onnx.helper.make_node("Add", [_data(graph, node), added], list(graph.nodes[node].output))
            else:
                renamed[graph.nodes[node].output[0]] = _data(graph, node)
        merged += 1
    kept = [node for node in nodes if node.output[0] not in renamed]
    for node in kept:
        for slot, name in enumerate(node.input):
            node.input[slot] = _followed(renamed, name)
    names = {tensor.value: (tensor.name,) for layer in network.layers for tensor in layer.tensors}
    folded = replace(
        classifier,
        nodes=tuple(kept),
        constants=constants,
        logits=_followed(renamed, classifier.logits),
        origins={**classifier.origins, **names},
    )
    return folded, merged


def _followed(renamed: Mapping[str, str], name: str) -> str:
    while name in renamed:
        name = renamed[name]
    return name


def _data(graph: Graph, node: int) -> str:
    """The name of the only operand of a node that isn't a constant."""
    return next(str(name) for name in graph.nodes[node].input if name not in graph.constants)


def _host(layer: NoiseLayer, graph: Graph, at: Mapping[str, Place]) -> _Host | None:
    weight = layer.tensors[0]
    if layer.kind not in ("conv", "dense") or weight.role != WEIGHT:
        return None
    i, slot = at[weight.value]
    node, shape = graph.nodes[i], graph.constants[weight.value].shape
    bias = next((tensor for tensor in layer.tensors if tensor.role == BIAS), None)
    foreign = len(node.input) > 2 and node.input[2] and (bias is None or bias.value != node.input[2])
    if foreign or (node.op_type == "Gemm" and attribute(node, "beta", 1.0) == 0):
        return None  # something else is added: a matrix, or nothing at all
    match node.op_type:
        case "Conv":
            return _Host(i, weight, bias, shape[0], len(shape) - 1)
        case "ConvTranspose":
            return _Host(i, weight, bias, shape[1] * attribute(node, "group", 1), len(shape) - 1)
        case "Gemm" | "MatMul" if len(shape) == 2:
            return _Host(i, weight, bias, weight.shape[0], 1 if slot == 1 else 2)
    return None


def _first(layer: NoiseLayer, at: Mapping[str, Place]) -> int:
    return min(at[tensor.value][0] for tensor in layer.tensors)


def _followed_by(
    host: _Host, graph: Graph, at: Mapping[str, Place], starts: Mapping[int, NoiseLayer]
) -> tuple[int, int | None]:
    """(the first node behind a host that neither lays out values nor adds the bias, the channels' dimension there)."""
    channel: int | None = host.channel
    node = host.node
    for node in graph.chain(host.node, _THROUGH):
        own_bias = host.bias is not None and at[host.bias.value][0] == node
        if node in starts or (graph.nodes[node].op_type == "Add" and not own_bias):
            break
        channel = channel if own_bias or channel is None else graph.moved(node, channel, host.outputs)
    return node, channel


def _channel(layer: NoiseLayer, first: int, graph: Graph) -> int | None:
    """The dimension that a batch norm takes for channels, from the end."""
    roles = {tensor.role: tensor for tensor in layer.tensors}
    if graph.nodes[first].op_type != "BatchNormalization":
        shape = graph.constants[roles[MEAN if MEAN in roles else SCALE].value].shape
        return len(shape) - next(i for i, d in enumerate(shape) if d != 1)
    name = _data(graph, first)
    maker = graph.producer.get(name)
    if maker is not None and graph.nodes[maker].op_type in ("Conv", "ConvTranspose") and graph.weight(maker, 1):
        return graph.constants[graph.nodes[maker].input[1]].ndim - 1
    if maker is not None and graph.nodes[maker].op_type == "Gemm":
        return 1
    return len(graph.shapes[name]) - 1 if name in graph.shapes else None


def _merge(node: onnx.NodeProto, host: _Host, constants: dict[str, Array], form: Affine) -> str | None:
    """Scale a layer's outputs and shift its bias; returns the name of the bias where the node has no operand for one."""
    weight = host.weight.value
    kernel = constants[weight].astype(np.float64)
    match node.op_type:
        case "Conv":
            kernel *= form.scale.reshape(-1, *[1] * (kernel.ndim - 1))
        case "ConvTranspose":
            groups = attribute(node, "group", 1)
            grouped = kernel.reshape(groups, -1, *kernel.shape[1:])
            grouped *= form.scale.reshape(groups, 1, kernel.shape[1], *[1] * (kernel.ndim - 2))
        case _:
            kernel *= form.scale if host.weight.transposed else form.scale[:, None]
    constants[weight] = kernel.astype(np.float32)
    beta = attribute(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0
    if host.bias is not None:
        old = constants[host.bias.value].astype(np.float64)
        inside = host.bias.value in node.input
        shift = form.shift / beta if inside else form.shift
        constants[host.bias.value] = (old.ravel() * form.scale + shift).astype(np.float32).reshape(old.shape)
        return None
    name = f"{weight}_bias"
    if node.op_type == "MatMul":
        return name
    constants[name] = (form.shift / beta).astype(np.float32)
    if node.op_type == "Gemm" and host.channel == 2:
        constants[name] = constants[name][:, None]
    while len(node.input) < 3:
        node.input.append("")
    node.input[2] = name
    return None
