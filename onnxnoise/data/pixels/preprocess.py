"""Turns pictures into the model's input as the card says: resize, crop, channels, scale, mean, std, layout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from onnxnoise.data.input import InputSpec, pair, printed
from onnxnoise.data.pixels.cubic import resize_cubic
from onnxnoise.errors import CardError, DataError, ModelError
from onnxnoise.records import Floats, Pixels
from onnxnoise.text import counted

PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
MODES = {1: "L", 3: "RGB"}
"""Pillow's names of pictures with one channel and with three."""
MOST_SATURATED, FEWEST_CODES = 0.25, 16
"""Share of the 256 values of a pixel that may lie outside of what an integer input holds, since calibration leaves out a few, and
the codes that they must have at least.
"""

BLOCK = 1 << 16  # pixels that are looked up in one go: they fit the cache


def max_pixels() -> int:
    """Pixels of the largest image to decode or to resize to: Pillow's limit, which protects the memory."""
    return Image.MAX_IMAGE_PIXELS or 1 << 30


def resize_and_crop(image: Image.Image, spec: InputSpec) -> Pixels:
    """Resizes and crops a grey or an RGB image to uint8 (height, width, channels).

    Raises DataError, without the file's name, for an image smaller than the crop, or too long and thin to resize.
    """
    (width, height), (high, wide) = resized(image.width, image.height, spec), spec.sides
    if width * height > max_pixels():
        raise DataError(f"{image.width} x {image.height} pixels become {width} x {height}: too many to resize to")
    left, top = 0, 0
    if spec.crop is not None:
        if width < wide or height < high:
            raise DataError(
                f"{width} x {height} pixels are smaller than the card's crop = {printed(spec.crop)}: give the card a resize"
            )
        left, top = _offset(width, wide, spec), _offset(height, high, spec)
    box = (left, top, left + wide, top + high)
    if (width, height) != image.size:
        if spec.interpolation == "opencv-cubic":
            return resize_cubic(_three_axes(np.asarray(image)), (width, height), box)
        image = image.resize((width, height), PILLOW[spec.interpolation])
    if image.size != (wide, high):
        image = image.crop(box)
    return _three_axes(np.asarray(image))


def from_array(image: Pixels, spec: InputSpec) -> Pixels:
    """Resizes and crops an image uint8 (height, width, channels) of any number of channels, which become the model's."""
    wanted, channels = spec.channels or image.shape[2], image.shape[2]
    if wanted in MODES and channels in MODES:
        picture = Image.fromarray(image if channels == 3 else image[:, :, 0])
        return resize_and_crop(picture.convert(MODES[wanted]), spec)
    planes = [resize_and_crop(Image.fromarray(image[:, :, channel]), spec) for channel in range(channels)]
    return np.concatenate(planes, axis=2)


def resized(width: int, height: int, spec: InputSpec) -> tuple[int, int]:
    """Width and height, pixels, that an image has after resizing: before the crop."""
    if spec.resize is None or not isinstance(spec.resize, int):
        if spec.resize is None and spec.crop is not None:
            return width, height
        high, wide = spec.sides if spec.resize is None else pair(spec.resize)
        return wide, high
    short, long = min(width, height), max(width, height)
    nearest, down = int(spec.resize / short * long + 0.5), int(spec.resize * long / short)
    stretched = nearest if spec.rounding == "nearest" else down
    return (spec.resize, stretched) if width <= height else (stretched, spec.resize)


