"""Makes the small cards, images, records and archives that the tests of cards and images read."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from onnxnoise.data.cards import Card, load_card
from onnxnoise.records import ImageChunk, Pixels


def card(folder: Path, text: str) -> Card:
    path = folder / "card.toml"
    path.write_text(text)
    return load_card(path)


def cifar_card(folder: Path, dataset: str = "cifar10", more: str = "") -> Card:
    return card(folder, f'[input]\ndataset = "{dataset}"\n{more}')


def imagenet_card(folder: Path, size: int = 8, more: str = "") -> Card:
    return card(folder, f'[input]\ndataset = "imagenet"\nsize = {size}\n{more}')


def records(count: int, label_counts: tuple[int, ...] = (10,), seed: int = 0) -> npt.NDArray[np.uint8]:
    """CIFAR records uint8 (count, labels + 3072), every label used in turn."""
    rng = np.random.default_rng(seed)
    content = rng.integers(0, 256, (count, len(label_counts) + 3072), dtype=np.uint8)
    for column, labels in enumerate(label_counts):
        content[:, column] = np.arange(count) % labels
    return content


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    """Smooth enough to survive JPEG: uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels: npt.NDArray[np.uint8], form: str = "JPEG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, form)
    return content.getvalue()


def flat_color(level: int, side: int = 8) -> bytes:
    """A PNG of one grey level, by which a test knows the image again."""
    return encoded(np.full((side, side, 3), level, np.uint8), "PNG")


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def levels(chunks: list[ImageChunk]) -> list[int]:
    """The grey level of each image of `flat_color`."""
    return [int(pixels[0, 0, 0]) for chunk in chunks for pixels in chunk.pixels]
