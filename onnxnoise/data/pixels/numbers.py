"""Turns arrays that are no pictures into the model's input: numbers of any rank, as they are or by the card's formula."""

from __future__ import annotations

from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from onnxnoise.data.input import InputSpec
from onnxnoise.data.pixels.preprocess import MOST_SATURATED, described, mean_and_std
from onnxnoise.errors import CardError
from onnxnoise.records import Shape

Array = npt.NDArray[Any]
_INTEGERS = (np.uint8, np.int8)


def arranged(shape: tuple[int, ...], wanted: Shape) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The way from an array of `shape` to the model's `wanted` one, both without the images' dimension; None where there is none.

    It is (the order of axes, then the shape): the shape as it is, dimensions of one element added or left out, channels moved
    from last to first or back where only that fits, or all numbers in one row.
    """
    same = tuple(range(len(shape)))
    orders = [same, *([(2, 0, 1), (1, 2, 0)] if len(shape) == 3 else [])]
    for axes in orders:
        moved = tuple(shape[axis] for axis in axes)
        if _fits(moved, wanted):
            return axes, moved
    long, needed = [side for side in shape if side != 1], [side for side in wanted if side != 1]
    if _fits(tuple(long), tuple(needed)):
        found = iter(long)
        return same, tuple(1 if side == 1 else next(found) for side in wanted)
    if len(wanted) == 1 and wanted[0] in (None, prod(shape)):
        return same, (prod(shape),)
    return None


def to_numbers(
    values: Array,
    spec: InputSpec,
    wanted: Shape,
    layout: Literal["nchw", "nhwc"],
    dtype: npt.DTypeLike,
    quantization: tuple[float, int] | None = None,
) -> Array:
    """The model's input from `values` (n, ...), which `arranged` finds a way for; `wanted` is the model's shape without n.

    Floats are `(x/scale - mean)/std`, computed in float64 and rounded to float32 once, unless the card asks for the numbers as
    they are. An integer input gets the codes that stand for them; codes of its own type pass as they are. Raises CardError for
    a card whose numbers the integers can't hold.
    """
    kind = np.dtype(dtype)
    axes, shape = arranged(values.shape[1:], wanted) or (tuple(range(values.ndim - 1)), values.shape[1:])
    values = values.transpose(0, *(axis + 1 for axis in axes)).reshape(len(values), *shape)
    if spec.plain and (values.dtype == kind or (kind.kind == "f" and spec.scale)):
        return np.ascontiguousarray(values, kind)
    mean, std = mean_and_std(spec)
    if len(shape) == 3 and layout == "nchw":
        mean, std = mean[:, None, None], std[:, None, None]
    scale = spec.scale or (255.0 if values.dtype == np.uint8 and kind.kind == "f" else 1.0)
    numbers = (values.astype(np.float64) / scale - mean) / std
    if kind not in _INTEGERS:
        return np.ascontiguousarray(numbers.astype(np.float32).astype(kind))
    step, zero = quantization or (1.0, 0)
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    codes = np.rint(numbers / step) + zero
    held = codes.clip(low, high)
    if (np.abs(codes - held) > 1).mean() > MOST_SATURATED or quantization is None:
        stands = (
            f"numbers from {(low - zero) * step:.4g} to {(high - zero) * step:.4g}" if quantization else "its codes"
        )
        raise CardError(
            f"the model's {kind} input takes {stands}, but the data's are {values.dtype} from {values.min():.4g} to "
            f"{values.max():.4g}, which the card's [input] makes {described(spec, scale)}: correct the card, or give {kind} codes"
        )
    return np.ascontiguousarray(held.astype(kind))


def _fits(shape: tuple[int, ...], wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(each in (None, side) for side, each in zip(shape, wanted, strict=True))
