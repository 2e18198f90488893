"""Gates on runs resampled from recorded chips, so that the truth is known: how often they pass and fail, and at what cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxnoise.statistics.betting import Bets, chunk_images, dealt_afterwards, most, most_draws, next_look
from support.chips import Population

Array = npt.NDArray[np.float64]
CONFIDENCE = 0.95
NEEDED = -math.log(1.0 - CONFIDENCE)


@dataclass(frozen=True)
class Verdicts:
    """Shares of gates that passed and that failed, and the mean number of evaluations (passes over an image)."""

    passed: float
    failed: float
    evaluations: float


def gates(population: Population, images: int, gap: float, runs: int, seed: int = 7) -> Verdicts:
    """Gates that measure until they are decided, with the limit `gap` below the truth, of a model with so many images.

    Images and chips are those of the population, drawn with replacement; images come again as they do in a gate.
    """
    random = np.random.default_rng([seed, images])
    size, draws = chunk_images(images), most_draws(images)
    limit = population.truth - gap
    outcomes = np.array([_measured(*_drawn(population, random, images, size, draws), limit) for _ in range(runs)])
    passed, failed, used = outcomes.mean(axis=0).tolist()
    return Verdicts(passed, failed, size * used)


def crossed_gates(population: Population, draws: int, images: int, gap: float, runs: int, seed: int = 7) -> Verdicts:
    """Gates on run files in which every one of so many draws met all images."""
    random = np.random.default_rng([seed, draws])
    limit = population.truth - gap
    passed = failed = 0
    for _ in range(runs):
        chips, columns = (
            random.integers(len(population.hits), size=draws),
            random.integers(population.clean.size, size=images),
        )
        hits = population.hits[chips][:, columns].astype(np.float64)
        kept = np.broadcast_to(population.clean[columns].astype(np.float64), hits.shape)
        bets = Bets(float(hits.sum() / kept.sum()), *dealt_afterwards(hits, kept), at_once=True)
        failed += most(bets.below(limit)) >= NEEDED
        passed += most(bets.above(limit)) >= NEEDED > most(bets.below(limit))
    return Verdicts(passed / runs, failed / runs, float(draws * images))


def _drawn(
    population: Population, random: np.random.Generator, images: int, size: int, draws: int
) -> tuple[Array, Array, range]:
    """Shares of hits and clean hits (draws,) of chunks that come around, each draw another chip; and the chunks."""
    chunks = images // size
    dealt = random.integers(population.clean.size, size=(chunks, size))
    around = np.arange(draws) % chunks
    chips = random.integers(len(population.hits), size=(draws, 1))
    hits, kept = population.hits[chips, dealt[around]].mean(axis=1), population.clean[dealt[around]].mean(axis=1)
    return hits, kept, range(0, chunks * size, size)


def _measured(hits: Array, kept: Array, chunks: range, limit: float) -> tuple[bool, bool, int]:
    """(passes, fails, draws used) of one gate, which looks as often as `gate` does."""
    starts = [chunks[draw % len(chunks)] for draw in range(len(hits))]
    every = Bets(0.0, hits[None], kept[None])
    reached = [np.flatnonzero(logs >= NEEDED) for logs in (every.above(limit), every.below(limit))]
    first = min(int(each[0]) if each.size else len(hits) for each in reached)
    look = 0
    while look := next_look(look, len(hits)) or 0:
        if look > first:  # before that there is no evidence, however the images agree
            sizes = (float(chunks.step),) * look
            now = Bets(0.0, hits[None, :look], kept[None, :look], starts=tuple(starts[:look]), sizes=sizes)
            failed = most(now.below(limit)) >= NEEDED
            if failed or most(now.above(limit)) >= NEEDED:
                return not failed, failed, look
    return False, False, len(hits)
