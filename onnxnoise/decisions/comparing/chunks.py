"""Models that were measured chunk by chunk, held against each other: hits by chunk, and the runs they come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import lcm

from onnxnoise.decisions.comparing.records import Scale
from onnxnoise.results.run_hits import RunHits
from onnxnoise.results.tallies import by_chunk, meetings
from onnxnoise.statistics.clustered import Chunks, always_right, contrast_layers
from onnxnoise.statistics.contrasts import Contrast
from onnxnoise.words import Metric, Sweep


class AnyRun(RunHits):
    """An open run file of either design, to be compared."""

    @cached_property
    def size(self) -> int:
        """The number of images in a chunk."""
        return len(self.store.chunks()[0])

    def clean_hits(self, metric: Metric, images: int) -> tuple[int, int]:
        """(hits without noise, images): of the first images, or of all chunks that were met. Raises RunFileError as `clean`."""
        if not self.chunked:
            hits = self.clean(metric, images)
            return int(hits.sum()), int(hits.size)
        if metric == "top5" and not self._clean[0].top5:
            raise self.without_top5()
        return sum(tally.hits(metric) for tally in self._clean), self.images

    def clean_rate(self, metric: Metric) -> float:
        """The clean accuracy on the chunks that were met, a fraction of 1."""
        return sum(tally.hits(metric) for tally in self._clean) / self.images

    def chunks(
        self, sweep: Sweep, layers: Iterable[int | None], level: float, metric: Metric, most: int | None
    ) -> ChunkSide | None:
        """The hits of cells by chunk, of their first `most` draws; None where a cell has none."""
        found, draws = list[Chunks](), set[int]()
        for layer in layers:
            tallies = (each for each in self.store.tallies(sweep, layer, level) if most is None or each.draw < most)
            met = meetings(tallies, self._clean_by_start, self.store.chunks()[-1].stop)
            if not met:
                return None
            draws |= {meeting.hits.draw for meeting in met}
            found.append(by_chunk(met, metric))
        return ChunkSide(tuple(found), self.size, sorted(draws), self.clean_rate(metric))


@dataclass(frozen=True)
class ChunkSide:
    """One model's hits in one place: by chunk, for each layer averaged over. `clean` is the clean accuracy, a fraction of 1."""

    layers: tuple[Chunks, ...]
    size: int
    draws: list[int]
    clean: float

    def scaled(self, scale: Scale) -> list[Chunks]:
        """The layers' chunks; for absolute accuracies against a model that is always right."""
        return list(self.layers) if scale == "normalized" else [always_right(each) for each in self.layers]

    def own(self, scale: Scale) -> tuple[float, Contrast | None]:
        """The accuracy and its law."""
        return contrast_layers(self.scaled(scale))

    def less(self, other: ChunkSide, scale: Scale) -> tuple[float, Contrast | None]:
        """The difference to another model on the same images, and its law; what meets the same chunk is paired."""
        return contrast_layers(self.scaled(scale), other.scaled(scale), lcm(self.size, other.size))
