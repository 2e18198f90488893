"""A tiny residual classifier of CIFAR-sized images, data that it classifies, and the slow way to run it with noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from support import graphs

Array = npt.NDArray[Any]
Weights = dict[str, Array]

EPSILON = 1e-5
LAYERS = {
    "stem": ("stem_weight",),
    "stem_bn": ("stem_bn_gamma", "stem_bn_beta", "stem_bn_moving_mean", "stem_bn_moving_var"),
    "block": ("block_weight",),
    "block_bn": ("block_bn_gamma", "block_bn_beta", "block_bn_moving_mean", "block_bn_moving_var"),
    "head": ("head_weight", "head_bias"),
}
"""The noise layers in canonical order, each with its initializers in the order of their roles."""


def weights(classes: int = 10, channels: int = 6, seed: int = 0) -> Weights:
    """Of `residual`, before `classifying` makes it use every class."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0) -> Array:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    values = {"stem_weight": normal(channels, 3, 8, 8, scale=0.2)}
    values["block_weight"] = normal(channels, channels, 3, 3, scale=0.2)
    for bn in ("stem_bn", "block_bn"):
        values[f"{bn}_gamma"] = 1 + normal(channels, scale=0.3)
        values[f"{bn}_beta"] = normal(channels, scale=0.3)
        values[f"{bn}_moving_mean"] = normal(channels, scale=0.3)
        values[f"{bn}_moving_var"] = 0.3 + np.abs(normal(channels))
    return {**values, "head_weight": normal(classes, channels), "head_bias": normal(classes, scale=0.1)}


def residual(
    values: Mapping[str, Array],
    *,
    batch: int | str = "N",
    nhwc_uint8: bool = False,
    softmax: bool = False,
    folded: bool = False,
) -> onnx.ModelProto:
    """conv, bn, relu, conv, bn, add, relu, pool, dense: from images (batch, 3, 32, 32) to logits (batch, classes).

    With `nhwc_uint8` the image is uint8 (batch, 32, 32, 3) and divided by 255 inside. With `folded` there is no batch norm,
    and the convolutions have a bias (`stem_bias`, `block_bias`).
    """
    given = dict(values)
    body = []
    if nhwc_uint8:
        given["unit"] = np.float32(1 / 255).reshape(1)
        body += ["f = Cast <to = 1> (image)", "t = Transpose <perm = [0, 3, 1, 2]> (f)", "x = Mul (t, unit)"]
    for name, data, attributes in (
        ("stem", "x" if nhwc_uint8 else "image", "kernel_shape = [8, 8], strides = [8, 8]"),
        ("block", "a", "kernel_shape = [3, 3], pads = [1, 1, 1, 1]"),
    ):
        bias, out = (f", {name}_bias", f"{name}_normed") if folded else ("", f"{name}_out")
        body.append(f"{out} = Conv <{attributes}> ({data}, {name}_weight{bias})")
        if not folded:
            tensors = ", ".join(LAYERS[f"{name}_bn"])
            body.append(f"{name}_normed = BatchNormalization <epsilon = {EPSILON:f}> ({out}, {tensors})")
        body += ["a = Relu (stem_normed)"] if name == "stem" else ["s = Add (a, block_normed)", "b = Relu (s)"]
    body += ["p = GlobalAveragePool (b)", "v = Flatten (p)", "z = Gemm <transB = 1> (v, head_weight, head_bias)"]
    if softmax:
        body.append("y = Softmax <axis = 1> (z)")
    image = f"uint8[{batch}, 32, 32, 3] image" if nhwc_uint8 else f"float[{batch}, 3, 32, 32] image"
    declared = [f"float[{', '.join(map(str, value.shape))}] {name}" for name, value in given.items()]
    lines = "\n".join(body)
    output = f"float[{batch}, {len(given['head_bias'])}] {'y' if softmax else 'z'}"
    return graphs.model(f"({', '.join([image, *declared])}) => ({output}) {{\n{lines}\n}}", given)


def pictures(count: int, seed: int = 1) -> npt.NDArray[np.uint8]:
    """Coarse random colors, uint8 (count, 32, 32, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def as_input(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What the card of `bench_files` says: pixel / 255, NCHW."""
    return np.ascontiguousarray((pixels.transpose(0, 3, 1, 2) / 255).astype(np.float32))


