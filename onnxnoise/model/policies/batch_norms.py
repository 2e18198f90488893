"""What noise means for a batch norm: the policies of `--bn`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnoise.model.classifier import Classifier
from onnxnoise.model.network import Network, find_layers
from onnxnoise.model.policies.affine import as_affine
from onnxnoise.model.policies.fold import fold
from onnxnoise.noise.gaussian import perturbed, sigma_noise, stored_normals
from onnxnoise.records import VARIANCE, Floats, NoiseLayer, Notice, Policy, SigmaScope

Array = npt.NDArray[Any]


def noise_layers(classifier: Classifier, policy: Policy) -> Network:
    """The network with its noise layers as `policy` sees them; raises ModelError as `find_layers`."""
    network = find_layers(classifier)
    match policy:
        case "fold":
            folded, merged = fold(classifier, network)
            return _with_notice(as_affine(find_layers(folded)), network.notices, merged)
        case "affine":
            return as_affine(network)
        case "clean":
            return replace(network, layers=tuple(layer for layer in network.layers if layer.kind != "batchnorm"))
    return network


def _with_notice(network: Network, notices: tuple[Notice, ...], merged: int) -> Network:
    """A folded network with the file's own notices and one that says what became of its batch norms."""
    left = [layer.name for layer in network.layers if layer.kind == "batchnorm"]
    message = f"{merged} batch norms were merged into the convolution or dense layer before them"
    if left:
        message += f"; {len(left)} have none and are treated as affine: {', '.join(left)}"
    return replace(network, notices=(*notices, Notice("bn_folded", message)))


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
