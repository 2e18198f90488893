from __future__ import annotations

import io
import math
import struct
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image
from support.imaging import card, encoded, picture

from onnxnoise.data.input import InputSpec
from onnxnoise.data.pixels.cubic import resize_cubic
from onnxnoise.data.pixels.decode import decode
from onnxnoise.data.pixels.preprocess import resize_and_crop, resized, to_input
from onnxnoise.errors import CardError, DataError, ModelError

# cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC) of default_rng(0).integers(0, 256, (7, 9, 3), uint8), the same
# in OpenCV 4.14 and 5.0
OPENCV = {
    (5, 4): (
        "6b889b32c71de990078e78d744b1536e92947658b3d2aadcc7b8586e928a2f38baebd116ab36a0f3323c4ea19caf364f2eb0"
        "6b831fc3be0e939b6f78"
    ),
    (13, 11): (
        "5b75cdc3bbfdc0dccf0d9f297ec761ffe267fcc70f6bc9b4738afad54294605d0f17b90411ff4331a0786e778f7b79742cc6"
        "1e6cc042ce983ee5840471b17b54a4da8d75ce6797874eac5f4bad5e10c71e253f32421e4152cc3963af359c5f2ecf4e2d65"
        "805334aca262b1e87dafff878ec3836f7037bd2b697e887f4acd5160a67c9772ccad86e286ce253a97336861d9ba79a831fb"
        "765cc563da44415b346e92b292a1ff865cd1ae948fcccb7cb8b9a15f7ab273929cc7c6809d4aa17b8a8373ff5035003b366e"
        "9f6bd7dcc9b297d5aa7da2aa3a78b300dae8a0c7e6ff5fbecb72d23a8be33f97e8965700791455bf31bdb4dbc52ae5de6db2"
        "ae97a05a65df81bdee7ab2b8674585e40060d565557ef3a412974e2cd2356eb69eb51fa7bd728971da7f16dcaf2ceeef288c"
        "fd2407b69c00617e7b341affe42b77c109c07d29d9419b874055862f0cb91420ec8345ffd943cddd2763da3e259b28605e04"
        "bb855454c9245cca396e50b07e0d6b4c201a68701fcabd308cd3247aba1ba2c664a0a66a7e7e465d1a703dab4908f760057c"
        "ca58039f12314729e21fa2ff1a13d5051ea113c1a7a4ff9ec1a08f8d20"
    ),
}
SIZES = [(375, 500), (500, 375), (256, 256), (333, 500), (97, 1000), (1000, 97), (255, 300), (400, 401), (16, 17)]


def torchvision(image: Image.Image, resize: int, crop: int, resample: Image.Resampling) -> Image.Image:
    """What torchvision's Resize(resize) and CenterCrop(crop) do to a PIL image, by its published formulas."""
    short, long = sorted(image.size)
    stretched = int(resize * long / short)
    size = (resize, stretched) if image.width <= image.height else (stretched, resize)
    image = image.resize(size, resample)
    top, left = round((image.height - crop) / 2), round((image.width - crop) / 2)
    return image.crop((left, top, left + crop, top + crop))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_resize_and_crop_as_torchvision(height, width, name):
    spec = InputSpec("imagenet", 29, resize=33, crop=29, interpolation=name, rounding="torchvision")
    image = Image.fromarray(picture(height, width))
    want = torchvision(image, 33, 29, Image.Resampling[name.upper()])
    assert (resize_and_crop(image, spec) == np.asarray(want)).all()