def balanced(values: Weights, pixels: npt.NDArray[np.uint8]) -> Weights:
    """The same with a head that spreads `pixels` over its classes."""
    scores = graphs.run(residual(values), as_input(pixels))
    spread = 1 / scores.std(axis=0)
    head = (values["head_weight"] * spread[:, None]).astype(np.float32)
    return {
        **values,
        "head_weight": head,
        "head_bias": ((values["head_bias"] - scores.mean(axis=0)) * spread).astype(np.float32),
    }


def labelled(model: onnx.ModelProto, inputs: Array, wrong: float = 0.2, seed: int = 2) -> npt.NDArray[np.int64]:
    """What the model says, but for a share of wrong labels."""
    scores = graphs.run(model, inputs)
    labels = scores.argmax(axis=1)
    rng = np.random.default_rng(seed)
    moved = (labels + rng.integers(1, scores.shape[1], len(labels))) % scores.shape[1]
    chosen: npt.NDArray[np.int64] = np.where(rng.random(len(labels)) < wrong, moved, labels)
    return chosen


def records(pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> bytes:
    """CIFAR-10 records: one label byte, then three planes."""
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    return np.concatenate([labels.astype(np.uint8)[:, None], planes], axis=1).tobytes()


CARD = '[input]\ndataset = "cifar10"\nscale = 255\n'


@dataclass(frozen=True)
class Files:
    """A model with its card beside it, and CIFAR-10 records that it classifies."""

    model: Path
    data: Path
    weights: Weights
    inputs: Array
    labels: npt.NDArray[np.int64]


def bench_files(folder: Path, count: int = 40, **options: Any) -> Files:
    """Written to `folder`: tiny.onnx, tiny.toml, test_batch.bin; `options` as `residual` takes them."""
    pixels = pictures(count)
    values = balanced(weights(), pixels)
    model = residual(values, **options)
    inputs = pixels if options.get("nhwc_uint8") else as_input(pixels)
    labels = labelled(residual(values), as_input(pixels))
    path = graphs.saved(model, folder, "tiny.onnx")
    (folder / "tiny.toml").write_text(CARD)
    (folder / "test_batch.bin").write_bytes(records(pixels, labels))
    return Files(path, folder / "test_batch.bin", values, inputs, labels)


def copied(files: Files, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with copies of good files, to be spoiled."""
    for file in (files.model, files.data, files.model.with_suffix(".toml")):
        (folder / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(folder)
    return folder


def saved(model: onnx.ModelProto) -> None:
    """Put another model in the place of the working folder's."""
    Path("tiny.onnx").write_bytes(model.SerializeToString())


def changed(change: Callable[[onnx.ModelProto], None]) -> None:
    """Edit the working folder's model."""
    model = onnx.load("tiny.onnx")
    change(model)
    saved(model)


def noisy(
    values: Weights, snr: float, draw: int, layers: Mapping[int, tuple[str, ...]], seed: int = 40, pooled: bool = False
) -> Weights:
    """The noise by hand: the initializers of some layers (canonical index to names in the order of their roles) perturbed."""
    changed = dict(values)
    for index, names in layers.items():
        together = np.concatenate([values[name].ravel() for name in names]).astype(np.float64)
        for role, name in enumerate(names):
            value = values[name]
            sigma = (together if pooled else value.astype(np.float64)).std()
            if value.astype(np.float64).std() == 0:
                continue
            stream = np.random.SeedSequence(entropy=seed, spawn_key=(draw, index, role))
            z = np.random.Generator(np.random.Philox(stream)).standard_normal(value.shape, dtype=np.float32)
            changed[name] = value + np.float32(sigma / snr) * z
    return changed


def hits(scores: Array, labels: npt.NDArray[np.int64], most: int) -> list[bool]:
    """The rule by hand, image by image: is the label among the `most` best, ties to the lowest index, only if all is finite?"""
    right = []
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        finite = all(abs(score) < float("inf") for score in row)
        best = sorted(range(len(row)), key=lambda i: (-row[i], i))[:most] if finite else []
        right.append(label in best)
    return right
