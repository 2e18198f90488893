"""Bit flips: each bit of a stored weight flips with a probability."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnoise.errors import UsageError
from onnxnoise.noise.base import ByNormals, Doubles, Drawn, Weights
from onnxnoise.noise.blocks import by_blocks
from onnxnoise.noise.uniform import Words, probability, uniform_words, words_below
from onnxnoise.records import Codes, Floats

FLOAT = 32
"""The number of bits that stands for the float32 weights themselves."""


class Bitflip(ByNormals):
    """Errors in the bits of weights that lie in a digital memory, as two's complement of `bits` bits or as float32."""

    name = "bitflip"
    level = probability(
        "the probability that a bit flips",
        "0.001 is one bit in a thousand",
        "all bits",
        "flipped bits",
        (0.0001, 0.001, 0.01, 0.1),
    )
    formula = (
        "q = rint(w/a n) with a = max|w|, n = 2^(bits-1) - 1, as two's complement in `bits` bits (2 to 16, 8 unless given); "
        "bit i, 0 the lowest, flips where u_i < p, u of shape (..., bits); w' = q a/n. bits=32: the bits of "
        "the float32 weight itself. The integer weights of a quantized (QDQ) file of as many bits are flipped as they lie there"
    )
    source = "Stutz et al., MLSys 2021, random bit errors"
    omits = "bits of the activations, errors that come in bursts or in columns, error-correcting codes"

    def __init__(self, bits: float = 8) -> None:
        if bits != FLOAT and bits not in range(2, 17):
            raise UsageError(
                f"--noise: bitflip:bits={bits:g} is not known; give 2 to 16, or 32 for the bits of float32"
            )
        self._bits = int(bits)

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Drawn:
        """One array of uniform numbers of shape (..., bits), as the words of which their float32 are made."""
        return (uniform_words(random, (*shape, self._bits)),)

    def at(self, weights: Weights, drawn: Drawn, level: float) -> Floats:
        """The weights of the flipped codes; with `bits=32` they may be infinite or no numbers, as flipped bits make them."""
        bits, values = self._bits, weights.values
        flips = _flips(drawn[0], level)
        if bits == FLOAT:
            return (np.ascontiguousarray(values).view(np.uint32) ^ flips).view(np.float32)
        if weights.codes is not None and weights.codes.bits == bits:
            return _stored(weights.codes, values, flips)
        n = 2.0 ** (bits - 1) - 1

        def formula(w: Doubles, unit: Any, flipped: npt.NDArray[np.uint32]) -> Doubles:
            w /= np.where(unit > 0, unit, 1.0)
            w *= n
            codes = np.rint(w, out=w).astype(np.int32)
            codes ^= flipped.view(np.int32)
            codes <<= 32 - bits  # and back: the sign is the highest of the bits
            codes >>= 32 - bits
            w[:] = codes
            w *= unit
            w /= n
            return w

        return by_blocks(formula, values, [weights.largest], [flips])


def _stored(codes: Codes, values: Floats, flips: npt.NDArray[np.uint32]) -> Floats:
    """The weights of a quantized file whose codes, as they lie there, are flipped."""
    flipped = codes.of(values) ^ flips.view(np.int32)
    unused = 32 - codes.bits
    if codes.signed:
        flipped = (flipped << unused) >> unused
    return codes.weights(flipped)


def _flips(words: Words, p: float) -> npt.NDArray[np.uint32]:
    """The masks of flipped bits of each value, of the shape of `words` without its last axis: bit i flips where u_i < p."""
    *shape, bits = words.shape
    flips = words_below(words, p)
    if bits in (8, 16, FLOAT):
        packed = np.packbits(flips.reshape(-1), bitorder="little").view(f"<u{bits // 8}")
        return packed.reshape(shape).astype(np.uint32)
    masks = np.zeros(shape, np.uint16)
    for i in reversed(range(bits)):
        masks <<= 1
        masks |= flips[..., i]
    return masks.astype(np.uint32)


MODEL = Bitflip
