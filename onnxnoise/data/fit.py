"""Checks, before any noise, that model, card and images fit together, and that the clean accuracy is the card's."""

from __future__ import annotations

from typing import Literal

from onnxnoise.data.cards import Card
from onnxnoise.data.pixels.preprocess import described
from onnxnoise.data.sources.base import ImageSource
from onnxnoise.errors import DataError, ModelError
from onnxnoise.records import ImageInput
from onnxnoise.statistics.distributions import binomial_tail
from onnxnoise.words import Metric


def layout_of(image: ImageInput, card: Card) -> Literal["nchw", "nhwc"]:
    """The layout of the model's input: the card's, else what the file's shape tells, else NCHW."""
    return card.input.layout if card.input.layout != "auto" else image.layout or "nchw"


def check_fit(model: str, image: ImageInput, classes: int, card: Card, images: ImageSource) -> None:
    """Raise DataError or ModelError where model, card and images speak of other classes, channels or sizes.

    `classes` is the number of the model's logits; fewer than the data's will do where no label lies beyond them.
    """
    offset = card.input.label_offset
    if classes != images.classes + offset and not (images.highest_label < classes < images.classes + offset):
        raise DataError(
            f"{model} tells {classes} classes apart, but {images.name} has {images.classes}"
            + (f" (and the card a label_offset of {offset})" if offset else "")
            + f"; pass the data it was trained for (--data), or another card than {card.path}"
        )
    layout = layout_of(image, card)
    height, width = image.shape[2:] if layout == "nchw" else image.shape[1:3]
    channels = image.shape[1 if layout == "nchw" else 3]
    if channels not in (None, 3):
        raise ModelError(f"{model}: its input has {channels} channels in layout {layout}; images have 3 (RGB)")
    if any(side not in (None, card.input.size) for side in (height, width)):
        side = card.input.size
        raise ModelError(
            f"{model} takes images of {height or '?'}x{width or '?'} pixels, but {card.path} makes them {side}x{side}; "
            "set crop or size in the card's [input]"
        )


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
        size = f"resize {spec.resize} {spec.interpolation}, crop {spec.size}"
    else:
        size = f"crop {spec.crop}" if spec.crop else f"size {spec.size} {spec.interpolation}"
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
