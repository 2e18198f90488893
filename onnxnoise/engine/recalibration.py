"""Recomputes the means and variances that a chip's batch norms see, layer after layer, on images that are not measured."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnoise.engine.segments import Cutter
from onnxnoise.engine.values import Piece, Values, only
from onnxnoise.errors import ModelError
from onnxnoise.model.network import Network
from onnxnoise.runtime import session
from onnxnoise.runtime.base import Provider
from onnxnoise.runtime.session import Session

Array = npt.NDArray[Any]

_KEPT = 4096
"""The most chips whose statistics are kept for the next chunks of images: a few thousand numbers each."""


@dataclass(frozen=True)
class BatchNorm:
    """A batch norm with statistics: the position of its node, its input, and the names of its mean and its variance."""

    position: int
    data: str
    mean: str
    variance: str


def batch_norms(network: Network, model: str) -> list[BatchNorm]:
    """The batch norms of a network in canonical order; raises ModelError, naming `model`, where it has none with statistics."""
    found = []
    for position, node in enumerate(network.nodes):
        if node.op_type == "BatchNormalization" and set(node.input[3:5]) <= network.constants.keys():
            found.append(BatchNorm(position, *(node.input[i] for i in (0, 3, 4))))
    if not found:
        raise ModelError(
            f"{model}: --compensate bn: the file has no batch norm with a mean and a variance: they were merged into other "
            "layers when it was exported, or there were none; export it with its batch norms kept (`onnxnoise layers` says how), "
            "or leave --compensate bn out"
        )
    return found


class Recalibration:
    """The statistics of a network's batch norms for the noise of any chip, by what it does to them on calibration images.

    `batches` are the model's inputs for the images, mini-batches of one size; the last one is filled up, and `count` images
    count. Each batch norm in turn, through all noisy layers and corrected batch norms before it, sees a mean m' and a variance v'
    of each channel, where the clean network's sees m and v. The file's mean becomes mean + m' - m, its variance variance v' / v:
    what the batch norm would see of the images of its training, which are cropped and padded as calibration images are not.
    Without noise nothing changes. What was computed for a `key` is kept.
    """

    def __init__(
        self, network: Network, norms: Sequence[BatchNorm], provider: Provider, batches: Sequence[Array], count: int
    ) -> None:
        self.network, self.norms, self.provider, self.batches, self.count = network, norms, provider, batches, count
        self._cutter = Cutter(network)
        self._clean: list[_Moments] | None = None
        self._kept: OrderedDict[Hashable, dict[str, Array]] = OrderedDict()

    def statistics(self, key: Hashable, noisy: Mapping[str, Any], lanes: ThreadPoolExecutor) -> dict[str, Array]:
        """The means and variances by the names of their constants, with the `noisy` constants of a chip in place."""
        if key not in self._kept:
            if self._clean is None:
                self._clean = [seen for _, seen in self._pass({}, {}, lanes)]
            found: dict[str, Array] = {}
            for (norm, seen), clean in zip(self._pass(noisy, found, lanes), self._clean, strict=True):
                mean, variance = (self.network.constants[name] for name in (norm.mean, norm.variance))
                found[norm.mean] = _stored(mean + (seen.mean - clean.mean).reshape(mean.shape))
                found[norm.variance] = _stored(variance * _ratio(seen.variance, clean.variance).reshape(variance.shape))
            self._kept[key] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return self._kept[key]

    def _pass(
        self, noisy: Mapping[str, Any], found: Mapping[str, Array], lanes: ThreadPoolExecutor
    ) -> Iterator[tuple[BatchNorm, _Moments]]:
        """Yield what each batch norm sees in turn; `found` has the statistics of those before it, and grows meanwhile."""
        image = self.network.image.name
        values: list[Values] = [{image: session.to_device(batch, self.provider)} for batch in self.batches]
        position = 0
        for norm in self.norms:
            if norm.position > position:
                values = list(lanes.map(self._onward(position, norm.position, values[0], {**noisy, **found}), values))
                position = norm.position
            yield norm, self._moments([each[norm.data] for each in values])

    def _onward(self, start: int, stop: int, first: Values, replaced: Mapping[str, Any]) -> Callable[[Values], Values]:
        segment = self._cutter.segment(start, stop, session.types(first), replaced=replaced)
        piece = Piece(Session(segment.stub, segment.references, self.provider))
        names = self._cutter.live(stop)
        return lambda values: only(piece.run(values), names)

    def _moments(self, values: Sequence[Any]) -> _Moments:
        """The mean and the population variance of each channel, axis 1, over the images that count."""
        size, left = 0, self.count
        total = squares = np.zeros(1)
        for value in values:
            array = session.to_host(value)[:left].astype(np.float64)
            left -= len(array)
            rows = np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)
            size += rows.shape[1]
            total = total + rows.sum(axis=1)
            squares = squares + np.einsum("ij,ij->i", rows, rows)
        mean = total / size
        return _Moments(mean, np.maximum(squares / size - mean**2, 0.0))


@dataclass(frozen=True)
class _Moments:
    """The mean and the population variance of each channel that a batch norm sees; float64, (channels,)."""

    mean: npt.NDArray[np.float64]
    variance: npt.NDArray[np.float64]


def _ratio(noisy: npt.NDArray[np.float64], clean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The variances over the clean ones; 1 for a channel that never varies on the clean network."""
    return np.divide(noisy, clean, out=np.ones_like(clean), where=clean > 0)


def _stored(values: npt.NDArray[Any]) -> Array:
    return values.astype(np.float32)
