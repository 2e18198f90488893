"""Reads the draws of a place from a run file of either design, as chunks that each met one draw: what a gate bets on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxnoise.data.dealing import Positions, permutation
from onnxnoise.errors import RunFileError
from onnxnoise.noise.models import deterministic
from onnxnoise.records import Tally
from onnxnoise.results.question import is_dealt
from onnxnoise.results.run_hits import RunHits
from onnxnoise.results.tallies import meetings
from onnxnoise.statistics.betting import Array, dealt_afterwards
from onnxnoise.words import Metric, Sweep


@dataclass(frozen=True, eq=False)
class Draws:
    """The draws of one place: their `numbers`, and their hits and clean hits as shares of images, averaged over layers.

    Where every draw met all images, `hits` and `clean` are (draws, images), in the order in which images are dealt; where
    each met a chunk of its own they are (draws, 1), and `sizes` (draws,) has the images of each chunk, `starts` its first
    position.
    """

    numbers: tuple[int, ...]
    hits: Array
    clean: Array
    sizes: Array
    starts: tuple[int, ...] = ()

    @property
    def crossed(self) -> bool:
        """Whether every draw met all images."""
        return not self.starts

    @property
    def accuracy(self) -> float:
        """The share of images that are hits, over all draws."""
        return float((self.hits.mean(axis=1) * self.sizes).sum() / self.sizes.sum())

    @property
    def clean_accuracy(self) -> float:
        """The share of the same images that are hits without noise."""
        return float((self.clean.mean(axis=1) * self.sizes).sum() / self.sizes.sum())

    def met(self, images: int) -> bool:
        """Whether each of so many images has met a draw."""
        return self.crossed or sum(dict(zip(self.starts, self.sizes.tolist(), strict=True)).values()) >= images

    def chosen(self, numbers: Sequence[int]) -> Draws:
        """The draws of these numbers, in their order."""
        rows = [self.numbers.index(number) for number in numbers]
        starts = tuple(self.starts[row] for row in rows) if self.starts else ()
        return Draws(tuple(numbers), self.hits[rows], self.clean[rows], self.sizes[rows], starts)

    def on_chunks_of(self, other: Draws, order: Positions) -> Draws:
        """A copy in which each draw is on the chunk that its number met in `other`, dealt by `order` as in that run."""
        rows = [other.numbers.index(number) for number in self.numbers]
        places = [order[other.starts[row] : other.starts[row] + int(other.sizes[row])] for row in rows]
        hits, clean = (
            np.array([each[draw, place].mean() for draw, place in enumerate(places)])[:, None]
            for each in (self.hits, self.clean)
        )
        return Draws(self.numbers, hits, clean, other.sizes[rows], tuple(other.starts[row] for row in rows))

    def shares(self, *others: Array, one_chip: bool = False) -> list[Array]:
        """Arrays like `hits` as shares of chunks (deals, draws), to be bet on; with `one_chip` each image is a chunk."""
        if one_chip:
            return [each[:1] for each in others]
        if not self.crossed:
            return [each.T for each in others]
        return list(dealt_afterwards(*others))


class GatedRun(RunHits):
    """An open run file of either design, to be gated. Raises RunFileError as RunHits does, and for chunks not dealt at random."""

    def _covered(self) -> list[Tally]:
        if self.chunked and not is_dealt(self.identity):
            raise RunFileError(
                f"{self.path}: each chunk of its images holds neighbours in the data, as older versions cut them, so what some "
                "chunks show depends on how the files are sorted; bench the model anew into another file"
            )
        return super()._covered()

    @cached_property
    def one_chip(self) -> bool:
        """Whether nothing of the noise is random, so that all draws are one chip, and only images vary."""
        return deterministic(self.noise)

    @cached_property
    def laid_down(self) -> int:
        """The images that the run is about."""
        return int(self.identity["images"]) if self.chunked else max(chunk.stop for chunk in self.store.chunks())

    def clean_hits(self, metric: Metric, images: int) -> tuple[int, int]:
        """(hits, images) without noise, of those of the first images that are measured."""
        if not self.chunked:
            return int(self.clean(metric, images).sum()), images
        seen = [tally for tally in self._clean if tally.start < images]
        return sum(tally.hits(metric) for tally in seen), sum(tally.images for tally in seen)

    def order(self, images: int) -> Positions:
        """The positions in the data in the order in which the first `images` images are, or would be, dealt."""
        return permutation(self.laid_down if self.chunked else images, int(self.identity["seed"]))

    def draws(
        self,
        sweep: Sweep,
        layers: Iterable[int | None],
        level: float,
        metric: Metric,
        images: int,
        *,
        dealt: bool = True,
    ) -> Draws | None:
        """The draws that all of `layers` have on the first images (of a chunked run: on the first that are dealt); None for
        none.

        A crossed run's images are in the data's order unless they are `dealt`.
        """
        if self.chunked:
            return self._met(sweep, tuple(layers), level, metric, images)
        found = self.side(sweep, layers, level, metric, images)
        if found is None:
            return None
        numbers, side = found
        order = self.order(images) if dealt else np.arange(images)
        clean = np.broadcast_to(side.clean.astype(np.float64)[order], side.hits.shape)
        return Draws(tuple(numbers), side.each[:, order], clean, np.full(len(numbers), float(images)))

    def _met(
        self, sweep: Sweep, layers: tuple[int | None, ...], level: float, metric: Metric, images: int
    ) -> Draws | None:
        table: dict[int, list[tuple[int, int, int, int]]] = {}
        for layer in layers:
            for met in meetings(self.store.tallies(sweep, layer, level), self._clean_by_start, images):
                one = met.hits
                pair = (one.top1_hits, one.clean_top1_hits)
                if metric == "top5":
                    if one.top5_hits is None or one.clean_top5_hits is None:
                        raise self.without_top5()
                    pair = (one.top5_hits, one.clean_top5_hits)
                table.setdefault(one.draw, []).append((*pair, one.images, met.start))
        numbers = tuple(sorted(draw for draw, rows in table.items() if len(rows) == len(layers)))
        if not numbers:
            return None
        counts = np.array([[row[:3] for row in table[draw]] for draw in numbers], np.float64).mean(axis=1)
        hits, kept, sizes = counts.T
        starts = tuple(table[draw][0][3] for draw in numbers)
        return Draws(numbers, (hits / sizes)[:, None], (kept / sizes)[:, None], sizes, starts)
