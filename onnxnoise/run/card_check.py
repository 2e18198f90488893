"""Holds a model file against a card, which tells of the file's structure, input and accuracy."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from math import inf

import numpy as np

from onnxnoise.data.cards import KEYS, Card
from onnxnoise.data.datasets import KNOWN, Dataset
from onnxnoise.data.fit import background, expected_clean, layout_of, plausible
from onnxnoise.data.input import InputSpec
from onnxnoise.data.measured_noise import as_toml
from onnxnoise.data.pixels.preprocess import lookup
from onnxnoise.errors import CardError
from onnxnoise.model.network import Network
from onnxnoise.records import ImageInput
from onnxnoise.run.loading import Subject
from onnxnoise.words import Metric

_MISSING_LAYERS = ("merged_batchnorm", "no_batchnorm")
_MISSING_PARAMETERS = ("decomposed_batchnorm", "unattached")
"""Codes of the network's notices that tell why layers or parameters are missing."""


@dataclass(frozen=True)
class Finding:
    """A statement that both a card (`card`) and the file (`file`) can make; either is None where it says nothing.

    Accuracies are fractions of 1. `agrees` is None where there is nothing to compare. `why` explains it in a sentence, which is
    untrusted text: it can have names from the file.
    """

    what: str
    card: int | float | str | None
    file: int | float | str | None
    agrees: bool | None
    why: str | None = None


def check_card(subject: Subject, card: Card) -> tuple[Finding, ...]:
    """Compare the file of `subject`, opened with the default policy (`group`), with a card; no image is needed."""
    network = subject.network
    return (*_structure(network, card), *_input(network.image, card), _classes(network, card))


def clean_finding(metric: Metric, hits: int, images: int, card: Card) -> Finding:
    """The finding whether `hits` of `images` (at least 1) without noise lie in the binomial 99.9 % interval of a card's accuracy.

    The card's accuracy is the measured one, else the published one. The most common reason for another one is a wrong
    `[input]`. A card without any agrees with nothing, and where guessing could have as many hits, the finding says so.
    """
    clean = expected_clean(card, metric)
    what, found = f"clean {metric}", hits / images
    if clean is None:
        said = f"the card has no {metric} without noise"
        classes = card.dataset.classes if card.dataset else inf
        guess = min(1.0, (1 if metric == "top1" else 5) / classes)
        if found <= guess or plausible(hits, images, guess):
            said += f"; guessing does as well ({guess:.1%}): untrained, or [input] prepares its images wrongly"
        return Finding(what, None, found, None, said)
    if plausible(hits, images, clean):
        return Finding(what, clean, found, True)
    return Finding(
        what,
        clean,
        found,
        False,
        f"outside the 99.9 % interval of the card's on {images} images; check how the card's [input] prepares them",
    )


def card_text(card: Card) -> list[tuple[str, str]]:
    """A card as people read it: pairs (`table.key`, value) in the order of a card's keys, presets filled in.

    The values are untrusted text, some of several lines (`model.recipe`). Keys that the card leaves out are left out.
    """
    rows = []
    for table, keys in KEYS.items():
        values = asdict(getattr(card, table))
        if table == "input" and card.dataset not in KNOWN.values():
            values["classes"] = _classes_said(card.dataset)
        if table == "measured":
            values["noise"] = "\n".join(map(as_toml, card.measured.noise)) or None
        rows += [(f"{table}.{key}", _shown(key, values[key])) for key in keys if values.get(key) not in (None, ())]
    return rows


def _classes_said(dataset: Dataset | None) -> str | int:
    """The classes that a card brings; where it leaves them out, that the model tells."""
    if dataset is None or dataset.by_model:
        return "as many as the model tells apart"
    return ", ".join(dataset.names) or dataset.classes


def _shown(key: str, value: object) -> str:
    if key == "all_layers" and isinstance(value, tuple):
        return ", ".join(f"SNR {snr:g}: {accuracy:.1%}" for snr, accuracy in value)
    if isinstance(value, tuple):
        return ", ".join(f"{number:g}" for number in value)
    if isinstance(value, float):
        return f"{value:.2%}" if key == "clean" else f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value).strip()


