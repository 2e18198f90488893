"""Computes noisy weights value by value in float64, in blocks that stay in a processor's cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnoise.noise.base import Doubles
from onnxnoise.records import Floats

_BLOCK = 1 << 13
"""Values in a block: a dozen arrays of so many doubles fit into the second-level cache of a core."""

Formula = Callable[..., Doubles]
"""A function from blocks (weights in float64, their unit, random arrays) to noisy weights in float64."""


def by_blocks(formula: Formula, values: Floats, units: Sequence[Doubles], arrays: Sequence[npt.NDArray[Any]]) -> Floats:
    """The noisy values, float32 in the shape of `values`, of a formula that treats each value alone.

    `formula(w, *units, *arrays)` gets a block of the values and of each unit, which is broadcastable to them (a scalar stays
    one), in float64, and the block's part of each random array, float32. Its result is rounded to float32 once. Values and
    random arrays that lie in memory with their last two axes swapped are taken in that order, without copies.
    """
    swapped = values.ndim > 1 and not values.flags.c_contiguous
    laid = values.swapaxes(-1, -2) if swapped else values
    weights, *rest = (_flat(array, values.shape, swapped) for array in (values, *arrays))
    scales = [unit.reshape(1) if unit.size == 1 else _flat(unit, values.shape, swapped) for unit in units]
    noisy = np.empty(laid.shape, np.float32)
    out = noisy.reshape(-1)
    for start in range(0, out.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        scaled = (unit[0] if unit.size == 1 else unit[part] for unit in scales)
        out[part] = formula(weights[part].astype(np.float64), *scaled, *(array[part] for array in rest))
    return noisy.swapaxes(-1, -2) if swapped else noisy


def _flat(array: npt.NDArray[Any], shape: tuple[int, ...], swapped: bool) -> npt.NDArray[Any]:
    full = np.broadcast_to(array, shape)
    return (full.swapaxes(-1, -2) if swapped else full).reshape(-1)


def swapped_where(
    mask: npt.NDArray[np.bool_], one: npt.NDArray[Any], other: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """(`one` where the mask is set and else `other`, the rest): two arrays of one type, chosen by their bits.

    Several times as fast as two calls of np.where, which guesses at each value anew.
    """
    word = np.dtype(f"i{one.dtype.itemsize}")
    bits = np.negative(mask.view(np.int8), dtype=word)
    first, second = np.ascontiguousarray(one).view(word), np.ascontiguousarray(other).view(word)
    bits &= first ^ second
    return (second ^ bits).view(one.dtype), np.bitwise_xor(first, bits, out=bits).view(one.dtype)
