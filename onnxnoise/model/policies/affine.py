"""Batch norms as scale * x + shift, the two numbers a channel that hardware would hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxnoise.model.graph import Place
from onnxnoise.model.network import Network
from onnxnoise.model.spread import pooled_sigma, sigma
from onnxnoise.records import BIAS, CAFFE_BIAS, CAFFE_SCALE, MEAN, SCALE, VARIANCE, NoiseLayer
from onnxnoise.runtime.protos import attribute

Array = npt.NDArray[Any]
_NEUTRAL = {MEAN: 0.0, VARIANCE: 1.0, CAFFE_SCALE: 1.0, CAFFE_BIAS: 0.0}


@dataclass(frozen=True)
class Affine:
    """A batch norm's arithmetic on each channel, `scale * x + shift`; float64, (channels,)."""

    scale: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]


def places(network: Network) -> dict[str, Place]:
    """The place where each constant enters, by name; the constant of a noise tensor has only one."""
    return {name: (i, slot) for i, node in enumerate(network.nodes) for slot, name in enumerate(node.input)}


def affine_form(layer: NoiseLayer, network: Network, at: Mapping[str, Place]) -> Affine | None:
    """A batch norm's scale and shift; None where its scale or bias isn't constant."""
    values = {t.role: network.constants[t.value].astype(np.float64).ravel() for t in layer.tensors}
    nodes = {t.role: network.nodes[at[t.value][0]] for t in layer.tensors}
    if not {SCALE, BIAS} <= values.keys():
        return None
    scale, shift = values[SCALE], values[BIAS]
    if VARIANCE in values:
        with np.errstate(all="ignore"):  # a broken file's negative variance is the network's own NaN
            scale = scale / np.sqrt(values[VARIANCE] + attribute(nodes[VARIANCE], "epsilon", 1e-5))
    elif nodes[SCALE].op_type == "Div":
        scale = 1 / scale
    if nodes[BIAS].op_type == "Sub":
        shift = -shift
    shift = shift - values.get(MEAN, 0.0) * scale
    second = values.get(CAFFE_SCALE, 1.0)
    return Affine(scale * second, shift * second + values.get(CAFFE_BIAS, 0.0))


def as_affine(network: Network) -> Network:
    """The network with each batch norm reduced to its scale and shift in float32, the initializers 0 and 1 of its layer."""
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in network.nodes]
    constants = dict(network.constants)
    at = places(network)
    layers = []
    for layer in network.layers:
        form = affine_form(layer, network, at) if layer.kind == "batchnorm" else None
        if form is None:
            layers.append(layer)
            continue
        wanted = {SCALE: form.scale, BIAS: form.shift}
        for node in {at[tensor.value][0] for tensor in layer.tensors if tensor.role == VARIANCE}:
            others = [each for each in nodes[node].attribute if each.name != "epsilon"]
            del nodes[node].attribute[:]
            nodes[node].attribute.extend([*others, onnx.helper.make_attribute("epsilon", 0.0)])
        tensors = []
        for tensor in layer.tensors:
            i, slot = at[tensor.value]
            name, shape = f"{tensor.value}@affine", constants[tensor.value].shape
            if tensor.role in wanted:
                constants[name] = wanted[tensor.role].astype(np.float32).reshape(shape)
                tensors.append(replace(tensor, value=name, sigma_w=sigma(constants[name])))
            else:
                constants[name] = np.full(shape, _NEUTRAL[tensor.role], np.float32)
            del constants[tensor.value]
            nodes[i].input[slot] = name
            nodes[i].op_type = {"Div": "Mul", "Sub": "Add"}.get(nodes[i].op_type, nodes[i].op_type)
        values = [constants[tensor.value] for tensor in tensors]
        layers.append(
            replace(
                layer,
                tensors=tuple(tensors),
                parameters=sum(value.size for value in values),
                sigma_w=pooled_sigma(values),
            )
        )
    return replace(network, nodes=tuple(nodes), constants=constants, layers=tuple(layers))
