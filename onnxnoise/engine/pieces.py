"""The pieces of a network, ready to run: sessions that the variants of all chunks share, as far as memory allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.helper import tensor_dtype_to_np_dtype

from onnxnoise.engine.moulds import Mould
from onnxnoise.engine.segments import Cutter
from onnxnoise.engine.values import Piece, Types, Values
from onnxnoise.errors import ModelError
from onnxnoise.model.network import Network
from onnxnoise.runtime import session
from onnxnoise.runtime.base import CPU, Provider
from onnxnoise.runtime.session import Session, Value

Array = npt.NDArray[Any]
Noisy = Mapping[str, Array | Value]
"""The noisy constants of a variant by name; they are on the provider's device where they are inputs of a session."""

_LARGE_BYTES = 128 << 20
"""Bytes of weights beyond which only one session of a network may be in memory at a time."""

_KEPT_BYTES = 64 << 20
"""Bytes of constants in the clean sessions that are kept."""

_SESSION_BYTES = 64 << 10
"""Bytes that a session takes besides its constants."""

_FIRST_USES = 3
"""Uses of a noisy piece before a mould is made of it, which takes as long as three sessions."""


class Pieces:
    """The pieces of one network on one provider, of any positions and types of the values there.

    `lifted` makes the noisy constants inputs of a session (default: on a device, where making a session takes longer than a
    run). Elsewhere they are constants of it, so that ONNX Runtime fuses and lays out the nodes as it would in the whole graph;
    when a piece is used again and again, a mould gives the same bits without making a session.
    """

    def __init__(self, network: Network, provider: Provider, *, lifted: bool | None = None) -> None:
        self.network, self.provider = network, provider
        self.lifted = provider.shares_sessions if lifted is None else lifted
        self.cutter = Cutter(network)
        self.large = sum(value.nbytes for value in network.constants.values()) > _LARGE_BYTES
        self._types: dict[Hashable, dict[int, Types]] = {}
        self._kept: dict[Hashable, Piece] = {}
        self._kept_bytes = 0
        self._uses: Counter[Hashable] = Counter()
        self._moulds: dict[Hashable, Mould | None] = {}
        self._shared: tuple[Hashable, Session] | None = None

    def types_of(self, images: Values) -> dict[int, Types]:
        """The types of the values at each position, as far as they are known, where `images` is the first mini-batch."""
        first = session.types(images)
        return self._types.setdefault(_key(first), {0: first})

    def clean(self, start: int, stop: int, types: Types, *, prepacked: bool = False) -> Piece:
        """The piece of nodes [start, stop) without noise; `types` are those of the values at `start`."""
        key = (start, stop, _key(types), prepacked)
        if key in self._kept:
            return self._kept[key]
        segment = self.cutter.segment(start, stop, types)
        piece = Piece(Session(segment.stub, segment.references, self.provider, prepacked=prepacked))
        size = _SESSION_BYTES + sum(array.nbytes for array in segment.references.values())
        if not self.large and self._kept_bytes + size <= _KEPT_BYTES:
            self._kept[key] = piece
            self._kept_bytes += size
        return piece

    def noisy(self, start: int, stop: int, types: Types, noisy: Noisy) -> Piece:
        """The piece of nodes [start, stop) with these noisy constants."""
        key = (start, stop, _key(types), tuple(noisy))
        if self.lifted:
            if self._shared is None or self._shared[0] != key:
                segment = self.cutter.segment(start, stop, types, lifted=session.types(noisy))
                self._shared = key, Session(segment.stub, segment.references, self.provider)
            return Piece(self._shared[1], noisy)
        if mould := self._moulds.get(key):
            return mould.piece(noisy, self.provider)
        segment = self.cutter.segment(start, stop, types, replaced=noisy)
        piece = Piece(Session(segment.stub, segment.references, self.provider))
        self._uses[key] += 1
        if self._uses[key] == _FIRST_USES and self.provider.name == CPU and not self.large:
            mould = Mould.of(segment, noisy, self.network.constants, self.provider)
            checked = mould is not None and _same(mould.piece(noisy, self.provider), piece, types, self.provider)
            self._moulds[key] = mould if checked else None
        return piece


def _key(types: Types) -> Hashable:
    return tuple(types.items())


def _same(one: Piece, other: Piece, types: Types, provider: Provider) -> bool:
    """Whether two pieces make the same values, to the bit, of one mini-batch of random ones."""
    rng = np.random.default_rng(0)
    feeds = {}
    for name, (kind, shape) in types.items():
        values = rng.standard_normal(shape, np.float32) if kind == onnx.TensorProto.FLOAT else rng.integers(0, 2, shape)
        feeds[name] = session.to_device(values.astype(tensor_dtype_to_np_dtype(kind)), provider)
    try:
        made = [{name: session.to_host(value) for name, value in piece.run(feeds).items()} for piece in (one, other)]
    except ModelError:  # random values need not be possible ones
        return False
    return all(np.array_equal(made[0][name], made[1][name], equal_nan=True) for name in other.session.outputs)
