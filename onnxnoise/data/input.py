"""The way from an image to a model's input: a card's `[input]`, with presets and defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onnxnoise.data.datasets import Dataset
from onnxnoise.data.toml import Table, Triple
from onnxnoise.errors import CardError

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "opencv-cubic"]
Rounding = Literal["nearest", "torchvision"]
Color = Literal["rgb", "bgr"]
CardLayout = Literal["auto", "nchw", "nhwc"]

INTERPOLATIONS: tuple[Interpolation, ...] = (
    "nearest",
    "bilinear",
    "bicubic",
    "lanczos",
    "box",
    "hamming",
    "opencv-cubic",
)
COLORS: tuple[Color, ...] = ("rgb", "bgr")
CARD_LAYOUTS: tuple[CardLayout, ...] = ("auto", "nchw", "nhwc")


@dataclass(frozen=True)
class InputSpec:
    """The rule by which an image becomes the model's input, `(pixel/scale - mean)/std`, with the name of the card's data set.

    With `resize` (shorter side, pixels) the image is resized, then `crop` (side, pixels) is cut from its centre. With
    `crop` alone it is only cut; with neither it is stretched to `size` x `size`. `size` is always the input's side.
    `rounding` is not a card's key: with torchvision's presets the resized long side is rounded down and half a pixel of
    the crop's margin to even, otherwise the side to the nearest pixel and the margin down, as tensorpack does.
    `mean` and `std` are in the order of the model's channels. `scale` is None where neither card nor preset says it: it is
    then 255, or 1 where an integer input takes the pixels as they are.

    A run file keeps all fields as its identity, so a new field must be left out there unless a card sets it.
    """

    dataset: str
    size: int
    resize: int | None = None
    crop: int | None = None
    interpolation: Interpolation = "nearest"
    rounding: Rounding = "nearest"
    color: Color = "rgb"
    layout: CardLayout = "auto"
    scale: float | None = None
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    label_offset: int = 0


@dataclass(frozen=True)
class Preset:
    """The input that a family of models expects. The geometry (`size`, `resize`, pixels) is for images that differ in size."""

    scale: float
    mean: Triple
    std: Triple
    color: Color = "rgb"
    layout: CardLayout = "auto"
    interpolation: Interpolation = "nearest"
    size: int = 224
    resize: int | None = None


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ZEROS = (0.0, 0.0, 0.0)
ONES = (1.0, 1.0, 1.0)
PRESETS = {
    "torchvision": Preset(255, IMAGENET_MEAN, IMAGENET_STD, interpolation="bilinear", resize=256),
    "torchvision-232": Preset(255, IMAGENET_MEAN, IMAGENET_STD, interpolation="bilinear", resize=232),
    "keras-caffe": Preset(1, (103.939, 116.779, 123.68), ONES, color="bgr"),
    "keras-tf": Preset(127.5, ONES, ONES),
    "keras-torch": Preset(255, IMAGENET_MEAN, IMAGENET_STD),
    "tensorpack": Preset(1, ZEROS, ONES, color="bgr", layout="nhwc", interpolation="opencv-cubic", resize=256),
}


def read_input(table: Table, dataset: Dataset) -> InputSpec:
    """The InputSpec of a card's `[input]`. Raises CardError for a value that is impossible, or where no size is given."""
    name = table.choice("preset", tuple(PRESETS))
    preset = PRESETS[name] if name else None
    size, resize, crop = _geometry(table, dataset, preset)
    default = preset.interpolation if preset else "bilinear" if resize else "nearest"
    interpolation = table.choice("interpolation", INTERPOLATIONS) or default
    color = table.choice("color", COLORS)
    scale = table.number("scale", "a number above 0", above=0)
    mean = table.triple("mean", "three numbers, one for each channel of the model")
    std = table.triple("std", "three numbers above 0, one for each channel of the model", above=0)
    if preset and color not in {None, preset.color} and len(set(preset.mean)) > 1 and (mean is None or std is None):
        raise table.error("color", f"{preset.color}, as in preset {name}, unless mean and std come in that order too")
    return InputSpec(
        dataset=dataset.name,
        size=size,
        resize=resize,
        crop=crop,
        interpolation=interpolation,
        rounding="torchvision"
        if (name or "").startswith("torchvision") and interpolation != "opencv-cubic"
        else "nearest",
        color=color or (preset.color if preset else "rgb"),
        layout=table.choice("layout", CARD_LAYOUTS) or (preset.layout if preset else "auto"),
        scale=scale or (preset.scale if preset else None),
        mean=mean or (preset.mean if preset else ZEROS),
        std=std or (preset.std if preset else ONES),
        label_offset=table.integer("label_offset", 0, 1000) or 0,
    )


def _geometry(table: Table, dataset: Dataset, preset: Preset | None) -> tuple[int, int | None, int | None]:
    """`size`, `resize` and `crop` of an InputSpec, pixels."""
    size, resize, crop = (table.integer(key, 1, 4096) for key in ("size", "resize", "crop"))
    if size and crop and size != crop:
        raise table.error("size", f"equal to crop = {crop}, the side of the input; leave out one of them")
    side = crop or size
    if preset and dataset.side is None:
        side, resize = side or preset.size, resize or preset.resize
    side = side or resize or dataset.side
    if side is None:
        raise CardError(
            f"{table.file}: [input] does not say how large the images are: add a preset ({', '.join(PRESETS)}), "
            "or size (stretch to it), or resize and crop"
        )
    if resize and side > resize:
        raise CardError(
            f"{table.file}: [input] cuts {side} pixels out of images whose shorter side is resize = {resize}"
        )
    return side, resize, side if resize else crop