def test_rounding_of_the_long_side_and_of_the_crop():
    torchvisions = InputSpec("imagenet", 224, resize=256, crop=224, rounding="torchvision")
    ours = InputSpec("imagenet", 224, resize=256, crop=224)
    for height, width in [(375, 500), (500, 375), (300, 401), (401, 300), (256, 256), (231, 500), (500, 231)]:
        short = min(height, width)
        down = {short: 256, max(height, width): int(256 * max(height, width) / short)}
        nearest = {short: 256, max(height, width): math.floor(max(height, width) * 256 / short + 0.5)}
        assert resized(width, height, torchvisions) == (down[width], down[height])
        assert resized(width, height, ours) == (nearest[width], nearest[height])

    # A margin of 3 pixels: torchvision rounds 1.5 to 2, tensorpack to 1. Of 5: 2.5 to 2 and 2.
    ramp = Image.fromarray(np.repeat(np.arange(9, dtype=np.uint8)[None, :, None], 9, axis=0).repeat(3, axis=2))
    for crop, even, down in [(6, 2, 1), (4, 2, 2), (8, 0, 0), (2, 4, 3)]:
        assert resize_and_crop(ramp, InputSpec("imagenet", crop, crop=crop, rounding="torchvision"))[0, 0, 0] == even
        assert resize_and_crop(ramp, InputSpec("imagenet", crop, crop=crop))[0, 0, 0] == down


def test_without_resize_and_crop_the_image_is_stretched_as_keras_does():
    image = Image.fromarray(picture(50, 30))
    want = np.asarray(image.resize((16, 16), Image.Resampling.NEAREST))
    assert (resize_and_crop(image, InputSpec("imagenet", 16)) == want).all()
    same = Image.fromarray(picture(16, 16))
    assert (resize_and_crop(same, InputSpec("imagenet", 16)) == np.asarray(same)).all()


def test_too_small_to_crop_and_too_long_to_resize(monkeypatch):
    image = Image.fromarray(picture(20, 40))
    with pytest.raises(DataError, match=r"40 x 20 pixels are smaller than the card's crop = 24"):
        resize_and_crop(image, InputSpec("imagenet", 24, crop=24))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"40 x 20 pixels become 80 x 40: too many"):
        resize_and_crop(image, InputSpec("imagenet", 24, resize=40, crop=24))


def slow_cubic(line: np.ndarray, target: int) -> np.ndarray:
    """Cubic convolution with a = -0.75 of float64 (n, ...) along its first axis, tap by tap."""

    def weight(distance: float) -> float:
        a, x = -0.75, abs(distance)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    result = np.zeros((target, *line.shape[1:]))
    for position in range(target):
        centre = (position + 0.5) * len(line) / target - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            result[position] += weight(centre - tap) * line[min(max(tap, 0), len(line) - 1)]
    return result


@pytest.mark.parametrize("size", [(5, 4), (13, 11), (9, 7), (3, 30), (40, 2)])
def test_opencv_cubic_against_its_formula(size):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    tall = slow_cubic(pixels.astype(np.float64), size[1])
    want = np.clip(np.rint(slow_cubic(tall.transpose(1, 0, 2), size[0]).transpose(1, 0, 2)), 0, 255)
    got = resize_cubic(pixels, size, (0, 0, *size))
    assert got.dtype == np.uint8
    assert np.abs(got - want).max() <= 1
    assert (got != want).mean() < 0.01
    box = (1, 1, size[0], size[1])
    assert (resize_cubic(pixels, size, box) == got[1:, 1:]).all()


@pytest.mark.parametrize("size", OPENCV)
def test_opencv_cubic_against_opencv(size):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    want = np.frombuffer(bytes.fromhex(OPENCV[size]), np.uint8).reshape(size[1], size[0], 3)
    assert np.abs(resize_cubic(pixels, size, (0, 0, *size)).astype(int) - want).max() <= 1


