"""Decodes one image file, by its content, to the pixels that the card asks for."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from onnxnoise.data.input import InputSpec
from onnxnoise.data.pixels.preprocess import MODES, max_pixels, resize_and_crop
from onnxnoise.errors import DataError
from onnxnoise.formats import bad_download
from onnxnoise.records import Pixels

# No others: Pillow would start Ghostscript for an EPS, for example.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
"""TIFF's tags."""


def decode(content: bytes, name: str, spec: InputSpec) -> Pixels:
    """Pixels uint8 (height, width, channels) of an image file's bytes, grey or RGB as the model's channels are.

    Orientation tags are ignored and colours become grey as in torchvision (ITU-R 601).

    Grey images of 9 to 16 bits keep their highest 8, as Pillow does with colours. Raises DataError, which begins
    with `name`, for bytes that aren't an image, are truncated or damaged, and for an image that is too large, smaller than the
    crop, or of floats or 32-bit integers.
    """
    if not content:
        raise DataError(f"{name}: is empty")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > max_pixels():
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels, over {max_pixels()}")
            return resize_and_crop(_eight_bits(image).convert(_mode(spec)), spec)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name}: is too large to be decoded safely: {error}") from error
    except UnidentifiedImageError as error:
        if found := bad_download(content[:512]):
            raise DataError(f"{name}: {found}") from None
        raise DataError(f"{name}: is no image ({', '.join(FORMATS)}), or its header is damaged") from error
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them stumble on
        raise DataError(f"{name}: is damaged or truncated and can't be decoded: {error}") from error


def _mode(spec: InputSpec) -> str:
    """Pillow's mode for the model's channels. Raises DataError, without the file's name, where no image file has so many."""
    if spec.channels not in MODES:
        wanted = "arrays that are no images" if spec.channels is None else f"images of {spec.channels} channels"
        raise DataError(
            f"is an image file, grey or in colour, but the model takes {wanted}: give those as .npz or .npy"
        )
    return MODES[spec.channels]


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image with at most 8 bits a channel: Pillow itself cuts off what is above 255.

    Raises DataError, without the file's name, for numbers whose range the file doesn't say.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0] if image.mode.startswith("I;16") else 16
    if (
        not (image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")))
        or not 8 < bits <= 16
    ):
        numbers = "floats" if image.mode == "F" else "signed or 32-bit integers"
        raise DataError(
            f"its pixels are {numbers} (Pillow's mode {image.mode}), and nothing says which of them are black and white: "
            "save it with 8 or 16 bits a channel"
        )
    values = np.asarray(image)
    grey = (values >> (bits - 8)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(255 - grey if tags.get(_PHOTOMETRIC) == 0 else grey)
