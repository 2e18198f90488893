"""Turns pictures into the model's input as the card says: resize, crop, colour order, scale, mean, std, layout."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from onnxnoise.data.input import InputSpec
from onnxnoise.data.pixels.cubic import resize_cubic
from onnxnoise.errors import CardError, DataError, ModelError
from onnxnoise.records import Floats, Pixels

PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
MOST_SATURATED, FEWEST_CODES = 0.25, 16
"""Share of the 256 values of a pixel that may lie outside of what an integer input holds, since calibration leaves out a few, and
the codes that they must have at least.
"""

BLOCK = 1 << 16  # pixels that are looked up in one go: they fit the cache


def max_pixels() -> int:
    """Pixels of the largest image to decode or to resize to: Pillow's limit, which protects the memory."""
    return Image.MAX_IMAGE_PIXELS or 1 << 30


def resize_and_crop(image: Image.Image, spec: InputSpec) -> Pixels:
    """Resizes and crops an RGB image to uint8 (size, size, 3).

    Raises DataError, without the file's name, for an image smaller than the crop, or too long and thin to resize.
    """
    width, height = resized(image.width, image.height, spec)
    if width * height > max_pixels():
        raise DataError(f"{image.width} x {image.height} pixels become {width} x {height}: too many to resize to")
    left, top = 0, 0
    if spec.crop is not None:
        if min(width, height) < spec.crop:
            raise DataError(
                f"{width} x {height} pixels are smaller than the card's crop = {spec.crop}: give the card a resize"
            )
        left, top = _offset(width, spec), _offset(height, spec)
    box = (left, top, left + spec.size, top + spec.size)
    if (width, height) != image.size:
        if spec.interpolation == "opencv-cubic":
            return resize_cubic(np.asarray(image), (width, height), box)
        image = image.resize((width, height), PILLOW[spec.interpolation])
    if image.size != (spec.size, spec.size):
        image = image.crop(box)
    return np.asarray(image)


def resized(width: int, height: int, spec: InputSpec) -> tuple[int, int]:
    """Width and height, pixels, that an image has after resizing: before the crop."""
    if spec.resize is None:
        return (width, height) if spec.crop is not None else (spec.size, spec.size)
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
    """The model's input, (n, 3, height, width) or (n, height, width, 3), from RGB pixels uint8 (n, height, width, 3).

    `dtype` is the model's: floats are `(pixel/scale - mean)/std`, computed in float64 and rounded to float32 once; uint8 and int8
    are the codes that stand for these by the input's `quantization` (scale, zero point), and without one the numbers themselves.
    Raises CardError for a card whose numbers the integers can't hold, and ModelError for any other type.
    """
    count, height, width, _ = pixels.shape
    channels = (0, 1, 2) if spec.color == "rgb" else (2, 1, 0)
    tables = lookup(spec, np.dtype(dtype), quantization)
    inputs = np.empty((count, 3, height, width) if layout == "nchw" else (count, height, width, 3), dtype)
    step = max(1, BLOCK // (height * width))
    for start in range(0, count, step):
        block = slice(start, start + step)
        for channel, source in enumerate(channels):
            plane = inputs[block, channel] if layout == "nchw" else inputs[block, :, :, channel]
            # Without mode="clip", which no uint8 needs, take makes a copy of `out`.
            np.take(tables[channel], pixels[block, :, :, source], out=plane, mode="clip")
    return inputs


def lookup(spec: InputSpec, dtype: np.dtype[Any], quantization: tuple[float, int] | None = None) -> npt.NDArray[Any]:
    """The model's number or code for each of the 256 values of a pixel in each of its channels: `dtype` (3, 256)."""
    values = np.arange(256, dtype=np.float64)
    mean, std = np.array(spec.mean)[:, None], np.array(spec.std)[:, None]
    if dtype in (np.uint8, np.int8):
        plain = spec.scale in {None, 1.0} and not mean.any() and (std == 1).all()
        numbers = np.broadcast_to((values / (1.0 if plain else spec.scale or 255.0) - mean) / std, (3, 256))
        return _codes(numbers, dtype, quantization, described(spec), plain)
    if dtype.kind != "f":
        raise ModelError(f"the model's image input has type {dtype}: must be float16, float32, float64, uint8 or int8")
    table: Floats = ((values / (spec.scale or 255.0) - mean) / std).astype(np.float32)
    return table.astype(dtype)


def described(spec: InputSpec, scale: float = 1.0) -> str:
    """The card's formula; `scale` is what holds where the card has none."""
    mean, std = (f"[{' '.join(f'{value:g}' for value in values)}]" for values in (spec.mean, spec.std))
    return f"(pixel/{spec.scale or scale:g} - {mean})/{std}"


def _codes(
    numbers: Floats, dtype: np.dtype[Any], quantization: tuple[float, int] | None, asked: str, plain: bool
) -> npt.NDArray[Any]:
    """The codes that stand for `numbers` (3, 256) in an integer input, rounded and saturated as QuantizeLinear does.

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
        return np.tile((np.arange(256) + low).astype(dtype), (3, 1))
    remedy = "set scale = 1, mean = 0 and std = 1" if dtype == np.uint8 else "set scale = 1, mean = 128 and std = 1"
    if quantization:
        held_numbers = f"numbers from {(low - zero) * step:.4g} to {(high - zero) * step:.4g}"
        raise CardError(
            f"the model's {dtype} input stands for {held_numbers} (scale {step:.4g}, zero point {zero}), but its card's [input] "
            f"asks for {asked}, from {numbers.min():.4g} to {numbers.max():.4g}: correct scale, mean and std"
        )
    raise CardError(f"the model takes {dtype} pixels as they are, but its card's [input] asks for {asked}: {remedy}")


def _offset(length: int, spec: InputSpec) -> int:
    margin = length - spec.size
    return margin // 2 if spec.rounding == "nearest" else round(margin / 2)