@pytest.mark.parametrize(("height", "width"), [*SIZES, (31, 47), (224, 224), (1200, 900)])
def test_tensorpack_s_resize_and_crop_against_opencv(height, width, tmp_path):
    spec = card(tmp_path, '[input]\ndataset = "imagenet"\npreset = "tensorpack"').input
    random = np.random.default_rng(height + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for pixels in (picture(height, width), random):
        scale = 256 / min(height, width)  # tensorpack's ResizeShortestEdge, then CenterCrop
        size = (256, int(scale * height + 0.5)) if width < height else (int(scale * width + 0.5), 256)
        whole = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
        top, left = (whole.shape[0] - 224) // 2, (whole.shape[1] - 224) // 2
        want = whole[top : top + 224, left : left + 224].astype(int)
        difference = np.abs(resize_and_crop(Image.fromarray(pixels), spec) - want)
        assert difference.max() <= 1
        assert difference.mean() < 0.1


def test_the_tensorpack_preset_resizes_then_crops(tmp_path):
    spec = card(tmp_path, '[input]\ndataset = "imagenet"\npreset = "tensorpack"').input
    image = Image.fromarray(picture(300, 401))
    whole = resize_cubic(np.asarray(image), (342, 256), (0, 0, 342, 256))
    assert (resize_and_crop(image, spec) == whole[16:240, 59:283]).all()


MODES = {
    "grey": Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)),
    "grey with alpha": Image.fromarray(picture(8, 8)).convert("LA"),
    "palette": Image.fromarray(picture(8, 8)).quantize(7),
    "alpha": Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)),
    "black and white": Image.fromarray(picture(8, 8)).convert("1"),
    "cmyk": Image.fromarray(picture(8, 8)).convert("CMYK"),
    "ycbcr": Image.fromarray(picture(8, 8)).convert("YCbCr"),
}


@pytest.mark.parametrize(("mode", "form"), [(mode, "TIFF") for mode in MODES] + [("cmyk", "JPEG")])
def test_every_kind_of_image_becomes_rgb_as_pillow_converts_it(mode, form):
    content = io.BytesIO()
    MODES[mode].save(content, form)
    want = np.asarray(Image.open(content).convert("RGB"))
    assert (decode(content.getvalue(), "x", InputSpec("imagenet", 8)) == want).all()


GREY = np.arange(0, 256, 4, dtype=np.uint16).reshape(8, 8)


def tiff(values: np.ndarray, bits: int, kind: int = 1, *, white_is_zero: bool = False) -> bytes:
    """A TIFF of one channel and any number of bits; `kind` 1 is unsigned, 2 signed, 3 floats."""
    tags = {256: 8, 257: 8, 258: bits, 259: 1, 262: int(not white_is_zero), 273: 8 + 2 + 12 * 10 + 4, 277: 1, 278: 8}
    data = values.tobytes()
    entries = b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in (tags | {279: len(data), 339: kind}).items()
    )
    return struct.pack("<4sIH", b"II*\0", 8, 10) + entries + bytes(4) + data


def packed_12_bits(values: np.ndarray) -> np.ndarray:
    bits = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)
    return np.packbits(bits[:, 4:])


@pytest.mark.parametrize(
    "content",
    [
        encoded(GREY * 257, "PNG"),
        encoded(GREY * 257, "TIFF"),
        tiff((GREY * 257).astype("<u2"), 16),
        tiff((65535 - GREY * 257).astype("<u2"), 16, white_is_zero=True),
        tiff(packed_12_bits(GREY << 4 | GREY >> 4), 12),
        b"P5 8 8 65535\n" + (GREY * 257).astype(">u2").tobytes(),
        b"P6 8 8 65535\n" + np.repeat(GREY[..., None] * 257, 3, 2).astype(">u2").tobytes(),
    ],
    ids=["png", "tiff", "little endian", "white is zero", "12 bits", "pgm", "ppm"],
)
def test_more_than_8_bits_keep_black_and_white(content: bytes) -> None:
    pixels = decode(content, "x", InputSpec("imagenet", 8))
    assert (pixels == np.repeat(GREY[..., None], 3, axis=2)).all()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (tiff(GREY.astype("<f4"), 32, 3), "its pixels are floats"),
        (tiff(GREY.astype("<u4"), 32), "its pixels are .*32-bit integers"),
        (tiff(GREY.astype("<i4"), 32, 2), "its pixels are .*32-bit integers"),
        (tiff(GREY.astype("<i2"), 16, 2), "its pixels are signed"),
        (b"Pf\n8 8\n-1.0\n" + GREY.astype("<f4").tobytes(), "its pixels are floats"),
    ],
    ids=["floats", "unsigned", "signed 32", "signed 16", "pfm"],
)
def test_pixels_of_an_unknown_range_are_refused_by_name(content: bytes, found: str) -> None:
    with pytest.raises(DataError, match=rf"^image x: {found}.*8 or 16 bits"):
        decode(content, "image x", InputSpec("imagenet", 8))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_formats(form):
    content = encoded(picture(8, 8), form)
    assert (
        decode(content, "x", InputSpec("imagenet", 8)) == np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    ).all()


