"""What noise means for a batch norm: the policies of `--bn` (DESIGN 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxnoise.classifier import Classifier
from onnxnoise.graph import Graph, attribute
from onnxnoise.layers import BIAS, CAFFE_BIAS, CAFFE_SCALE, MEAN, SCALE, VARIANCE
from onnxnoise.network import Network, find_layers
from onnxnoise.noise import perturbed, pooled_sigma, sigma, sigma_noise, stored_normals
from onnxnoise.records import Floats, NoiseLayer, NoiseTensor, Notice, Policy, SigmaScope

Array = npt.NDArray[Any]


def noise_layers(classifier: Classifier, policy: Policy) -> Network:
    """The network with its noise layers as `policy` sees them; raises ModelError as `find_layers`."""
    if policy == "fold":
        classifier, merged = _fold(classifier)
        network = _affine(find_layers(classifier))
        left = [layer.name for layer in network.layers if layer.kind == "batchnorm"]
        message = f"{merged} batch norms were merged into the convolution or dense layer before them"
        if left:
            message += f"; {len(left)} have none and are treated as affine: {', '.join(left)}"
        return _noticed(network, "bn_folded", message)
    network = find_layers(classifier)
    if policy == "affine":
        return _affine(network)
    if policy == "clean":
        return replace(network, layers=tuple(layer for layer in network.layers if layer.kind != "batchnorm"))
    return network


def _noticed(network: Network, code: str, message: str) -> Network:
    return replace(network, notices=(*network.notices, Notice(code, message)))


@dataclass(frozen=True)
class LayerNoise:
    """The noise of one draw on one layer: unit normals by tensor, to be scaled for each SNR."""

    layer: NoiseLayer
    clean: Mapping[str, Floats]
    normals: Mapping[str, Floats]
    scope: SigmaScope
    floor: bool
    """Store a variance that the noise makes negative as 0."""

    @classmethod
    def drawn(
        cls,
        layer: NoiseLayer,
        constants: Mapping[str, Array],
        *,
        seed: int,
        draw: int,
        scope: SigmaScope,
        policy: Policy,
    ) -> LayerNoise:
        clean = {tensor.value: constants[tensor.value] for tensor in layer.tensors}
        normals = {
            tensor.value: stored_normals(seed, draw, layer, tensor, clean[tensor.value].shape)
            for tensor in layer.tensors
        }
        return cls(layer, clean, normals, scope, policy != "raw")

    def at(self, snr: float) -> tuple[dict[str, Floats], int]:
        """(the layer's noisy constants by name, how many variances the noise made negative)."""
        noisy, negative = {}, 0
        for tensor in self.layer.tensors:
            name = tensor.value
            values = perturbed(self.clean[name], self.normals[name], sigma_noise(self.layer, tensor, snr, self.scope))
            if self.layer.kind == "batchnorm" and tensor.role == VARIANCE:
                below = values < 0
                negative += int(below.sum())
                values = np.where(below, np.float32(0), values) if self.floor else values
            noisy[name] = values
        return noisy, negative


@dataclass(frozen=True)
class _Affine:
    """A batch norm as `scale * x + shift`, float64, (channels,)."""

    scale: Array
    shift: Array


def _values(layer: NoiseLayer, constants: Mapping[str, Array]) -> dict[int, Array]:
    return {tensor.role: constants[tensor.value].astype(np.float64).ravel() for tensor in layer.tensors}


def _as_affine(
    node: onnx.NodeProto, layer: NoiseLayer, constants: Mapping[str, Array], operators: Mapping[int, str]
) -> _Affine:
    values = _values(layer, constants)
    if node.op_type == "BatchNormalization":
        variance = values[VARIANCE] + attribute(node, "epsilon", 1e-5)
        scale = values.get(SCALE, np.ones_like(variance)) / np.sqrt(variance)
        shift = values.get(BIAS, np.zeros_like(variance)) - values[MEAN] * scale
        second = values.get(CAFFE_SCALE, np.ones_like(scale))
        return _Affine(scale * second, shift * second + values.get(CAFFE_BIAS, np.zeros_like(scale)))
    scale = 1 / values[SCALE] if operators[SCALE] == "Div" else values[SCALE]
    bias = -values[BIAS] if operators[BIAS] == "Sub" else values[BIAS]
    return _Affine(scale, bias - values.get(MEAN, np.zeros_like(scale)) * scale)


def _affine(network: Network) -> Network:
    """Every batch norm reduced to its scale and shift, the two numbers a channel that hardware would hold."""
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in network.nodes]
    constants = dict(network.constants)
    layers = []
    places = {name: (i, slot) for i, node in enumerate(nodes) for slot, name in enumerate(node.input)}
    for layer in network.layers:
        if layer.kind != "batchnorm":
            layers.append(layer)
            continue
        spots = {tensor.role: places[tensor.value] for tensor in layer.tensors}
        operators = {role: nodes[i].op_type for role, (i, _) in spots.items()}
        node = nodes[layer.start]
        form = _as_affine(node, layer, constants, operators)
        wanted: dict[int, Array] = {SCALE: form.scale, BIAS: form.shift}
        neutral = {MEAN: 0.0, VARIANCE: 1.0, CAFFE_SCALE: 1.0, CAFFE_BIAS: 0.0}
        if node.op_type == "BatchNormalization":
            for each in [a for a in node.attribute if a.name == "epsilon"]:
                node.attribute.remove(each)
            node.attribute.append(onnx.helper.make_attribute("epsilon", 0.0))
        tensors = []
        for tensor in layer.tensors:
            i, slot = spots[tensor.role]
            name = f"{tensor.value}@affine"
            shape = constants[tensor.value].shape
            if tensor.role in wanted:
                constants[name] = wanted[tensor.role].astype(np.float32).reshape(shape)
                tensors.append(replace(tensor, value=name, sigma_w=sigma(constants[name])))
            else:
                constants[name] = np.full(shape, neutral[tensor.role], np.float32)
            nodes[i].input[slot] = name
            if node.op_type != "BatchNormalization":
                nodes[i].op_type = {"Div": "Mul", "Sub": "Add"}.get(nodes[i].op_type, nodes[i].op_type)
        layers.append(_resized(layer, tuple(tensors), constants))
    used = {name for node in nodes for name in node.input}
    kept = {name: value for name, value in constants.items() if name in used or name not in places}
    return replace(network, nodes=tuple(nodes), constants=kept, layers=tuple(layers))


