"""A gate's cost and how often it is wrong, with limits beside the truth of the bundled network; the time of a whole one."""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onnxnoise.decisions.gating.gate import gate_model
from onnxnoise.decisions.gating.rules import load_rules
from onnxnoise.results.run_hits import RunHits
from onnxnoise.run.runner import bench
from onnxnoise.spec import BenchSpec
from onnxnoise.statistics.betting import Bets, chunk_images, most, most_draws
from onnxnoise.words import Policy, Sweep

Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Place:
    """One cell whose population of chips is measured: `layer` None for all layers together."""

    name: str
    bn: Policy
    snr: float
    layer: int | None


PLACES = (
    Place("all layers, group, SNR 10", "group", 10.0, None),
    Place("all layers, group, SNR 5", "group", 5.0, None),
    Place("all layers, affine, SNR 5", "affine", 5.0, None),
    Place("first batch norm, group, SNR 5", "group", 5.0, 2),
)
CHIPS, IMAGES, RUNS = 120, 100, 400
GAPS = (0.0, 0.05, 0.1, 0.2)


def gating(options: argparse.Namespace) -> None:
    """Verdicts on chips and images drawn from a measured population, then one gate from beginning to end."""
    print(f"gate: {options.model}, {CHIPS} chips on {IMAGES} images of each cell, {RUNS} gates on draws from them")
    for place in PLACES:
        with tempfile.TemporaryDirectory() as folder:
            hits, clean, seconds = _population(options, place, folder)
        kept = clean.sum()
        truth, spread = hits.sum() / len(hits) / kept, (hits.sum(axis=1) / kept).std()
        for gap in GAPS:
            passed, used = _gates(hits, clean, float(truth) - gap)
            print(
                f"  {place.name:32s} A {truth:.3f}, sd {spread:.3f}, limit {gap:.2f} below: passes {passed:6.1%}, "
                f"{50 * used:6,.0f} evaluations, {50 * used * seconds:5.1f} s of processor time"
            )
    _whole(options)


def _population(options: argparse.Namespace, place: Place, folder: str) -> tuple[Bits, Bits, float]:
    """Hits (chips, images) and clean hits (images,) of a cell, measured, and the seconds of processor time of an evaluation."""
    sweep: Sweep = "all" if place.layer is None else "single"
    spec = BenchSpec(
        options.model,
        options.card,
        options.data,
        (place.snr,),
        (sweep,),
        draws=CHIPS,
        bn=place.bn,
        layers=None if place.layer is None else str(place.layer),
        limit=IMAGES,
        out=str(Path(folder) / "run.sqlite"),
    )
    began = time.process_time()
    bench(spec)
    seconds = (time.process_time() - began) / (CHIPS * IMAGES)
    with RunHits.opened(Path(folder) / "run.sqlite") as run:
        found = run.side(sweep, [place.layer], place.snr, "top1", IMAGES)
    assert found is not None
    return found[1].hits.astype(np.bool_), found[1].clean, seconds


def _gates(hits: Bits, clean: Bits, limit: float) -> tuple[float, float]:
    """(share that passes, mean number of chips used) of gates on a thousand images like these."""
    random = np.random.default_rng(7)
    size, draws = chunk_images(1000), most_draws(1000)
    passed = used = 0
    for _ in range(RUNS):
        images = random.integers(clean.size, size=(1000 // size, size))[np.arange(draws) % (1000 // size)]
        chips = random.integers(len(hits), size=(draws, 1))
        bets = Bets(0.0, hits[chips, images].mean(axis=1)[None], clean[images].mean(axis=1)[None])
        decided = [np.flatnonzero(logs >= np.log(20.0)) for logs in (bets.above(limit), bets.below(limit))]
        first = [int(each[0]) + 1 if each.size else draws for each in decided]
        passed += first[0] < first[1] or (first[0] == draws and most(bets.above(limit)) >= np.log(20.0))
        used += min(first)
    return passed / RUNS, used / RUNS


def _whole(options: argparse.Namespace) -> None:
    """The time of one gate, from loading the model to the verdict, at a limit that is no trouble."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.toml"
        path.write_text("[[rule]]\nname = 'comfortable'\nsnr = 20\nmax_drop = 0.1\n")
        began, busy = time.perf_counter(), time.process_time()
        spec = BenchSpec(options.model, options.card, options.data, out=str(Path(folder) / "run.sqlite"))
        verdict = gate_model(spec, load_rules(path))
        (rule,) = verdict.rules
        print(
            f"  SNR 20, at most 0.1 lost: {rule.verdict}, {rule.message}; {time.perf_counter() - began:.1f} s, "
            f"{time.process_time() - busy:.1f} s of processor time"
        )
