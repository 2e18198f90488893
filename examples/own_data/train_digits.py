"""Draw grey digits, train a small network on them, and export it: a classifier of one's own, in seconds, with NumPy alone.

    python examples/own_data/train_digits.py OUT

writes OUT/digits, class folders of 16 x 16 grey PNG files that the network never saw, and OUT/digits.onnx. It trains on
pixel/127.5 - 1; the card must say so, and `onnxnoise cards new` finds it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

Array = npt.NDArray[Any]

SIDE, KERNEL, STRIDE, FILTERS, CLASSES = 16, 5, 2, 12, 10
SEGMENTS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")
"""The bars of a seven-segment display that each digit lights."""
BARS = {
    "a": (0, 0, 0, 1),
    "b": (0, 1, 1, 1),
    "c": (1, 1, 2, 1),
    "d": (2, 0, 2, 1),
    "e": (1, 0, 2, 0),
    "f": (0, 0, 1, 0),
    "g": (1, 0, 1, 1),
}
"""The ends of each bar: row and column of the grid, from and to."""


def drawn(count: int, seed: int) -> tuple[Array, Array]:
    """Pixels uint8 (count, 16, 16) and labels (count,): digits of any place, size and brightness, on a noisy ground."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    images = rng.normal(60, 25, (count, SIDE, SIDE))
    for image, label in zip(images, labels, strict=True):
        top, left = rng.integers(1, 4, 2)
        tall, wide = rng.integers(4, 6), rng.integers(5, 8)
        thick, light = rng.integers(1, 3), rng.uniform(110, 180)
        for bar in SEGMENTS[label]:
            row, column, to_row, to_column = BARS[bar]
            rows = slice(top + row * tall, top + to_row * tall + thick)
            image[rows, left + column * wide : left + to_column * wide + thick] += light
    return images.clip(0, 255).astype(np.uint8), labels


def prepared(pixels: Array) -> Array:
    """The network's numbers, float32 (n, 16, 16)."""
    return (pixels / 127.5 - 1).astype(np.float32)


def patches(numbers: Array) -> Array:
    """Each place where the kernel stands: (n, places, 25)."""
    windows = np.lib.stride_tricks.sliding_window_view(numbers, (KERNEL, KERNEL), axis=(1, 2))[:, ::STRIDE, ::STRIDE]
    return windows.reshape(len(numbers), -1, KERNEL * KERNEL)


def trained(pixels: Array, labels: Array, epochs: int = 12, rate: float = 0.05, seed: int = 0) -> dict[str, Array]:
    """Weights of convolution, ReLU, dense, by stochastic gradient descent with momentum on the cross entropy."""
    rng = np.random.default_rng(seed)
    seen = patches(prepared(pixels))
    places = seen.shape[1]
    weights = {
        "kernel": rng.normal(0, 0.2, (KERNEL * KERNEL, FILTERS)),
        "kernel_bias": np.zeros(FILTERS),
        "dense": rng.normal(0, 0.05, (places * FILTERS, CLASSES)),
        "dense_bias": np.zeros(CLASSES),
    }
    speed = {name: np.zeros_like(value) for name, value in weights.items()}
    for _ in range(epochs):
        for batch in np.split(rng.permutation(len(seen)), len(seen) // 50):
            x = seen[batch]
            hidden = np.maximum(x @ weights["kernel"] + weights["kernel_bias"], 0)
            flat = hidden.reshape(len(batch), -1)
            scores = flat @ weights["dense"] + weights["dense_bias"]
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            shares[np.arange(len(batch)), labels[batch]] -= 1
            error = shares / len(batch)
            back = (error @ weights["dense"].T).reshape(hidden.shape) * (hidden > 0)
            slopes = {
                "kernel": np.einsum("npk,npf->kf", x, back),
                "kernel_bias": back.sum(axis=(0, 1)),
                "dense": flat.T @ error,
                "dense_bias": error.sum(axis=0),
            }
            for name, slope in slopes.items():
                speed[name] = 0.9 * speed[name] - rate * slope
                weights[name] += speed[name]
    return weights


def exported(weights: dict[str, Array]) -> onnx.ModelProto:
    """The network as ONNX takes it: channels first, (n, 1, 16, 16) to logits (n, 10)."""
    places = (SIDE - KERNEL) // STRIDE + 1
    dense = weights["dense"].reshape(places * places, FILTERS, CLASSES).transpose(1, 0, 2).reshape(-1, CLASSES)
    tensors = {
        "kernel": weights["kernel"].T.reshape(FILTERS, 1, KERNEL, KERNEL),
        "kernel_bias": weights["kernel_bias"],
        "dense": dense,
        "dense_bias": weights["dense_bias"],
    }
    nodes = [
        helper.make_node("Conv", ["image", "kernel", "kernel_bias"], ["c"], strides=[STRIDE, STRIDE]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "dense", "dense_bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="train_digits.py")
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def main(out: Path) -> None:
    """Train on 2,000 digits, write the network, and 300 other digits."""
    out.mkdir(parents=True, exist_ok=True)
    onnx.save(exported(trained(*drawn(2000, seed=1))), out / "digits.onnx")
    for i, (pixels, label) in enumerate(zip(*drawn(300, seed=2), strict=True)):
        folder = out / "digits" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    print(f"wrote {out / 'digits.onnx'} and 300 digits in {out / 'digits'}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/own_data/train_digits.py OUT")
    main(Path(sys.argv[1]))
