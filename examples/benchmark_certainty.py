"""What it costs to know a cell to +-0.01: every draw on all images, against chunks of images with draws of their own."""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from math import ceil, inf
from pathlib import Path

import numpy as np

from onnxnoise.records import Cell
from onnxnoise.results.run_hits import RunHits
from onnxnoise.run.runner import bench
from onnxnoise.spec import BenchSpec
from onnxnoise.statistics.stopping import half_width
from onnxnoise.words import Policy

SNRS = (10.0, 5.0, 2.5)
POLICIES: tuple[Policy, ...] = ("group", "affine")
DRAWS, IMAGES = 40, 200
"""The size of the pilot from which the cost of the crossed design is reckoned: it would take hours."""

_MOST = 50_000
_Z = 1.96


@dataclass(frozen=True)
class Components:
    """Variances of one pass's share of a clean hit: between draws, between images, and the rest."""

    draw: float
    image: float
    rest: float

    def draws_for(self, half: float, images: int) -> float:
        """The draws on all images at which a 95 % interval is +-half; infinite where so many images never tell."""
        left = (half / _Z) ** 2 - self.image / images
        return max(2, ceil((self.draw + self.rest / images) / left)) if left > 0.0 else inf


def certainty(options: argparse.Namespace) -> None:
    """Passes and processor time of both designs to the same half-width of each cell, all layers noisy."""
    print(f"certainty: {options.model}, all layers noisy, to +-{options.goal:g}")
    totals = np.zeros(4)
    for bn in POLICIES:
        for snr in SNRS:
            spec = BenchSpec(options.model, options.card, options.data, (snr,), ("all",), bn=bn, limit=options.limit)
            components, cost = _pilot(spec)
            cell, images, seconds = _default(spec, options.goal)
            assert cell.normalized_top1 is not None
            half = half_width(cell.normalized_top1)
            passes = sum(draw.images for draw in cell.draws)
            draws = components.draws_for(max(half, options.goal), images)
            print(
                f"  {bn:6s} SNR {snr:<4g} {cell.normalized_top1.mean:.3f} +-{half:.4f}: {len(cell.draws):6,} draws on "
                f"{cell.draws[0].images} images each, {passes:8,} passes, {seconds:6.1f} s of processor time; every draw on all "
                f"{images:,}: {_count(draws)} draws, {_count(draws * images)} passes, {_count(draws * images * cost)} s; "
                f"1/{_count(draws * images / passes)} of the passes, 1/{_count(draws * images * cost / seconds)} of the time",
                flush=True,
            )
            if draws < inf:
                totals += passes, seconds, draws * images, draws * images * cost
    few, seconds, many, long = totals.tolist()
    if few:
        print(
            f"  together: 1/{many / few:.1f} of the passes, 1/{long / seconds:.1f} of the processor time (of every draw on all "
            f"images reckoned from {DRAWS} draws on {IMAGES})"
        )


def _pilot(spec: BenchSpec) -> tuple[Components, float]:
    """The components of a cell's variance, and the seconds of processor time of a pass in the crossed design."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run.sqlite"
        began = time.process_time()
        bench(replace(spec, draws=DRAWS, limit=IMAGES, out=str(out)))
        seconds = time.process_time() - began
        with RunHits.opened(out) as run:
            found = run.side("all", (None,), spec.snrs[0], "top1", IMAGES)
    assert found is not None
    hits, clean = found[1].hits.astype(np.float64), found[1].clean.astype(np.float64)
    values = (hits - hits.mean() / clean.mean() * clean) / clean.mean()
    by_draw, by_image = values.mean(axis=1), values.mean(axis=0)
    rest = float(np.square(values - by_draw[:, None] - by_image + values.mean()).sum()) / ((DRAWS - 1) * (IMAGES - 1))
    draw, image = (float(each.var(ddof=1)) for each in (by_draw, by_image))
    parts = Components(max(draw - rest / IMAGES, 0.0), max(image - rest / DRAWS, 0.0), rest)
    return parts, seconds / ((DRAWS + 1) * IMAGES)


def _default(spec: BenchSpec, goal: float) -> tuple[Cell, int, float]:
    """The cell of the default design, the images of the run, and the seconds of processor time."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        out = str(Path(folder) / "run.sqlite")
        result = bench(replace(spec, precision=goal, max_draws=_MOST, out=out))
        return result.cells[0], int(result.dataset["images"]), time.process_time() - began


def _count(number: float) -> str:
    return "endless" if number == inf else f"{number:,.0f}"
