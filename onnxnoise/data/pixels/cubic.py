"""Resizes as OpenCV's INTER_CUBIC does (a = -0.75, no antialiasing), within one level, only where the crop needs it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxnoise.records import Floats, Pixels

A = np.float32(-0.75)
ONE = np.float32(1)
BLOCK = 32


def resize_cubic(pixels: Pixels, size: tuple[int, int], box: tuple[int, int, int, int]) -> Pixels:
    """Resizes uint8 (height, width, channels) to `size` (width, height); returns its part `box` (left, top, right, bottom)."""
    left, top, right, bottom = box
    rows, row_weights = taps(pixels.shape[0], size[1], top, bottom)
    columns, column_weights = taps(pixels.shape[1], size[0], left, right)
    first, last = int(columns.min()), int(columns.max())
    needed, columns = pixels[:, first : last + 1], columns - first
    channels = pixels.shape[2]
    each_channel = np.repeat(column_weights, channels, axis=1).reshape(4, 1, right - left, channels)
    resized = np.empty((bottom - top, right - left, channels), np.uint8)
    # a few rows at a time, in the same memory: they stay in the cache
    tall, tall_part = np.empty((2, BLOCK, needed.shape[1], channels), np.float32)
    wide, wide_part = np.empty((2, BLOCK, right - left, channels), np.float32)
    for start in range(0, bottom - top, BLOCK):
        block = slice(start, min(start + BLOCK, bottom - top))
        count = block.stop - start
        high, broad = tall[:count], wide[:count]
        for tap in range(4):
            part = tall_part[:count] if tap else high
            np.multiply(needed[rows[tap, block]], row_weights[tap, block, None, None], out=part)
            if tap:
                high += part
        for tap in range(4):
            part = wide_part[:count] if tap else broad
            np.take(high, columns[tap], axis=1, out=part, mode="clip")  # without mode, take copies `out`
            part *= each_channel[tap]
            if tap:
                broad += part
        resized[block] = np.clip(np.rint(broad, out=broad), 0, 255, out=broad)
    return resized


def taps(length: int, target: int, start: int, stop: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """The 4 source positions and weights, each (4, n), of positions start...stop in a line resized from `length` to `target`."""
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