def test_orientation_tags_are_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = io.BytesIO()
    Image.fromarray(picture(8, 8)).save(content, "JPEG", exif=exif)
    plain = encoded(picture(8, 8))
    assert (
        decode(content.getvalue(), "x", InputSpec("imagenet", 8)) == decode(plain, "x", InputSpec("imagenet", 8))
    ).all()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", r"x\.jpg: is empty"),
        (b"<html>not found</html>", r"x\.jpg: is an HTML page: the download got a web page"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", r"x\.jpg: is no image"),
        (encoded(picture(64, 64))[:600], r"x\.jpg: is damaged or truncated"),
        (encoded(picture(64, 64), "PNG")[:600], r"x\.jpg: is damaged or truncated"),
        (encoded(picture(64, 64), "PNG").replace(b"IDAT", b"IDAX"), r"x\.jpg: is no image .*header is damaged"),
        (encoded(picture(64, 64), "GIF")[:50], r"x\.jpg: "),
    ],
    ids=["empty", "html", "postscript", "jpeg", "png", "png chunk", "gif"],
)
def test_what_can_t_be_decoded(content, expected):
    with pytest.raises(DataError, match=expected):
        decode(content, "x.jpg", InputSpec("imagenet", 8))


@pytest.mark.parametrize("limit", [4000, 3000, 100])
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_decompression_bomb(monkeypatch, limit, action):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(DataError, match=r"x\.jpg: is too large to be decoded safely: .*pixels"):
            decode(encoded(picture(64, 64)), "x.jpg", InputSpec("imagenet", 8))


def test_no_mutation_of_an_image_raises_anything_but_data_error():
    rng = np.random.default_rng(0)
    spec = InputSpec("imagenet", 8)
    for form in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"):
        original = encoded(picture(24, 24), form)
        for _ in range(60):
            content = bytearray(original)
            for _ in range(3):
                content[rng.integers(len(content))] = rng.integers(256)
            try:
                assert decode(bytes(content), "x", spec).shape == (8, 8, 3)
            except DataError as error:
                assert str(error).startswith("x: ")  # noqa: PT017 (most mutations decode)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("shape", [(3, 5, 7, 3), (70, 32, 32, 3), (2, 300, 300, 3), (0, 4, 4, 3)])
