"""The preprocessings that people use, each as keys of a card: those that a file's name tells, and all that are worth a try."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from onnxnoise.data.input import IMAGENET_MEAN, IMAGENET_STD, PRESETS

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081
GEOMETRY, NUMBERS = ("size", "resize", "crop", "interpolation"), ("color", "scale", "mean", "std")
"""Keys of a card that say how an image gets the input's size, and which numbers stand for a pixel."""


@dataclass(frozen=True)
class Hint:
    """Keys of a card's `[input]` with their values, and where they are from."""

    source: str
    keys: Mapping[str, Any]

    @property
    def numbers(self) -> dict[str, Any]:
        """The keys that say which numbers stand for a pixel."""
        return {key: self._whole[key] for key in NUMBERS if key in self._whole}

    @property
    def geometry(self) -> dict[str, Any]:
        """The keys that say how an image gets the input's size."""
        return {key: self._whole[key] for key in GEOMETRY if key in self._whole}

    @property
    def _whole(self) -> dict[str, Any]:
        """The keys with a preset filled in."""
        preset = PRESETS.get(self.keys.get("preset", ""))
        if preset is None:
            return dict(self.keys)
        side = "crop" if preset.resize else "size"
        known: dict[str, Any] = {
            side: preset.size,
            "resize": preset.resize,
            "interpolation": preset.interpolation,
            "color": preset.color,
        }
        known |= {"scale": preset.scale, "mean": list(preset.mean), "std": list(preset.std)}
        return {key: value for key, value in {**known, **self.keys}.items() if value is not None and key != "preset"}


_TORCHVISION = re.compile(
    r"alexnet|vgg(11|13|16|19)(_bn)?|resnet(18|34|50|101|152)|resnext50_32x4d|resnext101_(32x8d|64x4d)|wide_resnet(50|101)_2"
    r"|densenet(121|161|169|201)|squeezenet1_[01]|googlenet|shufflenet_v2_x[012]_[05]|mobilenet_v2|mobilenet_v3_(large|small)"
    r"|mnasnet[01]_\d+"
)
"""Names of torchvision whose first weights were tested on the centre 224 of images resized to 256, bilinear."""

_KERAS = {
    "keras-caffe": re.compile(r"vgg1[69]|resnet_?(50|101|152)"),
    "keras-tf": re.compile(
        r"mobilenet(_?v2)?|inception_?v3|inception_?resnet_?v2|xception|nasnet_?(mobile|large)|resnet_?\d+_?v2"
    ),
    "keras-torch": re.compile(r"densenet_?(121|169|201)"),
}
"""Names of keras.applications by the mode of their `preprocess_input`."""


def by_name(name: str, layout: str | None) -> Hint | None:
    """A preset by the name of a model's file: Keras' mode for channels last, else torchvision's; None for other names."""
    plain = re.sub(r"[-. ]", "_", name.lower())
    if layout != "nhwc" and _TORCHVISION.fullmatch(plain):
        return Hint(f"the name {name}, which is torchvision's", {"preset": "torchvision"})
    for preset, names in _KERAS.items():
        if layout != "nchw" and names.fullmatch(plain):
            return Hint(f"the name {name}, which is of keras.applications", {"preset": preset})
    return None


AS_THEY_ARE = Hint("the numbers as they are", {"scale": 1, "mean": 0, "std": 1})
"""The first way for arrays that are no pictures."""


def usual_numbers(channels: int, side: int | None) -> Iterator[Hint]:
    """The numbers that models with so many channels and pixels a side are usually trained on, the commonest first."""
    yield Hint("pixel/255", {"scale": 255, "mean": 0, "std": 1})
    if channels == 3 and side is not None and side <= 64:
        yield Hint("pixel/255, CIFAR-10 mean/std", _three(255, CIFAR_MEAN, CIFAR_STD))
    if channels == 3:
        yield Hint("pixel/255, ImageNet mean/std", _three(255, IMAGENET_MEAN, IMAGENET_STD))
    yield Hint("pixel/127.5 - 1", {"scale": 127.5, "mean": 1, "std": 1})
    yield Hint("pixels from 0 to 255", {"scale": 1, "mean": 0, "std": 1})
    if channels == 1:
        yield Hint("pixel/255, MNIST mean/std", {"scale": 255, "mean": MNIST_MEAN, "std": MNIST_STD})
    yield Hint("pixel - 128", {"scale": 1, "mean": 128, "std": 1})
    if channels == 3:
        caffe = list(PRESETS["keras-caffe"].mean)
        yield Hint("Caffe's: BGR less the mean", {"color": "bgr", "scale": 1, "mean": caffe, "std": 1})
        yield Hint("BGR pixel/255", {"color": "bgr", "scale": 255, "mean": 0, "std": 1})
        yield Hint("BGR pixels from 0 to 255", {"color": "bgr", "scale": 1, "mean": 0, "std": 1})
        yield Hint(
            "BGR pixel/255, ImageNet mean/std",
            {"color": "bgr", **_three(255, IMAGENET_MEAN[::-1], IMAGENET_STD[::-1])},
        )


def usual_of_arrays(channels: int, side: int | None, values: npt.NDArray[Any]) -> Iterator[Hint]:
    """The ways for arrays that are no pictures: as they are, then those of pixels where `values` may be pixels in floats.

    These go from 0 to 255, or have been divided by that already. The order of their channels is not changed.
    """
    yield AS_THEY_ARE
    if not channels or values.dtype.kind != "f" or values.min() < 0 or values.max() > 255:
        return
    divided = values.max() <= 1
    for hint in usual_numbers(channels, side):
        if "color" not in hint.keys:
            source = f"{hint.source} (they are pixel/255)" if divided else hint.source
            yield Hint(source, {**hint.keys, "scale": hint.keys["scale"] / (255 if divided else 1)})


def stretched(size: int | list[int], way: str = "") -> Hint:
    """Images stretched to a size, by the usual interpolation or the one named `way`."""
    return Hint(
        f"stretched, {way}" if way else "the input's size", {"size": size} | ({"interpolation": way} if way else {})
    )


def usual_geometries(side: int) -> Iterator[Hint]:
    """The ways in which images usually get to a side of so many pixels: the centre of slightly larger ones, or stretched."""
    larger = round(side / 0.875)
    for way in ("bilinear", "bicubic"):
        yield Hint(f"shorter side {larger}, {way}, centre", {"resize": larger, "crop": side, "interpolation": way})
    yield stretched(side, "bilinear")
    yield stretched(side, "nearest")


def _three(scale: float, mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    return {"scale": scale, "mean": list(mean), "std": list(std)}