def _resized(layer: NoiseLayer, tensors: tuple[NoiseTensor, ...], constants: Mapping[str, Array]) -> NoiseLayer:
    values = [constants[tensor.value] for tensor in tensors]
    return replace(layer, tensors=tensors, parameters=sum(value.size for value in values), sigma_w=pooled_sigma(values))


def _fold(classifier: Classifier) -> tuple[Classifier, int]:
    """Batch norms merged into the convolution or dense layer that alone feeds them: W*scale, b*scale + shift; how many."""
    network = find_layers(classifier)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in network.nodes]
    constants = dict(network.constants)
    graph = Graph(network.nodes, network.constants)
    places = {name: (i, slot) for i, node in enumerate(nodes) for slot, name in enumerate(node.input)}
    by_start = {layer.start: layer for layer in network.layers}
    removed: set[int] = set()
    renamed: dict[str, str] = {}
    for layer in network.layers:
        if layer.kind != "batchnorm":
            continue
        spots = {tensor.role: places[tensor.value] for tensor in layer.tensors}
        operators = {role: nodes[i].op_type for role, (i, _) in spots.items()}
        ends = {i for i, _ in spots.values()}
        first, last = layer.start, max(ends)
        data = next(name for name in network.nodes[first].input if name not in network.constants)
        before = graph.producer.get(data)
        host = by_start.get(before) if before is not None else None
        if before is None or host is None or host.kind not in ("conv", "dense") or graph.only_consumer(data) != first:
            continue
        form = _as_affine(network.nodes[first], layer, constants, operators)
        if not _merge(nodes[before], host, constants, form):
            continue
        removed |= ends | {first}
        renamed[network.nodes[last].output[0]] = nodes[before].output[0]
    for node in nodes:
        for slot, name in enumerate(node.input):
            node.input[slot] = _followed(renamed, name)
    logits = _followed(renamed, classifier.logits)
    kept = tuple(node for i, node in enumerate(nodes) if i not in removed)
    return replace(classifier, nodes=kept, constants=constants, logits=logits), len(renamed)


def _followed(renamed: Mapping[str, str], name: str) -> str:
    while name in renamed:
        name = renamed[name]
    return name


def _merge(node: onnx.NodeProto, host: NoiseLayer, constants: dict[str, Array], form: _Affine) -> bool:
    """Scale a convolution's or Gemm's outputs; False where its shape does not allow it."""
    weight = host.tensors[0]
    bias = next((tensor for tensor in host.tensors if tensor.role == BIAS), None)
    kernel = constants[weight.value].astype(np.float64)
    if bias is not None and bias.value not in node.input:
        return False  # the bias is a separate Add behind other nodes
    match node.op_type:
        case "Conv":
            merged = kernel * form.scale.reshape(-1, *[1] * (kernel.ndim - 1))
        case "ConvTranspose":
            groups = attribute(node, "group", 1)
            grouped = kernel.reshape(groups, kernel.shape[0] // groups, *kernel.shape[1:])
            merged = (grouped * form.scale.reshape(groups, 1, kernel.shape[1], *[1] * (kernel.ndim - 2))).reshape(
                kernel.shape
            )
        case "Gemm" if weight.value == node.input[1] and attribute(node, "beta", 1.0) == 1.0:
            merged = kernel * (form.scale if weight.transposed else form.scale[:, None])
        case _:
            return False
    if merged.shape != kernel.shape:
        return False
    constants[f"{weight.value}@merged"] = merged.astype(np.float32)
    node.input[1] = f"{weight.value}@merged"
    old = constants[bias.value].astype(np.float64).ravel() if bias is not None else np.zeros_like(form.shift)
    name = f"{bias.value if bias is not None else weight.value + ':bias'}@merged"
    constants[name] = (old * form.scale + form.shift).astype(np.float32)
    while len(node.input) < 3:
        node.input.append("")
    node.input[2] = name
    return True