def test_to_input(layout, color, dtype, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    spec = InputSpec("imagenet", 8, color=color, scale=127.5, mean=(0.4, 0.5, 1.6), std=(0.2, 0.3, 0.7))
    arranged = pixels if color == "rgb" else pixels[..., ::-1]
    want = ((arranged.astype(np.float64) / 127.5 - [0.4, 0.5, 1.6]) / [0.2, 0.3, 0.7]).astype(np.float32).astype(dtype)
    got = to_input(pixels, spec, layout, dtype)
    assert (got.dtype, got.flags.c_contiguous) == (dtype, True)
    assert np.array_equal(got, want.transpose(0, 3, 1, 2) if layout == "nchw" else want)


def test_to_input_is_within_a_rounding_of_float32_arithmetic():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    spec = InputSpec("imagenet", 8, scale=255.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    naive = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    assert np.abs(to_input(pixels, spec, "nhwc", np.float32) - naive).max() < 5e-7


@pytest.mark.parametrize("scale", [None, 1.0])
def test_uint8_inputs_take_the_pixels_as_they_are(scale):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    got = to_input(pixels, InputSpec("imagenet", 8, color="bgr", scale=scale), "nhwc", np.uint8)
    assert got.dtype == np.uint8
    assert (got == pixels[..., ::-1]).all()
    got = to_input(pixels, InputSpec("imagenet", 8, scale=scale), "nchw", np.uint8)
    assert (got == pixels.transpose(0, 3, 1, 2)).all()


def test_scale_is_255_where_the_card_says_none():
    white = np.full((1, 1, 1, 3), 255, np.uint8)
    assert to_input(white, InputSpec("cifar10", 32), "nchw", np.float32).tolist() == [[[[1.0]], [[1.0]], [[1.0]]]]


@pytest.mark.parametrize("change", [{"scale": 255.0}, {"mean": (0.0, 0.0, 1.0)}, {"std": (1.0, 2.0, 1.0)}])
def test_uint8_inputs_with_numbers_in_the_card_are_refused(change):
    with pytest.raises(CardError, match=r"takes uint8 pixels as they are.*set scale = 1, mean = 0 and std = 1"):
        to_input(np.zeros((1, 2, 2, 3), np.uint8), InputSpec("imagenet", 8, **change), "nhwc", np.uint8)


def test_other_input_types_are_refused():
    with pytest.raises(
        ModelError, match="image input has type int64: must be float16, float32, float64, uint8 or int8"
    ):
        to_input(np.zeros((1, 2, 2, 3), np.uint8), InputSpec("imagenet", 8), "nhwc", np.int64)


CARDS = {
    "as they are": InputSpec("imagenet", 8),
    "pixel": InputSpec("imagenet", 8, scale=1),
    "unit": InputSpec("imagenet", 8, scale=255),
    "tf": InputSpec("imagenet", 8, scale=127.5, mean=(1, 1, 1)),
    "centred": InputSpec("imagenet", 8, scale=1, mean=(128, 128, 128)),
}


@pytest.mark.parametrize(
    ("asked", "dtype", "quantization", "codes"),
    [
        ("pixel", np.int8, (1.0, -128), [-128, -127, 0, 127]),
        ("as they are", np.int8, (1.0, -128), [-128, -127, 0, 127]),
        ("unit", np.int8, (1 / 255, -128), [-128, -127, 0, 127]),
        ("as they are", np.int8, (1 / 255, -128), [-128, -127, 0, 127]),
        ("tf", np.int8, (1 / 127.5, -1), [-128, -127, -1, 127]),
        ("tf", np.uint8, (1 / 128, 128), [0, 1, 129, 255]),
        ("pixel", np.uint8, (1 / 128, 128), [0, 1, 128, 255]),
        ("unit", np.uint8, (1 / 255, 0), [0, 1, 128, 255]),
        ("pixel", np.uint8, (2.0, 10), [10, 10, 74, 138]),
        ("centred", np.int8, None, [-128, -127, 0, 127]),
    ],
)
def test_an_integer_input_gets_the_codes_of_the_card_s_numbers(asked, dtype, quantization, codes):
    pixels = np.array([0, 1, 128, 255], np.uint8).reshape(1, 1, 4, 1).repeat(3, axis=3)
    spec = CARDS[asked]
    got = to_input(pixels, spec, "nhwc", dtype, quantization)
    assert got.dtype == dtype
    assert got[0, 0, :, 0].tolist() == codes
    if quantization and asked not in ("as they are", "pixel"):
        step, zero = quantization
        numbers = (np.array([0, 1, 128, 255]) / spec.scale - spec.mean[0]) / spec.std[0]
        assert np.abs(step * (got[0, 0, :, 0].astype(float) - zero) - numbers).max() <= step + 1e-9


@pytest.mark.parametrize(
    ("asked", "dtype", "quantization", "found"),
    [
        (
            "tf",
            np.int8,
            (1 / 255, -128),
            r"int8 input stands for numbers from 0 to 1 \(scale 0\.003922, zero point -128\).*-1 to 1",
        ),
        ("unit", np.uint8, None, "takes uint8 pixels as they are, .* set scale = 1, mean = 0"),
        ("pixel", np.int8, None, "takes int8 pixels as they are, .* set scale = 1, mean = 128"),
    ],
)
def test_numbers_that_an_integer_input_does_not_hold_are_refused(asked, dtype, quantization, found):
    with pytest.raises(CardError, match=found):
        to_input(np.zeros((1, 2, 2, 3), np.uint8), CARDS[asked], "nhwc", dtype, quantization)
