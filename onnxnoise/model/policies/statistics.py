"""Batch norms whose statistics are recomputed on each chip, and so are digital: what `--compensate bn` leaves to noise."""

from __future__ import annotations

from dataclasses import replace

from onnxnoise.model.network import Network
from onnxnoise.records import MEAN, VARIANCE


def without_statistics(network: Network) -> Network:
    """The network without noise on the means and variances of its batch norms; layers keep their indices."""
    layers = []
    for layer in network.layers:
        tensors = layer.tensors
        if layer.kind == "batchnorm":
            tensors = tuple(tensor for tensor in tensors if tensor.role not in (MEAN, VARIANCE))
        if tensors:
            layers.append(replace(layer, tensors=tensors))
    return replace(network, layers=tuple(layers))
