"""The way from an image to a model's input: a card's `[input]`, with presets and defaults filled in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from onnxnoise.data.datasets import KNOWN
from onnxnoise.data.toml import Size, Table, shown
from onnxnoise.errors import CardError
from onnxnoise.text import did_you_mean

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

    With `resize` (the shorter side, or height and width, pixels) the image is resized, then `crop` is cut from its centre. With
    `crop` alone it is only cut; with neither it is stretched to `size`. `size` is always the input's: the side of a square, or
    (height, width); None where the card doesn't say it, and arrays must have the model's size already.
    `rounding` is not a card's key: with torchvision's presets the resized long side is rounded down and half a pixel of
    the crop's margin to even, otherwise the side to the nearest pixel and the margin down, as tensorpack does.
    `mean` and `std` are in the order of the model's channels; equal values stand for any number of channels. `channels` is not
    a card's key but the model's: None where its input is no image but an array of another rank. `scale` is None where neither
    card nor preset says it: it is then 255, or 1 where an integer input takes the pixels as they are.

    A run file keeps what `identity` returns, so a new field must be left out there unless a card sets it.
    """

    dataset: str
    size: Size | None
    resize: Size | None = None
    crop: Size | None = None
    interpolation: Interpolation = "nearest"
    rounding: Rounding = "nearest"
    color: Color = "rgb"
    layout: CardLayout = "auto"
    scale: float | None = None
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    label_offset: int = 0
    channels: int | None = 3

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the input, pixels. Raises CardError where the card doesn't say them."""
        if self.size is None:
            raise CardError(
                f"the card of {self.dataset} does not say how large the images are: add to its [input] size (stretch to it), "
                "or resize and crop"
            )
        return pair(self.size)

    @property
    def plain(self) -> bool:
        """Whether the card asks for the numbers as they are: no other scale than 1, no mean and no std."""
        return self.scale in {None, 1.0} and not any(self.mean) and set(self.std) == {1.0}

    def identity(self) -> dict[str, Any]:
        """The fields that a card sets, by name."""
        return {name: value for name, value in asdict(self).items() if name != "channels"}


def pair(size: Size) -> tuple[int, int]:
    """Height and width of a size."""
    return (size, size) if isinstance(size, int) else size


def printed(size: Size | None) -> str:
    """A size as a person reads it: 224, or 48x64 of height and width."""
    return "?" if size is None else str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


@dataclass(frozen=True)
class Preset:
    """The input that a family of models expects. The geometry (`size`, `resize`, pixels) is for images that differ in size."""

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
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


def read_input(table: Table) -> InputSpec:
    """The InputSpec of a card's `[input]`. Raises CardError for a value that is impossible, or where no size is given."""
    dataset = table.text("dataset") or ""
    known = KNOWN.get(dataset)
    name = table.choice("preset", tuple(PRESETS))
    preset = PRESETS[name] if name else None
    color = table.choice("color", COLORS)
    scale = table.number("scale", "a number above 0", above=0)
    count = 3 if known else None
    each = "{} for each channel of the model, or one for all of them"
    many = "three numbers{}, one" if count else "numbers{}, one"
    mean = table.channels("mean", each.format(many.format("")), count=count)
    std = table.channels("std", each.format(many.format(" above 0")), above=0, count=count)
    if preset and color not in {None, preset.color} and len(set(preset.mean)) > 1 and (mean is None or std is None):
        raise table.error("color", f"{preset.color}, as in preset {name}, unless mean and std come in that order too")
    as_they_are = preset is None and scale == 1 and not any(mean or ()) and set(std or (1,)) == {1}
    size, resize, crop = _geometry(table, known.side if known else None, preset, free=as_they_are and known is None)
    default = preset.interpolation if preset else "bilinear" if resize else "nearest"
    interpolation = table.choice("interpolation", INTERPOLATIONS) or default
    return InputSpec(
        dataset=dataset,
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


def _geometry(
    table: Table, side: int | None, preset: Preset | None, *, free: bool
) -> tuple[Size | None, Size | None, Size | None]:
    """`size`, `resize` and `crop` of an InputSpec, pixels, for a data set with images of this side (None: of any size).

    Where it is `free`, none need be there.
    """
    size, crop = (_square(table.size(key, 1, 4096)) for key in ("size", "crop"))
    resize = table.size("resize", 1, 4096)
    if size and crop and size != crop:
        raise table.error("size", f"equal to crop = {printed(crop)}, the size of the input; leave out one of them")
    input_size = crop or size
    if preset and side is None:
        input_size, resize = input_size or preset.size, resize or preset.resize
    input_size = input_size or _square(resize) or side
    if input_size is None and not free:
        raise CardError(
            f"{table.file}: [input] does not say how large the images are{_near(table)}: add a preset ({', '.join(PRESETS)}), "
            "or size (stretch to it), or resize and crop; arrays that are the model's input already need scale = 1 instead"
        )
    if resize and input_size and not _within(input_size, resize):
        what = "shorter side is resize" if isinstance(resize, int) else "size is resize"
        raise CardError(
            f"{table.file}: [input] cuts {printed(input_size)} pixels out of images whose {what} = {printed(resize)}"
        )
    return input_size, resize, input_size if resize else crop


def _near(table: Table) -> str:
    """The name of an own data set that may be a slip for a known one, in brackets; else nothing."""
    name = table.text("dataset") or ""
    near = "" if name in KNOWN or "classes" in table.values else did_you_mean(name, KNOWN)
    return f" (dataset = {shown(name)}{near})" if near else ""


def _square(size: Size | None) -> Size | None:
    """The size as one number where its sides are equal, so that both ways to write it are the same card."""
    return size[0] if isinstance(size, tuple) and size[0] == size[1] else size


def _within(size: Size, resize: Size) -> bool:
    (height, width), (high, wide) = pair(size), pair(resize)
    if isinstance(resize, int):
        return min(height, width) <= resize
    return height <= high and width <= wide
