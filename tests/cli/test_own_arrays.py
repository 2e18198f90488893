"""Networks that take no RGB images: grey, four channels, not square, features, rows of a table; their hits counted by hand."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import graphs, nets
from support.command import onnxnoise, refused

Array = np.ndarray[Any, Any]

QUICK = ("--snr", "10", "--draws", "2", "--provider", "cpu", "--json", "-", "--out", "run.sqlite")
RNG = np.random.default_rng(5)


def saved(shape: tuple[int, ...], *, body: str, weights: dict[str, Array], kind: str = "float") -> Any:
    """A network of 4 classes in the working folder; `body` makes `v` (N, features) of `x`."""
    features = weights.pop("features")
    given = {**weights, "head": RNG.normal(size=(4, features)).astype(np.float32)}
    declared = "".join(f", float[{','.join(map(str, value.shape))}] {name}" for name, value in given.items())
    text = f"({kind}[N,{','.join(map(str, shape))}] x{declared}) => (float[N,4] y) {{\n{body}\ny = Gemm <transB = 1> (v, head)\n}}"
    model = graphs.model(text, given)
    graphs.saved(model, Path(), "net.onnx")
    return model


CONV = "c = Conv <kernel_shape = [3, 3], strides = [2, 2]> (x, k)\nr = Relu (c)\np = GlobalAveragePool (r)\nv = Flatten (p)"


def convolution(channels: int, height: int, width: int) -> Any:
    kernel = RNG.normal(size=(6, channels, 3, 3)).astype(np.float32)
    return saved((channels, height, width), body=CONV, weights={"k": kernel, "features": 6})  # type: ignore[dict-item]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def card(more: str) -> None:
    Path("net.toml").write_text(f'[input]\ndataset = "own"\nclasses = 4\n{more}')


def held(model: Any, inputs: Array, *data: str) -> None:
    """The clean hits of `bench` are those of the labels in `labels`, counted by hand."""
    labels = np.load("labels.npy")
    expected = sum(nets.hits(graphs.run(model, inputs), labels, 1))
    result = onnxnoise("bench", "net.onnx", *QUICK, "--data", *data).json
    assert (result["clean"]["images"], result["clean"]["top1_hits"]) == (len(labels), expected)


def said(model: Any, inputs: Array) -> Array:
    """Labels that the model gives, some of them wrong, also beside the images as labels.npy."""
    labels = nets.labelled(model, inputs)
    np.save("labels.npy", labels)
    return labels


def idx(array: Array) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def test_grey_images_through_idx_and_resized_ones() -> None:
    model = convolution(1, 28, 28)
    pixels = RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8)
    inputs = ((pixels[:, None] / 255 - 0.1307) / 0.3081).astype(np.float32)
    card("size = 28\nscale = 255\nmean = 0.1307\nstd = [0.3081]")
    labels = said(model, inputs)
    Path("t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pixels)))
    Path("t10k-labels-idx1-ubyte").write_bytes(idx(labels))
    Path("train-images-idx3-ubyte").write_bytes(idx(pixels[:3]))
    for data in ("t10k-images-idx3-ubyte.gz", "."):
        held(model, inputs, data)
    np.savez("grey.npz", x=pixels[..., None], y=labels)
    held(model, inputs, "grey.npz")


def test_four_channels_not_square_as_pixels_and_as_floats() -> None:
    model = convolution(4, 12, 20)
    pixels = RNG.integers(0, 256, (24, 12, 20, 4), dtype=np.uint8)
    mean, std = [0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]
    inputs = ((pixels / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
    card(f"size = [12, 20]\nscale = 255\nmean = {mean}\nstd = {std}")
    np.savez("own.npz", x=pixels, y=said(model, inputs))
    held(model, inputs, "own.npz")
    np.save("planes.npy", np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    held(model, inputs, "planes.npy")
    card("size = [12, 20]\nscale = 1")
    np.savez("floats.npz", x=inputs, y=np.load("labels.npy"))
    held(model, inputs, "floats.npz", "--out", "floats.sqlite")
    np.savez("last.npz", x=np.ascontiguousarray(inputs.transpose(0, 2, 3, 1)), y=np.load("labels.npy"))
    held(model, inputs, "last.npz", "--out", "last.sqlite")
    card("size = [12, 20]\nscale = 255\nmean = [0.1, 0.2, 0.3]")
    refused(onnxnoise("bench", "net.onnx", "--data", "own.npz"), 3, "mean has 3 values, but the model takes 4 channels")
    card("size = [12, 20]\nscale = 255")
    refused(
        onnxnoise("bench", "net.onnx", "--data", "floats.npz"),
        *(3, "as if the card's scale = 255 had been applied already"),
    )


@pytest.mark.parametrize(
    ("shape", "stored", "body"),
    [
        ((1, 49, 10), (49, 10), CONV),
        (
            (5, 40),
            (5, 40),
            "c = Conv <kernel_shape = [5]> (x, k)\np = GlobalAveragePool (c)\nf = Flatten (p)\nv = Relu (f)",
        ),
        ((13,), (13,), "m = MatMul (x, k)\nv = Relu (m)"),
        ((16,), (4, 4), "m = MatMul (x, k)\nv = Relu (m)"),
    ],
    ids=["features", "signals", "table", "flattened"],
)
def test_arrays_of_any_rank(shape: tuple[int, ...], stored: tuple[int, ...], body: str) -> None:
    kernels = {3: (6, 1, 3, 3), 2: (6, 5, 5), 1: (*shape, 6)}
    weights: dict[str, Any] = {"k": RNG.normal(size=kernels[len(shape)]).astype(np.float32), "features": 6}
    model = saved(shape, body=body, weights=weights)
    values = RNG.normal(size=(25, *shape)).astype(np.float32)
    card("scale = 1")
    said(model, values)
    np.save("x.npy", values.reshape(25, *stored))
    held(model, values, "x.npy")
    np.save("y.npy", np.eye(4)[np.load("labels.npy")])
    Path("elsewhere").mkdir()
    Path("x.npy").rename("elsewhere/x.npy")
    held(model, values, "elsewhere/x.npy", "--labels", "y.npy", "--out", "labels.sqlite")
    np.save("wrong.npy", np.zeros((25, 7), np.float32))
    refused(
        onnxnoise("bench", "net.onnx", "--data", "wrong.npy", "--labels", "labels.npy"),
        *(3, "the shape (7) each, but net.onnx takes (", "reshape"),
    )
