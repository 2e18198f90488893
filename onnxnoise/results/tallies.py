"""The tallies of one cell become the hits that its estimates are made of: by draw in a crossed run, by chunk in a chunked one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from onnxnoise.records import Bits, DrawHits, Tally
from onnxnoise.statistics.clustered import ChunkHits
from onnxnoise.words import Metric


@dataclass(frozen=True)
class HitBits:
    """The hits of one draw on the images asked for, in order: top1 and nonfinite (images,), top5 (images,) or (0,).

    The clean pass has the same form. `top5` is empty with five classes or fewer.
    """

    top1: Bits
    top5: Bits
    nonfinite: Bits
    negative_variances: int


def by_draw(tallies: Iterator[Tally], chunks: Sequence[range], images: int) -> dict[int, HitBits]:
    """The hits of each draw that has every chunk; `tallies` must come sorted by draw and start."""
    complete = {}
    for draw, group in groupby(tallies, key=lambda tally: tally.draw):
        parts = [tally for tally in group if tally.start < images]
        if [range(t.start, t.start + t.images) for t in parts] == list(chunks):
            top1, top5, nonfinite = (_joined(parts, name, images) for name in ("top1", "top5", "nonfinite"))
            complete[draw] = HitBits(top1, top5, nonfinite, parts[0].negative_variances)
    return complete


def draw_hits(draw: int, noisy: HitBits, clean: HitBits) -> DrawHits:
    """The counts of one draw of a crossed run."""
    return DrawHits(
        draw=draw,
        images=noisy.top1.size,
        clean_top1_hits=number(clean.top1),
        clean_top5_hits=number_or_none(clean.top5),
        top1_hits=number(noisy.top1),
        top5_hits=number_or_none(noisy.top5),
        nonfinite=number(noisy.nonfinite),
        negative_variances=noisy.negative_variances,
    )


def number(bits: Bits) -> int:
    """The number of bits that are set."""
    return int(np.count_nonzero(bits))


def number_or_none(bits: Bits) -> int | None:
    """The number of bits that are set; None where there are no bits."""
    return number(bits) if bits.size else None


@dataclass(frozen=True)
class Meeting:
    """One draw of a chunked run on its chunk of images, which begins at `start`: the hits, and the changes to the clean ones.

    `top5` is None with five classes or fewer.
    """

    start: int
    hits: DrawHits
    top1: ChunkHits
    top5: ChunkHits | None

    def changes(self, metric: Metric) -> ChunkHits:
        """The hits that the draw lost and gained by a metric; by top-1 where there is no top-5."""
        return self.top5 if metric == "top5" and self.top5 is not None else self.top1


def meetings(tallies: Iterable[Tally], clean: Mapping[int, Tally], images: int) -> list[Meeting]:
    """The meetings of one cell, by draw; `clean` has the clean passes by start. A tally without a clean pass is left out."""
    found = []
    for noisy in tallies:
        kept = clean.get(noisy.start)
        if kept is not None and noisy.start < images and noisy.images == kept.images:
            found.append(_meeting(noisy, kept, min(noisy.images, images - noisy.start)))
    return sorted(found, key=lambda meeting: (meeting.hits.draw, meeting.start))


def by_chunk(met: Iterable[Meeting], metric: Metric) -> dict[int, ChunkHits]:
    """The hits that all draws together lost and gained in each chunk, by the chunk's start."""
    chunks: dict[int, ChunkHits] = {}
    for meeting in met:
        changes = meeting.changes(metric)
        chunks[meeting.start] = chunks[meeting.start] + changes if meeting.start in chunks else changes
    return chunks


def _meeting(noisy: Tally, clean: Tally, images: int) -> Meeting:
    top1, kept1 = _first(noisy.top1, images), _first(clean.top1, images)
    top5, kept5 = _first(noisy.top5, images), _first(clean.top5, images)
    has_top5 = bool(clean.top5)
    hits = DrawHits(
        draw=noisy.draw,
        images=images,
        clean_top1_hits=kept1.bit_count(),
        clean_top5_hits=kept5.bit_count() if has_top5 else None,
        top1_hits=top1.bit_count(),
        top5_hits=top5.bit_count() if has_top5 else None,
        nonfinite=_first(noisy.nonfinite, images).bit_count(),
        negative_variances=noisy.negative_variances,
    )
    return Meeting(
        noisy.start, hits, _changes(top1, kept1, images), _changes(top5, kept5, images) if has_top5 else None
    )


def _first(packed: bytes, images: int) -> int:
    """The bits of the first `images` images, as one integer."""
    return int.from_bytes(packed) >> max(8 * len(packed) - images, 0)


def _changes(noisy: int, clean: int, images: int) -> ChunkHits:
    return ChunkHits(images, clean.bit_count(), 1, (clean & ~noisy).bit_count(), (noisy & ~clean).bit_count())


def _joined(tallies: Sequence[Tally], name: str, images: int) -> Bits:
    parts = [getattr(tally, name) for tally in tallies]
    if not any(parts):
        return np.zeros(0, np.bool_)
    if any(tally.images % 8 for tally in tallies[:-1]):
        return np.concatenate([unpacked(part, tally.images) for part, tally in zip(parts, tallies, strict=True)])[
            :images
        ]
    return unpacked(b"".join(parts), images)


def unpacked(packed: bytes, images: int) -> Bits:
    """The bits (images,) that a tally keeps packed."""
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=images).view(np.bool_)
