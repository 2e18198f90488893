"""Checks, before any noise, that model, card and images fit together, and that the clean accuracy is the card's."""

from __future__ import annotations

from typing import Literal

import numpy as np

from onnxnoise.data.cards import Card
from onnxnoise.data.input import printed
from onnxnoise.data.pixels.numbers import arranged
from onnxnoise.data.pixels.preprocess import described
from onnxnoise.data.sources.base import ImageSource
from onnxnoise.errors import DataError, ModelError
from onnxnoise.records import ImageInput, Shape
from onnxnoise.statistics.distributions import binomial_tail
from onnxnoise.words import Metric


def layout_of(image: ImageInput, card: Card) -> Literal["nchw", "nhwc"]:
    """The layout of the model's input: the card's, else what the file's shape tells, else NCHW."""
    return card.input.layout if card.input.layout != "auto" else image.layout or "nchw"


def channels_of(model: str, image: ImageInput, card: Card) -> int | None:
    """The number of channels of the model's images, 3 where it takes any; None where its input has another rank than images.

    Raises ModelError where the card has another layout than the file, in which the channels can't be channels.
    """
    if len(image.shape) != 4:
        return None
    layout = layout_of(image, card)
    channels = image.parts(layout)[2] or 3
    if image.layout not in (None, layout) and channels not in (1, 3):
        raise ModelError(
            f"{model}: its input has {channels} channels in layout {layout}, which {card.path} says; the file is made for "
            f'{image.layout}: set layout = "auto"'
        )
    return channels


def check_fit(
    model: str, image: ImageInput, classes: int, card: Card, images: ImageSource, *, labelled: bool = True
) -> None:
    """Raise DataError or ModelError where model, card and images speak of other classes, channels, shapes or sizes.

    `classes` is the number of the model's logits; fewer than the data's will do where no label lies beyond them, and any
    where the images' labels don't count (not `labelled`).
    """
    offset = card.input.label_offset
    if (
        labelled
        and classes != images.classes + offset
        and not (images.highest_label < classes < images.classes + offset)
    ):
        raise DataError(
            f"{model} tells {classes} classes apart, but {images.name} has {images.classes}"
            + (f" (and the card a label_offset of {offset})" if offset else "")
            + background(classes - images.classes - offset, offset)
            + f"; pass the data it was trained for (--data), or another card than {card.path}"
        )
    if not images.is_picture:
        _check_shape(model, image, images)
        return
    layout = layout_of(image, card)
    height, width, channels = image.parts(layout)
    if channels not in (None, images.shape[2]):
        raise ModelError(
            f"{model}: its input has {channels} channels in layout {layout}; the images have {images.shape[2]}"
        )
    sides = images.shape[:2]
    if any(side not in (None, made) for side, made in zip((height, width), sides, strict=True)):
        raise ModelError(
            f"{model} takes images of {height or '?'}x{width or '?'} pixels, but {card.path} makes them {sides[0]}x{sides[1]}; "
            "set crop or size in the card's [input]"
        )


def background(more: int, offset: int) -> str:
    """The likely cause where the model has `more` classes than data and card: one that stands for the background."""
    if more == 1 and not offset:
        return (
            ": one more, probably a background class. If it is the model's first, as in TensorFlow's ImageNet models, set "
            "label_offset = 1 in the card's [input]"
        )
    if more == -1:
        return ": one less" + (
            ": is the label_offset too many?" if offset else "; is one of the data's a background class?"
        )
    return ""


def _check_shape(model: str, image: ImageInput, images: ImageSource) -> None:
    """Raise DataError where arrays that are no pictures don't have the shape or the type of the model's input."""
    wanted = image.shape[1:]
    if arranged(images.shape, wanted) is None:
        raise DataError(
            f"{images.name}: its arrays have the shape {_shape(images.shape)} each, but {model} takes {_shape(wanted)}: "
            "reshape them to the model's"
        )
    if images.dtype == np.int8 and image.dtype != "int8":
        raise DataError(
            f"{images.name}: its arrays are int8, the codes of an integer input, but {model} takes {image.dtype}: give floats, "
            "or pixels as uint8"
        )


def _shape(sides: Shape) -> str:
    return f"({', '.join('any' if side is None else str(side) for side in sides)})"


def check_clean(model: str, image: ImageInput, card: Card, metric: Metric, hits: int, images: int) -> None:
    """Raise DataError where `hits` of `images` can't come from the card's clean accuracy; a card without one passes.

    The most common cause is a wrong preprocessing, so the message says which was used.
    """
    clean = expected_clean(card, metric)
    if clean is not None and not plausible(hits, images, clean):
        raise DataError(
            f"{model}: {metric} without noise is {hits / images:.1%} on {images} images, outside the 99.9 % interval of the "
            f"{clean:.1%} in {card.path}. The preprocessing used was {_described(image, card)}; "
            "correct the card, or go on with --no-clean-check"
        )


def _described(image: ImageInput, card: Card) -> str:
    spec = card.input
    if spec.resize:
        size = f"resize {printed(spec.resize)} {spec.interpolation}, crop {printed(spec.size)}"
    else:
        size = f"crop {printed(spec.crop)}" if spec.crop else f"size {printed(spec.size)} {spec.interpolation}"
    numbers = described(spec, 255)
    if image.dtype != "float32":
        step, zero = image.quantization or (1.0, 0)
        numbers = f"{described(spec)} as {image.dtype} of scale {step:g} and zero point {zero}"
    if image.dtype == "uint8" and image.quantization is None:
        numbers = "uint8 pixels"
    return f"{size}, {spec.color}, {layout_of(image, card)}, {numbers}, label offset {spec.label_offset}"


def expected_clean(card: Card, metric: Metric) -> float | None:
    """The clean accuracy in a card, a fraction of 1: the measured one, else the published one, else None."""
    figures = (card.measured, card.published)
    return next((f.clean for f in figures if f.clean is not None and (f.metric or "top1") == metric), None)


def plausible(hits: int, images: int, accuracy: float) -> bool:
    """Whether `hits` of `images` lie in the binomial 99.9 % interval of an accuracy (a fraction of 1)."""
    return 2 * binomial_tail(hits, images, accuracy) >= 0.001
