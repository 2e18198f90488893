"""Keeps the realized noise of a run's levels in its run file, so that results of any noise stand on the paper's axis."""

from __future__ import annotations

from collections.abc import Container

from onnxnoise.engine.realized import realized, realized_draws
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.run.experiment import Experiment


def keep_realized(experiment: Experiment, store: RunStore, levels: Container[float]) -> None:
    """Measure and keep the realized noise that the run file lacks, of layers that bear noise, at `levels` with a tally.

    It depends on the weights, the seed and the draws alone, so it is measured once for all images, on few draws.
    """
    layers = experiment.subject.layers
    draws: dict[float, int] = {}
    for sweep, _, level, draw, _ in store.done():
        if sweep != "clean" and level in levels:
            draws[level] = max(draws.get(level, 0), draw + 1)
    wanted = {level: realized_draws(layers, number) for level, number in draws.items()}
    there = {(each.layer, each.level): each.draws for each in store.realized()}
    lacking = {
        level: number
        for level, number in wanted.items()
        if any(there.get((layer.index, level), 0) < number for layer in layers)
    }
    if lacking:
        store.keep_realized(realized(layers, experiment.subject.network.constants, experiment.noise, lacking))
