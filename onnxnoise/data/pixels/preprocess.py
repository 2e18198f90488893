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
    pixels: Pixels, spec: InputSpec, layout: Literal["nchw", "nhwc"], dtype: npt.DTypeLike
) -> npt.NDArray[Any]:
    """The model's input, (n, 3, height, width) or (n, height, width, 3), from RGB pixels uint8 (n, height, width, 3).

    `dtype` is the model's: floats are `(pixel/scale - mean)/std`, computed in float64 and rounded to float32 once;
    uint8 takes the pixels as they are. Raises CardError for a card whose numbers uint8 can't hold, and ModelError for any
    other type.
    """
    count, height, width, _ = pixels.shape
    channels = (0, 1, 2) if spec.color == "rgb" else (2, 1, 0)
    tables = lookup(spec, np.dtype(dtype))
    inputs = np.empty((count, 3, height, width) if layout == "nchw" else (count, height, width, 3), dtype)
    step = max(1, BLOCK // (height * width))
    for start in range(0, count, step):
        block = slice(start, start + step)
        for channel, source in enumerate(channels):
            plane = inputs[block, channel] if layout == "nchw" else inputs[block, :, :, channel]
            # Without mode="clip", which no uint8 needs, take makes a copy of `out`.
            np.take(tables[channel], pixels[block, :, :, source], out=plane, mode="clip")
    return inputs


def lookup(spec: InputSpec, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The model's number for each of the 256 values of a pixel in each of the model's channels: `dtype` (3, 256)."""
    values = np.arange(256, dtype=np.float64)
    if dtype == np.uint8:
        if spec.scale not in {None, 1.0} or spec.mean != (0, 0, 0) or spec.std != (1, 1, 1):
            raise CardError(
                "the model takes uint8 pixels as they are, but its card's [input] asks for "
                f"(pixel/{spec.scale or 1:g} - {list(spec.mean)})/{list(spec.std)}: set scale = 1, mean = 0 and std = 1"
            )
        return np.tile(values.astype(np.uint8), (3, 1))
    if dtype.kind != "f":
        raise ModelError(f"the model's image input has type {dtype}: must be float16, float32, float64 or uint8")
    mean, std = np.array(spec.mean)[:, None], np.array(spec.std)[:, None]
    table: Floats = ((values / (spec.scale or 255.0) - mean) / std).astype(np.float32)
    return table.astype(dtype)


def _offset(length: int, spec: InputSpec) -> int:
    margin = length - spec.size
    return margin // 2 if spec.rounding == "nearest" else round(margin / 2)