def _structure(network: Network, card: Card) -> tuple[Finding, Finding]:
    said, layers = card.structure, len(network.layers)
    fewer = said.layers is not None and layers < said.layers
    kinds = Counter(layer.kind for layer in network.layers)
    has = f"the file has {', '.join(f'{count} {kind}' for kind, count in kinds.items())}"
    if said.note:
        has += f"; the card says: {said.note}"
    told = "its layers differ already" if said.layers not in (None, layers) else has
    return (
        _compared("layers", said.layers, layers, _why(network, has, _MISSING_LAYERS if fewer else ())),
        _compared("parameters", said.parameters, network.parameters, _why(network, told, _MISSING_PARAMETERS)),
    )


def _why(network: Network, has: str, codes: tuple[str, ...]) -> str:
    """The explanation `has`, followed by the messages of the network's notices with these codes."""
    return ". ".join([has, *(notice.message for notice in network.notices if notice.code in codes)])


def _compared(what: str, card: int | None, file: int | None, why: str) -> Finding:
    agrees = None if card is None or file is None else card == file
    return Finding(what, card, file, agrees, why if agrees is False else None)


def _input(image: ImageInput, card: Card) -> tuple[Finding, ...]:
    spec = card.input
    if len(image.shape) != 4:
        return (_numbers(image, replace(spec, channels=None)),)
    layout = image.layout or layout_of(image, card)
    height, width, channels = image.parts(layout)
    said = spec.layout
    same = None if image.layout is None else said in ("auto", image.layout)
    fits = spec.size is None or all(
        side in (None, made) for side, made in zip((height, width), spec.sides, strict=True)
    )
    several = {len(values) for values in (spec.mean, spec.std) if len(set(values)) > 1}
    return (
        Finding(
            "input layout",
            said,
            image.layout,
            same,
            {
                False: f'set layout = "{image.layout}", or "auto", in [input], or take the card of this very export',
                None: f"the file does not tell; images go in as {layout}",
            }.get(same),
        ),
        Finding(
            "input channels",
            ", ".join(map(str, sorted(several))) or "any",
            "any" if channels is None else channels,
            channels is None or several <= {channels},
        ),
        Finding(
            "input size",
            "any" if spec.size is None else "x".join(map(str, spec.sides)),
            f"{height or 'any'}x{width or 'any'}",
            fits,
            None if fits else "set crop or size in [input] to what the file takes",
        ),
        _numbers(image, replace(spec, channels=channels or 3)),
    )


def _numbers(image: ImageInput, spec: InputSpec) -> Finding:
    """The finding whether the file's type can hold the card's numbers."""
    integers = image.dtype != "float32"
    said = "pixels from 0 to 255" if spec.plain and (spec.scale or integers) else "(pixel/scale - mean)/std"
    if integers:
        try:
            lookup(spec, np.dtype(image.dtype), image.quantization)
        except CardError as error:
            return Finding("input type", said, image.dtype, False, str(error))
    elif spec.plain and spec.scale:
        return Finding("input type", said, image.dtype, True, "right only if the file scales the pixels itself")
    return Finding("input type", said, image.dtype, True)


def _classes(network: Network, card: Card) -> Finding:
    dataset, classes, label_offset = card.dataset, card.classes, card.input.label_offset
    if dataset is None or classes is None:
        return Finding("classes", None, network.classes, None, "the card leaves them out: the model's outputs count")
    offset = f" and a label_offset of {label_offset}" if label_offset else ""
    own = "dataset" if dataset.name in KNOWN else "classes"
    why = f"the card is for {dataset.name}, {dataset.classes} classes{offset}; correct {own} or label_offset in [input]"
    if network.classes is not None:
        why += background(network.classes - classes, label_offset)
    return _compared("classes", classes, network.classes, why)
