"""Resizes as OpenCV's INTER_CUBIC does (a = -0.75, no antialiasing), within one level, only where the crop needs it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxnoise.records import Floats, Pixels

A = np.float32(-0.75)
ONE = np.float32(1)


def resize_cubic(pixels: Pixels, size: tuple[int, int], box: tuple[int, int, int, int]) -> Pixels:
    """Resizes uint8 (height, width, 3) to `size` (width, height); returns its part `box` (left, top, right, bottom)."""
    left, top, right, bottom = box
    rows, row_weights = taps(pixels.shape[0], size[1], top, bottom)
    columns, column_weights = taps(pixels.shape[1], size[0], left, right)
    first, last = int(columns.min()), int(columns.max())
    needed = pixels[:, first : last + 1]
    tall = np.zeros((bottom - top, needed.shape[1], 3), np.float32)
    for tap in range(4):
        tall += needed[rows[tap]] * row_weights[tap][:, None, None]
    resized = np.zeros((bottom - top, right - left, 3), np.float32)
    for tap in range(4):
        resized += tall[:, columns[tap] - first] * column_weights[tap][None, :, None]
    return np.clip(np.rint(resized), 0, 255).astype(np.uint8)


def taps(length: int, target: int, start: int, stop: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """Of positions start...stop of a line resized from `length` to `target`: 4 source positions and weights, (4, n)."""
    position = ((np.arange(start, stop) + 0.5) * (length / target) - 0.5).astype(np.float32)
    base = np.floor(position)
    x = position - base
    far, near, beyond = x + ONE, x, ONE - x
    weights = np.empty((4, stop - start), np.float32)
    weights[0] = ((A * far - 5 * A) * far + 8 * A) * far - 4 * A
    weights[1] = ((A + 2) * near - (A + 3)) * near * near + ONE
    weights[2] = ((A + 2) * beyond - (A + 3)) * beyond * beyond + ONE
    weights[3] = ONE - weights[0] - weights[1] - weights[2]
    source = base.astype(np.int64) + np.arange(-1, 3)[:, None]
    return np.clip(source, 0, length - 1), weights
