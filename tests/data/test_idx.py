"""IDX files: which of a folder's sets is taken, where its labels are, and what can't be used."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from support.imaging import card, write

from onnxnoise.data.images import open_images
from onnxnoise.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
LABELS = np.arange(20) % 3
IMAGES, TRUTH = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()


FILES = {IMAGES: idx(PIXELS), TRUTH: idx(LABELS.astype(np.uint8))}


def opened(data: Path):
    folder = data.parent if data.suffix or data.is_file() else data
    text = '[input]\ndataset = "digits"\nclasses = 3\nsize = 8\nscale = 255'
    return open_images(data, card(folder.parent, text), channels=1)


def test_every_place_of_the_same_files(tmp_path: Path) -> None:
    packed = {f"{name}.gz": gzip.compress(content) for name, content in FILES.items()}
    dotted = {name.replace("-idx", ".idx"): content for name, content in FILES.items()}
    train = {"train-images-idx3-ubyte": idx(PIXELS[:2]), "train-labels-idx1-ubyte": idx(np.zeros(2, np.uint8))}
    made = {
        "plain": FILES | train,
        "packed": packed | train,
        "dotted": dotted,
        "mixed": {IMAGES: FILES[IMAGES]} | packed,
    }
    made["raw"] = {f"raw/{name}": content for name, content in FILES.items()}
    made["torchvision"] = {f"MNIST/raw/{name}": content for name, content in FILES.items()}
    for name, files in made.items():
        source = opened(write(tmp_path / name, files))
        chunks = list(source.chunks([range(3, 20), range(0, 3)], threads=2))
        assert (chunks[0].pixels[..., 0] == PIXELS[3:]).all(), name
        assert (chunks[1].pixels[..., 0] == PIXELS[:3]).all()
        assert (source.labels == LABELS).all()


def test_other_types_of_numbers(tmp_path: Path) -> None:
    floats = np.random.default_rng(0).random((20, 8, 8)).astype(">f4")
    files = {IMAGES: idx(floats, 0x0D), TRUTH: idx(LABELS.astype(">i4"), 0x0C)}
    text = '[input]\ndataset = "digits"\nclasses = 3\nscale = 1'
    source = open_images(write(tmp_path / "d", files), card(tmp_path, text), channels=1)
    (chunk,) = source.chunks([range(20)])
    assert (chunk.pixels == floats).all()
    assert (chunk.labels == LABELS).all()


@pytest.mark.parametrize(
    ("files", "data", "expected"),
    [
        ({IMAGES: FILES[IMAGES]}, ".", rf"{IMAGES}: its labels are not beside it: looked for {TRUTH}, {TRUTH}.gz"),
        (FILES, TRUTH, f"{TRUTH}: holds labels, not images"),
        (FILES | {IMAGES: FILES[IMAGES][:-1]}, ".", f"{IMAGES}: ends before row 20 of 20: is it truncated"),
        (
            FILES | {f"{IMAGES}.gz": gzip.compress(FILES[IMAGES])[:-99]},
            f"{IMAGES}.gz",
            "damaged or truncated|is it trunc",
        ),
        (FILES | {TRUTH: idx(LABELS[:-1].astype(np.uint8))}, ".", r"is uint8 \(19,\); the labels of 20 images"),
        (FILES | {TRUTH: idx((LABELS + 1).astype(np.uint8))}, ".", "image 2 has label 3; .*they run from 1 up"),
        (FILES | {IMAGES: b"no header"}, IMAGES, f"{IMAGES}: is no IDX file, or its header is damaged"),
        (
            FILES | {"emnist-letters-test-images-idx3-ubyte": FILES[IMAGES]},
            *(".", r"holds the images of 2 sets \(emnist-letters.*pass the file of one"),
        ),
    ],
)
def test_files_that_can_t_be_used(tmp_path: Path, files: dict[str, bytes], data: str, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        opened(write(tmp_path / "d", files) / data)
