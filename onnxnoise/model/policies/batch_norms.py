"""The policies of `--bn`, which say how noise meets a batch norm."""

from __future__ import annotations

from dataclasses import replace

from onnxnoise.model.classifier import Classifier
from onnxnoise.model.network import Network, find_layers
from onnxnoise.model.policies.affine import as_affine
from onnxnoise.model.policies.fold import fold
from onnxnoise.model.policies.kernels import kernels_only
from onnxnoise.model.policies.statistics import without_statistics
from onnxnoise.records import Notice
from onnxnoise.words import Analog, Compensation, Policy


def noise_layers(
    classifier: Classifier, policy: Policy, analog: Analog = "all", compensate: Compensation = "none"
) -> Network:
    """The network of a classifier under a batch-norm policy, a choice of initializers that bear noise, and a compensation.

    Raises ModelError as `find_layers` does.
    """
    network = _under_policy(classifier, policy)
    network = without_statistics(network) if compensate == "bn" else network
    return kernels_only(network) if analog == "kernels" else network


def _under_policy(classifier: Classifier, policy: Policy) -> Network:
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
    """A folded network, with the file's own notices and one about its batch norms."""
    left = [layer.name for layer in network.layers if layer.kind == "batchnorm"]
    message = f"{merged} batch norms were merged into the convolution or dense layer before them"
    if left:
        message += f"; {len(left)} have none and are treated as affine: {', '.join(left)}"
    return replace(network, notices=(*notices, Notice("bn_folded", message)))