def to_input(
    pixels: Pixels,
    spec: InputSpec,
    layout: Literal["nchw", "nhwc"],
    dtype: npt.DTypeLike,
    quantization: tuple[float, int] | None = None,
) -> npt.NDArray[Any]:
    """The model's input, (n, channels, height, width) or (n, height, width, channels), from pixels uint8 of the latter shape.

    `dtype` is the model's: floats are `(pixel/scale - mean)/std`, computed in float64 and rounded to float32 once; uint8 and int8
    are the codes that stand for these by the input's `quantization` (scale, zero point), and without one the numbers themselves.
    Raises CardError for a card whose numbers the integers can't hold, and ModelError for any other type.
    """
    count, height, width, channels = pixels.shape
    sources = (2, 1, 0) if spec.color == "bgr" and channels == 3 else range(channels)
    tables = lookup(replace(spec, channels=channels), np.dtype(dtype), quantization)
    shape = (count, channels, height, width) if layout == "nchw" else (count, height, width, channels)
    inputs = np.empty(shape, dtype)
    step = max(1, BLOCK // (height * width))
    for start in range(0, count, step):
        block = slice(start, start + step)
        for channel, source in enumerate(sources):
            plane = inputs[block, channel] if layout == "nchw" else inputs[block, :, :, channel]
            # Without mode="clip", which no uint8 needs, take makes a copy of `out`.
            np.take(tables[channel], pixels[block, :, :, source], out=plane, mode="clip")
    return inputs


def mean_and_std(spec: InputSpec) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The card's mean and std, float64 (channels,): one value for all channels where they are equal, or one a channel.

    Raises CardError where the card has them for another number of channels than the model.
    """
    channels = spec.channels or 1
    if spec.color == "bgr" and channels not in MODES:
        raise CardError(
            f'the card says color = "bgr", but the model takes {counted(channels, "channel")}: leave it out'
        )
    for key, values in (("mean", spec.mean), ("std", spec.std)):
        if len(set(values)) > 1 and len(values) != channels:
            raise CardError(
                f"the card's {key} has {len(values)} values, but the model takes {counted(channels, 'channel')}: give one "
                "for each channel, or one for all"
            )
    mean, std = (
        np.array(values if len(set(values)) > 1 else values[:1] * channels) for values in (spec.mean, spec.std)
    )
    return mean, std


def lookup(spec: InputSpec, dtype: np.dtype[Any], quantization: tuple[float, int] | None = None) -> npt.NDArray[Any]:
    """The model's number or code for each of the 256 values of a pixel in each of its channels: `dtype` (channels, 256)."""
    values = np.arange(256, dtype=np.float64)
    mean, std = (each[:, None] for each in mean_and_std(spec))
    if dtype in (np.uint8, np.int8):
        numbers = (values / (1.0 if spec.plain else spec.scale or 255.0) - mean) / std
        return _codes(numbers, dtype, quantization, described(spec), spec.plain)
    if dtype.kind != "f":
        raise ModelError(f"the model's image input has type {dtype}: must be float16, float32, float64, uint8 or int8")
    table: Floats = ((values / (spec.scale or 255.0) - mean) / std).astype(np.float32)
    return table.astype(dtype)


def described(spec: InputSpec, scale: float = 1.0) -> str:
    """The card's formula; `scale` is what holds where the card has none."""
    mean, std = (f"[{' '.join(f'{value:g}' for value in values)}]" for values in (spec.mean, spec.std))
    return f"(pixel/{spec.scale or scale:g} - {mean})/{std}"


def _codes(
    numbers: npt.NDArray[np.float64],
    dtype: np.dtype[Any],
    quantization: tuple[float, int] | None,
    asked: str,
    plain: bool,
) -> npt.NDArray[Any]:
    """The codes that stand for `numbers` (channels, 256) in an integer input, rounded and saturated as QuantizeLinear does.

    Where the card asks for the pixels as they are (`plain`), and the input's scale is made for others, the codes are the pixels
    themselves: 0 to 255, or for int8 -128 to 127. Raises CardError for numbers of which the input holds a part only, or that are
    too close together for it.
    """
    step, zero = quantization or (1.0, 0)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    codes = np.rint(numbers / step) + zero
    held = codes.clip(low, high)
    lost = (np.abs(codes - held) > 1).mean(axis=1).max()
    fits = lost <= MOST_SATURATED and min(len(np.unique(channel)) for channel in held) >= FEWEST_CODES
    if fits and (plain or quantization or dtype != np.uint8):
        return np.asarray(held, dtype)
    if plain and quantization:
        return np.tile((np.arange(256) + low).astype(dtype), (len(numbers), 1))
    remedy = "set scale = 1, mean = 0 and std = 1" if dtype == np.uint8 else "set scale = 1, mean = 128 and std = 1"
    if quantization:
        held_numbers = f"numbers from {(low - zero) * step:.4g} to {(high - zero) * step:.4g}"
        raise CardError(
            f"the model's {dtype} input stands for {held_numbers} (scale {step:.4g}, zero point {zero}), but its card's [input] "
            f"asks for {asked}, from {numbers.min():.4g} to {numbers.max():.4g}: correct scale, mean and std"
        )
    raise CardError(f"the model takes {dtype} pixels as they are, but its card's [input] asks for {asked}: {remedy}")


def _three_axes(pixels: Pixels) -> Pixels:
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _offset(length: int, size: int, spec: InputSpec) -> int:
    margin = length - size
    return margin // 2 if spec.rounding == "nearest" else round(margin / 2)
