"""`--precision 0.01` against the paper's way, three draws each over all images: evaluations, half-widths, agreement."""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from onnxnoise.records import Cell, Result
from onnxnoise.run.loading import open_model
from onnxnoise.run.runner import bench
from onnxnoise.selection import index_ranges
from onnxnoise.spec import BenchSpec
from onnxnoise.statistics.stopping import half_width
from onnxnoise.words import PAPER_SNRS

PRECISION = 0.01


def precision(options: argparse.Namespace) -> None:
    """`single` of every Nth layer and `all`, six SNRs, each way in a run file of its own."""
    layers = index_ranges([layer.index for layer in open_model(options.model).layers][:: options.every])
    with tempfile.TemporaryDirectory() as folder:
        spec = BenchSpec(
            options.model,
            options.card,
            options.data,
            PAPER_SNRS,
            limit=options.limit,
            draws=3,
            layers=layers,
            out=str(Path(folder) / "paper"),
        )
        paper, paper_seconds = _timed(spec)
        ours, seconds = _timed(replace(spec, draws=None, precision=PRECISION, out=str(Path(folder) / "precise")))
    found = {_key(cell): cell for cell in ours.cells}
    pairs = [(cell, found[_key(cell)]) for cell in paper.cells]
    many, few = (sum(draw.images for cell in side for draw in cell.draws) for side in zip(*pairs, strict=True))
    narrow = sum(_half(own) <= max(_half(theirs), PRECISION) for theirs, own in pairs)
    overlapping = sum(_overlap(theirs, own) for theirs, own in pairs)
    precise = sum(_half(own) <= PRECISION for _, own in pairs)
    print(
        f"precision: {paper.model['name']}, layers {layers} one at a time and together, {len(PAPER_SNRS)} SNRs, "
        f"{paper.clean.images:,} images: {len(pairs)} cells"
    )
    print(f"  3 draws over all images   {many:12,} evaluations  {paper_seconds:7.0f} s of processor time")
    print(
        f"  --precision {PRECISION:g}          {few:12,} evaluations  {seconds:7.0f} s of processor time; "
        f"1/{many / few:.1f} of the evaluations"
    )
    print(
        f"  half-width no larger than the larger of the other way's and {PRECISION:g}: {narrow / len(pairs):.0%} of cells"
    )
    print(f"  half-width no larger than {PRECISION:g}: {precise / len(pairs):.0%}")
    print(f"  the two ways' intervals overlap in {overlapping / len(pairs):.0%}")
    for theirs, own in pairs:
        if not _overlap(theirs, own):
            print(f"    {_key(own)}: {_said(theirs)} and {_said(own)}")


def _timed(spec: BenchSpec) -> tuple[Result, float]:
    """The result, and the seconds of processor time that it took."""
    began = time.process_time()
    return bench(spec), time.process_time() - began


def _key(cell: Cell) -> tuple[str, int | None, float]:
    return cell.sweep, cell.layer, cell.level


def _half(cell: Cell) -> float:
    return half_width(cell.normalized_top1) if cell.normalized_top1 else float("inf")


def _overlap(one: Cell, other: Cell) -> bool:
    ends = [cell.normalized_top1.sampled for cell in (one, other) if cell.normalized_top1]
    (low, high), (least, most) = (interval or (0.0, 0.0) for interval in ends)
    return low <= most and least <= high


def _said(cell: Cell) -> str:
    found = cell.normalized_top1
    return (
        "-"
        if found is None or found.sampled is None
        else f"{found.mean:.3f} [{found.sampled[0]:.3f}, {found.sampled[1]:.3f}]"
    )
