"""Loads the subject of a run: a model file, or a bundled one, with its noise layers under one policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxnoise.data.cards import Card, bundled_names, find_card, load_bundled
from onnxnoise.data.input import pair
from onnxnoise.data.toml import Size
from onnxnoise.engine.values import blank_pass
from onnxnoise.errors import CardError, ModelError
from onnxnoise.model.classifier import Classifier, load_classifier
from onnxnoise.model.network import Network
from onnxnoise.model.policies.batch_norms import noise_layers
from onnxnoise.records import InitializerInfo, LayerInfo, NoiseLayer
from onnxnoise.runtime.providers import find_provider
from onnxnoise.selection import select_layers
from onnxnoise.spec import BenchSpec
from onnxnoise.text import did_you_mean
from onnxnoise.words import Analog, Compensation, Policy

ANY_SIDE = 224
"""The side of images, pixels, for a graph that takes any."""


@dataclass(frozen=True)
class Subject:
    """A loaded model file: its classifier, its network with all noise layers, and the selected ones among these, `layers`."""

    classifier: Classifier
    network: Network
    layers: tuple[NoiseLayer, ...]


def open_model(
    model: str,
    *,
    bn: Policy = "group",
    analog: Analog = "all",
    compensate: Compensation = "none",
    layers: str | None = None,
    output: str | None = None,
    card: str | None = None,
) -> Subject:
    """The noise layers of the ONNX file `model`, or of the bundled card of that name.

    `bn` is the batch-norm policy, `analog` and `compensate` say which initializers bear noise, `layers` is a pattern as of
    `--layers`. Where several outputs could be the logits, `output` names them, or a card (`card`, or one that `card_of` finds)
    tells how many columns they have. Raises ModelError if the file can't be used, UsageError for a pattern that matches nothing.
    """
    path = _path(model)

    def classes(metadata: Mapping[str, str]) -> int | None:
        try:
            return card_of(model, path, card, metadata).classes
        except CardError:
            return None

    classifier = load_classifier(path, output=output, classes=classes)
    network = noise_layers(classifier, bn, analog, compensate)
    return Subject(classifier, network, select_layers(network.layers, layers))


def open_with_card(
    model: str,
    *,
    bn: Policy = "group",
    analog: Analog = "all",
    compensate: Compensation = "none",
    layers: str | None = None,
    output: str | None = None,
    card: str | None = None,
) -> tuple[Subject, Card]:
    """A model, opened as `open_model` does, and the card that a run would use for it, which knows its classes.

    Raises CardError where there is none.
    """
    subject = open_model(model, bn=bn, analog=analog, compensate=compensate, layers=layers, output=output, card=card)
    found = card_of(model, subject.classifier.path, card, subject.classifier.metadata)
    if found.dataset is not None:
        return subject, found
    return subject, found.counted(outputs_of(subject, found.input.size))


def outputs_of(subject: Subject, size: Size | None = None) -> int:
    """The number of the logits' columns: the file's, else by running the model on one blank image, of `size` where it is free."""
    network = subject.network
    if network.classes is not None:
        return network.classes
    image, sides = network.image, iter(pair(size or ANY_SIDE))
    channels = 3 if image.layout == "nhwc" else 1
    free = [3 if axis == channels else next(sides, 1) for axis in range(1, len(image.shape))]
    shape = [side or made for side, made in zip(image.shape[1:], free, strict=True)]
    blank = np.zeros([image.batch or 1, *shape], np.dtype(image.dtype))
    return blank_pass(network, find_provider("cpu"), blank, BenchSpec("").timeout).classes


def _path(model: str) -> Path:
    path = Path(model)
    if _exists(path):
        return path
    names = bundled_names()
    if model not in names:
        bundled = [name for name in names if load_bundled(name).model.file is not None]
        raise ModelError(
            f"{model}: no such file, and no bundled model of that name{did_you_mean(model, names)} (bundled: "
            f"{', '.join(bundled)})"
        )
    card = load_bundled(model)
    if card.model.file is None:
        raise ModelError(
            f"{model}: the card comes without weights; pass the model file, and --card {model}"
            + (f". They are from {card.model.source}" if card.model.source else "")
        )
    return card.model.file


def card_of(model: str, path: Path, card: str | None, metadata: Mapping[str, str]) -> Card:
    """The card that a run of `model` uses: `card`, else a bundled model's own, else that of `find_card`; raises CardError."""
    return find_card(path, card or (None if _exists(Path(model)) else model), metadata)


def _exists(path: Path) -> bool:
    """Whether a file or folder of this name exists; a name too long for the system is taken for one that doesn't."""
    try:
        return path.exists()
    except OSError:
        return False


def layer_info(layer: NoiseLayer) -> LayerInfo:
    """The description of a noise layer that results carry."""
    initializers = tuple(InitializerInfo(tensor.name, tensor.shape, tensor.sigma_w) for tensor in layer.tensors)
    return LayerInfo(layer.index, layer.name, layer.kind, layer.parameters, layer.sigma_w, initializers)
