"""Noise on kernels only, as `--analog kernels` asks for: biases, norms and all else stay digital."""

from __future__ import annotations

from dataclasses import replace

from onnxnoise.model.network import Network
from onnxnoise.records import RECURRENCE, WEIGHT, NoiseTensor

_KERNELS = {"conv": {WEIGHT}, "dense": {WEIGHT}, "recurrent": {WEIGHT, RECURRENCE}}
"""The roles of the initializers that analog hardware multiplies by, for each kind of layer."""


def kernels_only(network: Network) -> Network:
    """The network with noise on the weights of convolution, dense and recurrent layers alone.

    A layer without such a weight bears no noise and leaves the layers; the others keep their indices.
    """
    layers = []
    for layer in network.layers:
        tensors: tuple[NoiseTensor, ...] = tuple(
            tensor for tensor in layer.tensors if tensor.role in _KERNELS.get(layer.kind, ())
        )
        if tensors:
            layers.append(replace(layer, tensors=tensors))
    return replace(network, layers=tuple(layers))
