"""Arrays of images: every way to store them gives the same images, and what can't be used is said without loading it."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.imaging import card, records, write

from onnxnoise.data.images import open_images
from onnxnoise.data.sources import rows
from onnxnoise.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(23) % 3


def opened(data: Path, more: str = "", classes: object = 3):
    text = f'[input]\ndataset = "signs"\nclasses = {json.dumps(classes)}\n'
    return open_images(data, card(data.parent, text + (more or "size = 8")))


def npz(folder: Path, **members: Any) -> Path:
    np.savez(folder / "a.npz", **members)
    return folder / "a.npz"


def npy(array: np.ndarray, **options: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array, **options)
    return content.getvalue()


def zipped(folder: Path, members: dict[str, bytes], form: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(folder / "a.npz", "w", form) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return folder / "a.npz"


@pytest.mark.parametrize(
    "names",
    [("x", "y"), ("x_test", "y_test"), ("test_images", "test_labels"), ("images", "labels"), ("arr_0", "arr_1")],
)
@pytest.mark.parametrize("labels", [LABELS, LABELS.astype(np.uint8)[:, None], np.eye(3, dtype=np.float32)[LABELS]])
def test_names_of_arrays_and_forms_of_labels(tmp_path: Path, names: tuple[str, str], labels: np.ndarray) -> None:
    more = {"x_train": IMAGES[:2], "y_train": LABELS[:2]}
    source = opened(npz(tmp_path, **{names[0]: IMAGES, names[1]: labels}, **more))
    (chunk,) = source.chunks([range(23)])
    assert (chunk.pixels == IMAGES).all()
    assert chunk.labels.dtype == np.int64
    assert (chunk.labels == LABELS).all()
    assert (source.name, source.classes, source.highest_label, len(source)) == ("signs", 3, 2, 23)


def test_the_digest_is_of_pixels_and_labels_however_they_are_stored(tmp_path: Path) -> None:
    digest = opened(npz(tmp_path, x=IMAGES, y=LABELS)).digest
    np.savez_compressed(tmp_path / "b.npz", images=IMAGES, labels=LABELS.astype(np.int16))
    np.save(tmp_path / "c.npy", IMAGES)
    np.save(tmp_path / "labels.npy", LABELS)
    (tmp_path / "any").write_bytes((tmp_path / "a.npz").read_bytes())
    for name in ("b.npz", "c.npy", "any"):
        source = opened(tmp_path / name, "size = 8\nlabel_offset = 1")
        assert source.digest == digest
        chunks = list(source.chunks([range(20, 23), range(4, 4), range(2, 9)]))
        assert [(chunk.start, len(chunk.pixels)) for chunk in chunks] == [(20, 3), (4, 0), (2, 7)]
        assert (chunks[2].pixels == IMAGES[2:9]).all()
        assert (chunks[2].labels == LABELS[2:9] + 1).all()
        assert opened(tmp_path / name).digest == pickle.loads(pickle.dumps(source)).digest
    assert opened(npz(tmp_path, x=IMAGES, y=(LABELS + 1) % 3)).digest != digest
    assert opened(npz(tmp_path, x=IMAGES ^ 1, y=LABELS)).digest != digest


def test_other_sizes_go_through_the_card_s_geometry_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BLOCK_BYTES", 1000)
    wide = np.random.default_rng(0).integers(0, 256, (9, 8, 12, 3), dtype=np.uint8)
    source = opened(npz(tmp_path, x=wide, y=LABELS[:9]), 'size = 16\ninterpolation = "bilinear"')
    chunks = list(source.chunks([range(5), range(5, 9)], threads=2))
    for position, image in enumerate(wide):
        want = Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR)
        assert (chunks[position // 5].pixels[position % 5] == np.asarray(want)).all()
    with pytest.raises(DataError, match=r"a\.npz: x\.npy: 12 x 8 pixels are smaller than the card's crop = 9"):
        next(opened(tmp_path / "a.npz", "crop = 9").chunks([range(1)]))


def test_a_known_data_set_s_arrays_are_its_records(tmp_path: Path) -> None:
    content = records(30)
    pixels = np.ascontiguousarray(content[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    found = card(tmp_path, '[input]\ndataset = "cifar10"')
    write(tmp_path, {"test_batch.bin": content.tobytes()})
    for source in (open_images(tmp_path, found), open_images(npz(tmp_path, x=pixels, y=content[:, 0]), found)):
        (chunk,) = source.chunks([range(30)])
        assert (chunk.pixels == pixels).all()
        assert (chunk.labels == content[:, 0]).all()


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (
            {"x": IMAGES},
            r"a\.npz: has no images with labels: expected x_test and y_test, .*; found x\. Images without labels go with",
        ),
        (
            {"x": IMAGES / 255, "y": LABELS},
            r"x\.npy: its numbers are floats up to 1, and the card doesn't say whether they are scaled: write scale = 1",
        ),
        ({"x": IMAGES[:, 0, 0], "y": LABELS}, r"x\.npy: is uint8 \(23, 3\); images must be"),
        ({"x": IMAGES.astype(np.int64), "y": LABELS}, r"x\.npy: is int64 \(23, 8, 8, 3\); images must be uint8"),
        ({"x": IMAGES > 9, "y": LABELS}, r"x\.npy: is bool"),
        (
            {"x": IMAGES[..., :2], "y": LABELS},
            r"x\.npy: is uint8 \(23, 8, 8, 2\); images must .* the model's 3 channels, RGB",
        ),
        ({"x": IMAGES[:0], "y": LABELS[:0]}, r"x\.npy: is uint8 \(0, 8, 8, 3\) and has no images"),
        ({"x": np.asfortranarray(IMAGES), "y": LABELS}, r"x\.npy: is in Fortran order: save numpy\.ascontiguousarray"),
        (
            {"x": np.array([{}, 1], object), "y": LABELS},
            r"x\.npy: holds pickled Python objects, which are never loaded",
        ),
        (
            {"x": IMAGES, "y": LABELS[:-1]},
            r"y\.npy: is int64 \(22,\); the labels of 23 images must be \(23,\), or one-hot",
        ),
        ({"x": IMAGES, "y": LABELS.astype(float)}, r"y\.npy: labels are float64; they must be integers"),
        ({"x": IMAGES, "y": LABELS + 1}, r"y\.npy: image 2 has label 3; those of signs are 0 to 2"),
        ({"x": IMAGES, "y": LABELS - 1}, r"y\.npy: image 0 has label -1"),
        ({"x": IMAGES, "y": np.array(["a"] * 23)}, r"y\.npy: labels are <U1"),
        ({"x": IMAGES, "y": np.zeros((23, 3))}, r"y\.npy: row 0 is not one-hot"),
        ({"x": IMAGES, "y": np.full((23, 3), np.nan)}, r"y\.npy: row 0 is not one-hot"),
    ],
)
def test_arrays_that_can_t_be_used(tmp_path: Path, members: dict[str, np.ndarray], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        opened(npz(tmp_path, **members))


def header(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": dtype, "fortran_order": False, "shape": shape})
    return content.getvalue()


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (b"no array", r"x\.npy: can't be read as an array, or is damaged"),
        (npy(IMAGES)[:-1], r"x\.npy: ends before row 23 of 23: is it truncated\?"),
        (header((23, 10**6, 10**6, 3)), r"more than \d+ pixels an image are too many"),
        (header((23, -8, 8, 3)) + bytes(9999), r"has no images"),
        (header((10**30, 8, 8, 3)), r"the labels of 10{30} images"),
    ],
)
def test_headers_are_not_believed(tmp_path: Path, x: bytes, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        opened(zipped(tmp_path, {"x.npy": x, "y.npy": npy(LABELS)}))


def test_a_billion_labels_are_not_read(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"x.npy": header((10**9, 8, 8, 3)), "y.npy": header((10**9,), "<i8")})
    with pytest.raises(DataError, match=r"y\.npy: more than 1024 MiB of labels"):
        opened(path)


def test_damaged_files(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=IMAGES, y=LABELS)
    whole = (tmp_path / "a.npz").read_bytes()
    for content in (whole[:-40], whole[:2000], b"", b"PK\x03\x04"):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.npz: can't be read as NumPy's arrays, or is damaged or truncated"):
            opened(tmp_path / "a.npz")
    rng = np.random.default_rng(0)
    for _ in range(200):
        content = bytearray(whole)
        for position in rng.integers(len(content), size=3):
            content[position] = rng.integers(256)
        (tmp_path / "a.npz").write_bytes(content)
        with contextlib.suppress(DataError):
            list(opened(tmp_path / "a.npz").chunks([range(3)]))


def test_an_npy_without_its_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    with pytest.raises(DataError, match=r"x\.npy: an array of images needs its labels beside it, as labels\.npy"):
        opened(tmp_path / "x.npy")
    np.save(tmp_path / "labels.npy", LABELS)
    with pytest.raises(DataError, match=r"labels\.npy: an array of images needs its labels beside it"):
        opened(tmp_path / "labels.npy")


def test_a_zip_that_is_something_else(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"a.txt": b"x"}).rename(tmp_path / "a.zip")
    with pytest.raises(DataError, match=r"a\.zip: not recognized as images of signs.*begin with b'PK"):
        opened(path)


def test_packed_bombs_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BOMB_BYTES", 1 << 20)
    zeros = np.zeros((3, 800, 800, 3), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", x=zeros, y=LABELS[:3])
    with pytest.raises(DataError, match=r"x\.npy: [\d,]+ bytes would become 5,760,\d+: no images are packed so well"):
        opened(tmp_path / "a.npz")
    head = struct.pack(">HBB4I", 0, 8, 4, *zeros.shape)
    (tmp_path / "t10k-images-idx4-ubyte.gz").write_bytes(gzip.compress(head + zeros.tobytes()))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 3) + bytes(3))
    with pytest.raises(DataError, match=r"images-idx4-ubyte\.gz: [\d,]+ bytes would become"):
        opened(tmp_path / "t10k-images-idx4-ubyte.gz")


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_floats_must_be_finite(tmp_path: Path, kind: type[np.floating[Any]], bad: float) -> None:
    values = np.random.default_rng(0).random((23, 8, 8, 3)).astype(kind)
    values[17, 3, 2, 1] = bad
    with pytest.raises(DataError, match=r"x\.npy: image 17 has NaN or infinite numbers"):
        opened(npz(tmp_path, x=values, y=LABELS), "scale = 1")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (LABELS + 1, "image 2 has label 3; .*they run from 1 up, .*subtract 1. Or is their class 0 a background class"),
        (
            np.arange(23) % 4,
            "image 3 has label 3; .*one class more than there should be: has the data a background class",
        ),
        (np.eye(4)[LABELS], r"one-hot \(23, 3\); is one of the classes a background class"),
    ],
)
def test_labels_that_are_off_by_one(tmp_path: Path, labels: np.ndarray, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        opened(npz(tmp_path, x=IMAGES, y=labels))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(9, 6, 10), (9, 6, 10, 1), (9, 6, 10, 3)])
def test_grey_and_colour_become_the_model_s_channels_as_pillow_converts(
    tmp_path: Path, shape: tuple[int, ...], channels: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    text = '[input]\ndataset = "signs"\nclasses = 3\nsize = [6, 10]'
    source = open_images(npz(tmp_path, x=pixels, y=LABELS[:9]), card(tmp_path, text), channels=channels)
    (chunk,) = source.chunks([range(9)])
    for position, image in enumerate(pixels):
        picture = Image.fromarray(image[..., 0] if image.shape[-1:] == (1,) else image)
        want = np.asarray(picture.convert("L" if channels == 1 else "RGB")).reshape(6, 10, channels)
        assert (chunk.pixels[position] == want).all()


def test_a_pickle_by_the_name_of_an_array_is_named_and_not_loaded(tmp_path: Path) -> None:
    content = pickle.dumps({"x": IMAGES, "y": LABELS})
    for name in ("a.npy", "a.npz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}: holds pickled Python objects, which are never loaded"):
            opened(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("x.npy", content)
        archive.writestr("y.npy", content)
    with pytest.raises(DataError, match=r"b\.npz: x\.npy: holds pickled Python objects"):
        opened(tmp_path / "b.npz")
