"""Reads the hits of run files image by image, for comparisons of the images that each draw got right."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from onnxnoise.errors import RunFileError
from onnxnoise.noise.models import level_of
from onnxnoise.noise.settings import setting_of
from onnxnoise.records import Bits, LayerInfo, Tally
from onnxnoise.results.question import is_chunked
from onnxnoise.results.run_file.database import is_database
from onnxnoise.results.run_file.store import Closing, RunStore
from onnxnoise.results.summary import layer_info
from onnxnoise.results.tallies import by_draw
from onnxnoise.statistics.contrasts import Counts, Side
from onnxnoise.words import Metric, Sweep


class RunHits(Closing):
    """An open run file, to be read; `images` is the number that the clean pass has covered. Use `opened` in a `with` statement.

    In a chunked run, whose draws don't meet the same images, those are the images of the chunks that were met. Raises
    RunFileError for a file that can't be read, and one without a clean pass.
    """

    def __init__(self, store: RunStore) -> None:
        self.store, self.path = store, store.path
        self.identity: dict[str, Any] = store.identity
        self.description: dict[str, Any] = store.description
        self.chunked = is_chunked(self.identity)
        self.noise = setting_of(self.identity)
        self.level = level_of(self.noise)
        self.layers: tuple[LayerInfo, ...] = tuple(layer_info(each) for each in self.description["layers"])
        self.selected: tuple[int, ...] = tuple(self.identity["layers"])
        self._clean = self._covered()
        self.images = sum(tally.images for tally in self._clean)
        if not self.images:
            raise RunFileError(
                f"{self.path}: has no complete clean pass; run its `onnxnoise bench` again to go on with it"
            )

    @cached_property
    def _cells(self) -> dict[tuple[str, float], set[int | None]]:
        """The layers with a tally, by sweep and level."""
        cells: dict[tuple[str, float], set[int | None]] = {}
        for sweep, layer, level, _, _ in self.store.done():
            if sweep != "clean":
                cells.setdefault((sweep, level), set()).add(layer)
        return cells

    @cached_property
    def _clean_by_start(self) -> dict[int, Tally]:
        return {tally.start: tally for tally in self._clean}

    @classmethod
    def opened(cls, path: Path) -> Self:
        """Open the run file at `path`."""
        with RunStore.existing(path).closed_on_error() as store:
            return cls(store)

    def _covered(self) -> list[Tally]:
        """The clean tallies from the first image on, up to the first gap; of a chunked run, all of them."""
        covered: list[Tally] = []
        end = 0
        for tally in self.store.tallies("clean"):
            if tally.start != end and not self.chunked:
                break
            covered.append(tally)
            end += tally.images
        return covered

    @property
    def name(self) -> str:
        """The model's name: untrusted text."""
        return str(self.description["model"])

    @property
    def sha256(self) -> str:
        return str(self.identity["model"])

    def levels(self, sweep: Sweep) -> list[float]:
        """The levels at which the sweep has at least one tally, the least noise first."""
        return self.level.in_order(level for kind, level in self._cells if kind == sweep)

    def sweeps(self) -> list[str]:
        return sorted({kind for kind, _ in self._cells})

    def has(self, sweep: Sweep, layers: Iterable[int | None], level: float) -> bool:
        """Whether every one of these cells has at least one tally."""
        return set(layers) <= self._cells.get((sweep, level), set())

    def clean(self, metric: Metric, images: int) -> Bits:
        """Clean hits (images,) of the first images. Raises RunFileError for top-5 with five classes or fewer."""
        chunks = [range(tally.start, tally.start + tally.images) for tally in self._clean]
        bits: Bits = getattr(by_draw(iter(self._clean), chunks, self.images)[0], metric)
        if bits.size == 0:
            raise self.without_top5()
        return bits[:images]

    def without_top5(self) -> RunFileError:
        """The error for a question about the top 5 of a network that tells five classes or fewer apart."""
        return RunFileError(
            f"{self.path}: {self.name} tells five classes or fewer apart: it has no top5 hits; use top1"
        )

    def nonfinite(self, sweep: Sweep, layers: Iterable[int | None], level: float) -> int:
        """The number of outputs of these cells that were not finite."""
        cells = (self.store.tallies(sweep, layer, level) for layer in layers)
        return sum(int.from_bytes(tally.nonfinite, "big").bit_count() for cell in cells for tally in cell)

    def side(
        self, sweep: Sweep, layers: Iterable[int | None], level: float, metric: Metric, images: int
    ) -> tuple[list[int], Side] | None:
        """The numbers of the draws that all of `layers` have on the first images, and their hits summed over these layers.

        None if no draw is complete. Draws of the same number are one draw of all layers.
        """
        layers = list(layers)
        chunks = [range(tally.start, tally.start + tally.images) for tally in self._clean if tally.start < images]
        totals: dict[int, Counts] = {}
        for place, layer in enumerate(layers):
            hits = by_draw(self.store.tallies(sweep, layer, level), chunks, images)
            bits = {draw: getattr(each, metric) for draw, each in hits.items()}
            if place == 0:
                totals = {draw: each.astype(np.int64) for draw, each in bits.items()}
            else:
                totals = {draw: total + bits[draw] for draw, total in totals.items() if draw in bits}
        if not totals:
            return None
        draws = sorted(totals)
        return draws, Side(np.stack([totals[draw] for draw in draws]), len(layers), self.clean(metric, images))

    def close(self) -> None:
        self.store.close()


def same_layers(first: RunHits, second: RunHits) -> bool:
    """Whether two runs have the same noise layers (indices, kinds, shapes), so that draws of the same number are the same noise.

    Names and sigmas may differ: unit normals depend on seed, draw, index, role and shape alone.
    """
    return first.selected == second.selected and _table(first) == _table(second)


def _table(run: RunHits) -> list[tuple[int, str, tuple[tuple[int, ...], ...]]]:
    return [(layer.index, layer.kind, tuple(each.shape for each in layer.initializers)) for layer in run.layers]


def is_run_file(name: str) -> bool:
    """Whether a name on the command line is a run file's rather than a model's, by its first bytes, else by its ending."""
    path = Path(name)
    with suppress(OSError):
        if is_database(path):
            return True
    return path.suffix == ".sqlite"
