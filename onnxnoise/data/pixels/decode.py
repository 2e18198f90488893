"""Decodes one image file, by its content, to the pixels that the card asks for."""

from __future__ import annotations

import io

from PIL import Image, UnidentifiedImageError

from onnxnoise.data.input import InputSpec
from onnxnoise.data.pixels.preprocess import max_pixels, resize_and_crop
from onnxnoise.errors import DataError
from onnxnoise.records import Pixels

# No others: Pillow would start Ghostscript for an EPS, for example.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


def decode(content: bytes, name: str, spec: InputSpec) -> Pixels:
    """Pixels uint8 RGB (size, size, 3) of an image file's bytes; orientation tags are ignored, as in torchvision.

    Raises DataError, which begins with `name`, for bytes that aren't an image, are truncated or damaged, and for an image that
    is too large or smaller than the crop.
    """
    if not content:
        raise DataError(f"{name}: is empty")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > max_pixels():
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels, over {max_pixels()}")
            return resize_and_crop(image.convert("RGB"), spec)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name}: is too large to be decoded safely: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: is no image ({', '.join(FORMATS)}), or its header is damaged") from error
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them stumble on
        raise DataError(f"{name}: is damaged or truncated and can't be decoded: {error}") from error
