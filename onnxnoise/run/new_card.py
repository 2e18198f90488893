"""Drafts a model's card: from the graph, from what lies beside the model, and from what fits images best where there are some."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxnoise.data.datasets import KNOWN
from onnxnoise.data.drafts.beside import read_beside
from onnxnoise.data.drafts.hints import AS_THEY_ARE, NUMBERS, Hint, by_name
from onnxnoise.data.input import PRESETS
from onnxnoise.errors import OnnxNoiseError
from onnxnoise.run.draft import Draft
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.loading import ANY_SIDE, Subject, open_model, outputs_of
from onnxnoise.run.trying import Trials, tried
from onnxnoise.spec import BenchSpec
from onnxnoise.text import shortened

IMAGES = 300
"""The number of images on which preprocessings are tried."""


@dataclass(frozen=True)
class NewCard:
    """A drafted card: its TOML, the questions that it leaves open, and what was tried on images (None without any)."""

    text: str
    questions: tuple[str, ...]
    trials: Trials | None


def new_card(model: str, *, data: str | None = None, images: int = IMAGES, output: str | None = None) -> NewCard:
    """Draft the card of an ONNX file, or of a bundled model; the draft loads as it is.

    Sizes, layout, channels and classes are the graph's; pixels are as what lies beside the model says (transformers' and timm's
    configurations), else as its name does. With `data` the usual preprocessings are tried on the first `images` images, and the
    best one is written. Nothing is taken silently: each key has a comment that says where it is from, or a question. Raises
    OnnxNoiseError's subclasses for a model, configurations or images that can't be used.
    """
    subject = open_model(model, output=output)
    draft = _from_graph(subject)
    told = draft.beside.hint or by_name(subject.classifier.path.stem, subject.network.image.layout)
    known = _fitted(draft, told)
    trials = None
    if data is None:
        _from_hint(draft, known)
    else:
        experiment = _named(draft, BenchSpec(model, data=data, limit=images, output=output), data)
        side = draft.side if isinstance(draft.side, int) else None
        trials = tried(experiment, draft.card, known, draft.channels or 0, side)
        _from_trials(draft, known, trials)
    if told is not None and known is not told and "preset" not in told.keys:
        size = told.geometry.get("crop", told.geometry.get("size"))
        draft.questions["size" if "size" in draft.keys else "crop"] = (
            f"{told.source} says {size} pixels, the graph takes {draft.side}: is it of this model?"
        )
    _name_classes(draft, data)
    _ask(draft)
    draft.card({})
    return NewCard(draft.text(), tuple(draft.open_questions()), trials)


def _from_graph(subject: Subject) -> Draft:
    image = subject.network.image
    side = channels = None
    sides: tuple[int | None, int | None] = (None, None)
    if len(image.shape) == 4:
        height, width, channels = image.parts(image.layout or "nchw")
        sides, side = (height, width), height if height == width else None
    return Draft(subject, outputs_of(subject), channels, sides, read_beside(subject.classifier.path, side))


def _fitted(draft: Draft, told: Hint | None) -> Hint | None:
    """The hint with the graph's size where that is fixed and another one; a preset's own size is then a share of it."""
    side = draft.side
    if told is None or side is None or side in (told.geometry.get("crop"), told.geometry.get("size")):
        return told
    geometry: dict[str, Any] = {"size": side}
    if "preset" in told.keys and isinstance(side, int) and PRESETS[told.keys["preset"]].resize:
        geometry = {"resize": round(side / 0.875), "crop": side}
    kept = {key: value for key, value in told.keys.items() if key not in ("size", "resize", "crop")}
    return Hint(told.source, {**kept, **geometry})


def _named(draft: Draft, spec: BenchSpec, data: str) -> Experiment:
    """Name the data set, and open its images.

    It is a known one where only its layouts can read them, else one by the name of the folder or file.
    """
    stem = re.sub(r"(\.(tar|npz|npy|parquet|gz|bin|tgz|zip))+$", "", Path(data).name.split(":")[0]) or draft.dataset
    known = [name for name, each in KNOWN.items() if draft.classes - each.classes in (0, 1)]
    own = stem if stem not in KNOWN else draft.dataset
    names = list(draft.beside.classes) if len(draft.beside.classes) == draft.classes else []
    refused: dict[str, OnnxNoiseError] = {}
    for name in [*known, own] if "imagenet" in known else [own, *known]:
        offset = draft.classes - KNOWN[name].classes if name in KNOWN else 0
        for classes in [names, []] if names and name not in KNOWN else [[]]:
            draft.dataset, draft.keys = name, {"label_offset": offset} if offset else {}
            draft.keys |= {"classes": classes} if classes else {}
            try:
                experiment = Experiment.joined(spec, draft.subject, draft.card(AS_THEY_ARE.keys))
            except OnnxNoiseError as error:
                refused[name] = error
                continue
            if name in KNOWN:
                draft.comments["dataset"] = f"The images of {shortened(data, 80)} are read as {name}'s."
            if offset:
                draft.comments["label_offset"] = (
                    "The model has one class more: a background class, taken for its first."
                )
            return experiment
    raise refused[own]


def _from_hint(draft: Draft, known: Hint | None) -> None:
    """Keys without any image: the hint's, else the graph's size."""
    if known is not None:
        draft.say(known.keys, f"By {known.source}.")
    elif draft.side is not None:
        draft.say({"size": draft.side}, "The graph's input has this size; images of another one are stretched to it.")


def _from_trials(draft: Draft, known: Hint | None, trials: Trials) -> None:
    """The keys of the best preprocessing tried, with the hits of all."""
    best = trials.best
    if known is not None and best is not None and known.source == best.source == trials.geometry.source:
        draft.say(known.keys, f"By {known.source}. {trials.summary}")
        return
    how = trials.geometry_summary or "The images tried have this size already, or don't tell other ways to it apart."
    if trials.geometry.keys:
        draft.say(trials.geometry.keys, how)
    elif draft.side is not None:
        draft.say({"size": draft.side}, "The graph's.")
    if best is None:
        draft.questions["scale"] = trials.summary
        return
    draft.say(({"color": "rgb"} if draft.channels == 3 else {}) | dict(best.keys), trials.summary)
    if known is not None and known.numbers and best.source != known.source:
        draft.questions["scale"] = f"{known.source} says other numbers, with fewer hits: is it of this model?"


def _name_classes(draft: Draft, data: str | None) -> None:
    names = draft.beside.classes
    if data is None:
        fits = [name for name, each in KNOWN.items() if draft.classes - each.classes in (0, 1)]
        also = f" {draft.classes} classes: {' or '.join(fits)}?" if fits else ""
        draft.questions["dataset"] = f"Which images is the model for? imagenet, cifar10, cifar100, or any name.{also}"
    if draft.dataset in KNOWN:
        return
    fit = len(names) == draft.classes
    if fit and (data is None or "classes" in draft.keys):
        draft.say({"classes": list(names)}, f"By {draft.beside.files[-1]}, in the order of the model's outputs.")
        return
    draft.say({"classes": draft.classes}, "The graph has so many outputs.")
    more = len(names) - draft.classes
    cause = "; one is probably a background class" if abs(more) == 1 else ""
    if fit:
        draft.questions["classes"] = (
            f"{draft.beside.files[-1]} names other classes than the images: whose class is which? Without names a class folder "
            "has the label of its position among the sorted names."
        )
        return
    draft.questions["classes"] = (
        f"{draft.beside.files[-1]} names {len(names)} classes{cause}: is it of this model?"
        if names
        else 'Their names, ["...", ...] or "labels.txt", in the order of the outputs? Without them a class folder has '
        "the label of its position among the sorted names."
    )


def _ask(draft: Draft) -> None:
    """The questions that neither graph nor files answer, and the keys that make the draft a card all the same."""
    image, keys = draft.subject.network.image, draft.keys
    if draft.takes_images and not {"preset", "size", "crop"} & keys.keys():
        draft.say({"size": ANY_SIDE}, "")
        draft.questions["size"] = f"How large? The graph takes any size; {ANY_SIDE} is only the commonest."
    if not draft.takes_images and not keys.keys() & NUMBERS:
        draft.say(AS_THEY_ARE.keys, "")
        draft.questions.setdefault(
            "scale",
            "Are the arrays what the model was trained on? Then they go in as they are, as here; else scale, mean and std say "
            "what becomes of them, x = (number/scale - mean)/std.",
        )
    if draft.takes_images and draft.channels == 3 and not {"preset", "color"} & keys.keys():
        draft.questions["color"] = 'rgb, or bgr as OpenCV reads images? Without a line it is "rgb".'
    if image.quantization is not None and "mean" not in keys:
        step, zero = image.quantization
        low, high = ((end - zero) * step for end in (np.iinfo(image.dtype).min, np.iinfo(image.dtype).max))
        draft.questions.setdefault(
            "scale",
            f"The {image.dtype} input stands for numbers from {low:.4g} to {high:.4g} (scale {step:g}, zero point {zero}): "
            "scale, mean and std say which of them a pixel is.",
        )
    elif image.dtype == "float32" and not {"preset", "mean"} & keys.keys():
        draft.questions.setdefault(
            "scale",
            "Which numbers was it trained on? x = (pixel/scale - mean)/std. Without a line it is pixel/255; usual are scale = "
            "127.5 with mean = 1, scale = 1, or ImageNet's mean = [0.485, 0.456, 0.406] and std = [0.229, 0.224, 0.225]. With "
            "--data the usual ones are tried.",
        )
