"""Evidence by betting: against capitals multiplied by hand, and how often it decides wrongly and rightly where the truth is known.

`python tests/statistics/test_betting.py` prints the figures that the documentation claims.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import ndtri
from support.families import BEYOND, FAMILIES, Family

from onnxnoise.statistics.betting import (
    MOST_EVIDENCE,
    Bets,
    against_all,
    bounds,
    chunk_images,
    dealt_afterwards,
    evidence,
    most,
    most_draws,
)

Array = npt.NDArray[Any]
TWENTY = math.log(20.0)


def by_hand(hits: list[float], bases: list[float], limit: float, sign: int, most_lost: float) -> list[float]:
    """E_n after each chunk: a capital for each of 40 stakes, multiplied one by one."""
    capitals, found = [1.0] * 40, []
    for hit, base in zip(hits, bases, strict=True):
        for place in range(40):
            capitals[place] *= 1.0 + sign * (place + 1) / 41 / most_lost * (hit - limit * base)
        found.append(sum(capitals) / 40)
    return found


@pytest.mark.parametrize(("floor", "least_base"), [(0.0, 0.0), (0.0, 1.0), (-1.0, 1.0)])
def test_against_capitals_by_hand(floor: float, least_base: float) -> None:
    random = np.random.default_rng(5)
    bases = np.ones((1, 60)) if least_base else random.binomial(50, 0.9, (1, 60)) / 50
    gains = random.binomial(50, 0.8, (1, 60)) / 50 + floor
    bets = Bets(0.8, gains, bases, floor, least_base)
    for limit in np.linspace(0.05, 0.95, 7) + floor:
        above = by_hand(gains[0].tolist(), bases[0].tolist(), limit, 1, limit - floor)
        below = by_hand(gains[0].tolist(), bases[0].tolist(), limit, -1, 1 - least_base * limit)
        assert np.exp(bets.above(limit)).tolist() == pytest.approx(above)
        assert np.exp(bets.below(limit)).tolist() == pytest.approx(below)


def test_bounds_are_where_the_evidence_begins_to_be_enough() -> None:
    random = np.random.default_rng(6)
    kept = random.binomial(50, 0.9, (1, 80)) / 50
    hits = kept * random.beta(20, 2, (1, 80))
    value = float(hits.sum() / kept.sum())
    bets = Bets(value, hits, kept, highest=1 / 0.9)
    low, high = bounds(bets, 0.05)
    assert low < value < high <= 1 / 0.9
    assert most(bets.above(low - 1e-5)) >= TWENTY > most(bets.above(low + 1e-5))
    assert most(bets.below(high + 1e-5)) >= TWENTY > most(bets.below(high - 1e-5))
    wider = bounds(bets, 0.001)
    assert wider[0] < low
    assert wider[1] > high


def test_numbers_stay_finite() -> None:
    ones = np.ones((1, 5000))
    sure = Bets(1.0, ones, ones)
    assert evidence(most(sure.above(0.5))) == MOST_EVIDENCE
    assert most(sure.below(1.0)) == 0.0
    lost = Bets(0.0, 0 * ones, ones)
    assert np.isfinite(lost.above(0.5)).all()
    assert evidence(most(lost.above(1e-12))) <= 1.0
    assert evidence(most(Bets(0.9, 0.9 * ones, ones, 0.0, 1.0).below(1.0))) == MOST_EVIDENCE, "one miss disproves it"


def test_evidence_against_several_layers_is_their_mean() -> None:
    random = np.random.default_rng(7)
    places = []
    for count in (30, 30, 12):
        kept = random.binomial(50, 0.9, (1, count)) / 50
        places.append((Bets(0.8, kept * random.beta(8, 2, (1, count)), kept), 0.9))
    table = []
    for bets, limit in places:
        each = by_hand(bets.gains[0].tolist(), bets.bases[0].tolist(), limit, -1, 1.0)
        table.append(each + [each[-1]] * (30 - len(each)))
    table.append([1.0] * 30)
    means = [sum(column) / 4 for column in zip(*table, strict=True)]
    assert math.exp(against_all(places, 4)) == pytest.approx(max(means))


def test_draws_that_met_all_images_are_dealt_afterwards() -> None:
    hits = np.arange(4 * 10, dtype=np.float64).reshape(4, 10)
    (shares, same) = dealt_afterwards(hits, 2 * hits)
    ends = [0, 2, 5, 8, 10]
    assert shares.shape == (4, 4)
    for turn in range(4):
        for draw in range(4):
            chunk = (draw + turn) % 4
            assert shares[turn, draw] == hits[draw, ends[chunk] : ends[chunk + 1]].mean()
    assert np.array_equal(same, 2 * shares)
    assert dealt_afterwards(hits[:, :3], hits[:, :3])[0].shape == (3, 3), "no more chunks than images"


Chips = Callable[[np.random.Generator, tuple[int, ...]], Array]
"""Accuracies of chips, fractions of the clean one."""


def mixture(
    lost: float,
    low: tuple[float, float],
    high: tuple[float, float],
    random: np.random.Generator,
    shape: tuple[int, ...],
) -> Array:
    """Chips of which a share collapses: two beta distributions."""
    return np.where(random.random(shape) < lost, random.beta(*low, shape), random.beta(*high, shape))


CELLS: dict[str, Chips] = {
    "spread, A .76": lambda random, shape: np.clip(random.normal(0.76, 0.116, shape), 0.0, 1.0),
    "3.7 % collapse": partial(mixture, 0.037, (3.0, 3.0), (600.0, 10.0)),
    "20 % collapse": partial(mixture, 0.2, (2.0, 3.0), (40.0, 2.0)),
    "half collapse": partial(mixture, 0.45, (2.0, 4.0), (30.0, 2.0)),
    "1 % lose all": partial(mixture, 0.01, (1.0, 60.0), (200.0, 4.0)),
}
"""Cells like those of real networks: a standard deviation between chips of 0.08 to 0.37."""


def judged(chips: Chips, runs: int, gap: float, draws: int = 400, images: int = 50) -> Iterator[tuple[bool, bool, int]]:
    """(passed, failed, draws used) of each run with the limit at the truth minus `gap`, each chunk of images fresh."""
    random = np.random.default_rng([9, runs])
    limit = float(chips(random, (400_000,)).mean()) - gap
    for _ in range(runs):
        kept = random.binomial(images, 0.91, (1, draws))
        bets = Bets(0.0, random.binomial(kept, chips(random, (1, draws))) / images, kept / images)
        for_it, against = (np.flatnonzero(logs >= TWENTY) for logs in (bets.above(limit), bets.below(limit)))
        ends = [found[0] + 1 if found.size else draws for found in (for_it, against)]
        yield bool(for_it.size), bool(against.size), min(ends)


def rates(chips: Chips, runs: int, gap: float, **more: int) -> tuple[float, float, float]:
    """(share that passes, share that fails, mean number of draws)."""
    passed, failed, used = np.array(list(judged(chips, runs, gap, **more)), np.float64).mean(axis=0).tolist()
    return passed, failed, used


RUNS = 200
MOST = 0.05 + 2.5 * (0.05 * 0.95 / RUNS) ** 0.5  # a true 0.05 goes above with one seed in 160; ours is fixed


@pytest.mark.parametrize("name", CELLS)
def test_wrong_verdicts_are_rare_however_often_one_looks(name: str) -> None:
    passed, failed, _ = rates(CELLS[name], RUNS, 0.0)
    assert passed <= MOST
    assert failed <= MOST


@pytest.mark.parametrize(("name", "gap", "power", "draws"), [
    ("spread, A .76", 0.05, 0.98, 110),
    ("spread, A .76", 0.2, 1.0, 21),
    ("3.7 % collapse", 0.05, 0.98, 120),
    ("20 % collapse", 0.05, 0.85, 220),
    ("half collapse", 0.1, 0.95, 125),
    ("spread, A .76", -0.2, 0.0, 35),
])  # fmt: skip
def test_clear_cases_are_decided_and_soon(name: str, gap: float, power: float, draws: int) -> None:
    passed, failed, used = rates(CELLS[name], 100, gap)
    assert passed >= power
    assert used <= draws
    if gap < 0.0:
        assert failed >= 0.98


STEADY = Family("steady", lambda u: 0.5 + 0.05 * ndtri(u), noise=0.6, by_class=0.05)
"""Chips that are nearly alike: here what is not known is mostly due to the images, which come again and again."""


def on_few_images(family: Family, images: int, runs: int, gap: float = 0.0) -> tuple[float, float]:
    """(share that passes, share that fails) where few images come around with fresh draws; the truth is that of all images."""
    random = np.random.default_rng([11, images])
    size, draws = chunk_images(images), most_draws(images)
    decided = np.zeros(2)
    for _ in range(runs):
        margin = random.normal(1.28, 1.0, (images // size, size)).astype(np.float32)
        label = random.integers(10, size=margin.shape)
        rounds = np.arange(draws) % len(margin)
        lost, gained = family.changes(random, margin[None, rounds], label[None, rounds])
        kept = (margin[None, rounds] > 0).sum(axis=2)
        bets = Bets(0.0, (kept - lost + gained) / size, kept / size)
        limit = family.truth - gap
        decided += most(bets.above(limit)) >= TWENTY, most(bets.below(limit)) >= TWENTY
    passed, failed = (decided / runs).tolist()
    return passed, failed


@pytest.mark.parametrize(("family", "images"), [(STEADY, 1000), (STEADY, 100), (BEYOND[1], 200)])
def test_what_is_said_of_images_like_these_holds_though_they_come_again(family: Family, images: int) -> None:
    passed, failed = on_few_images(family, images, 100)
    assert passed <= 0.1
    assert failed <= 0.1


def crossed(family: Family, draws: int, images: int, runs: int, gap: float = 0.0) -> tuple[float, float]:
    """(share that passes, share that fails) from draws that met all images."""
    random = np.random.default_rng([13, draws])
    decided, family = np.zeros(2), replace(family, images=images)
    for _ in range(runs):
        hits, clean, _ = family.sample(random, 1, draws)
        one = hits[0, 0].astype(np.float64)
        gains, bases = dealt_afterwards(one, np.broadcast_to(clean[0].astype(np.float64), one.shape))
        bets = Bets(0.0, gains, bases, at_once=True)
        limit = family.truth - gap
        decided += most(bets.above(limit)) >= TWENTY, most(bets.below(limit)) >= TWENTY
    passed, failed = (decided / runs).tolist()
    return passed, failed


@pytest.mark.parametrize(("family", "draws"), [(FAMILIES[0], 10), (FAMILIES[2], 40), (BEYOND[1], 10), (BEYOND[1], 40)])
def test_run_files_of_crossed_draws_hardly_ever_pass_falsely(family: Family, draws: int) -> None:
    passed, failed = crossed(family, draws, 200, 60)
    assert passed <= 0.1
    assert failed <= 0.1


def test_crossed_draws_decide_what_is_clear() -> None:
    assert crossed(FAMILIES[0], 10, 200, 30, gap=0.4)[0] > 0.9
    assert crossed(FAMILIES[0], 40, 200, 30, gap=0.15)[0] > 0.9
    assert crossed(FAMILIES[0], 40, 200, 30, gap=-0.25)[1] > 0.9


@pytest.mark.parametrize(
    ("images", "size", "draws"), [(1, 1, 100), (60, 3, 100), (200, 10, 100), (1000, 50, 250), (50_000, 50, 400)]
)
def test_sizes(images: int, size: int, draws: int) -> None:
    assert (chunk_images(images), most_draws(images)) == (size, draws)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Verdicts of the betting gate where the truth is known, in percent of runs."
    )
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    print(
        "400 chunks of 50 fresh images            false pass  false fail   passes 0.05 (images)   0.1 (images)    0.2 (images)"
    )
    for name, chips in CELLS.items():
        passed, failed, _ = rates(chips, runs, 0.0)
        off = [rates(chips, runs // 2, gap) for gap in (0.05, 0.1, 0.2)]
        said = "  ".join(f"{one[0]:6.1%} ({50 * one[2]:6,.0f})" for one in off)
        print(f"{name:42s} {passed:8.1%} {failed:11.1%}   {said}", flush=True)
    print("few images that come again, A of all")
    for family in (FAMILIES[0], FAMILIES[2], BEYOND[1], BEYOND[2], STEADY):
        for images in (60, 200, 1000):
            passed, failed = on_few_images(family, images, runs // 4)
            power = on_few_images(family, images, runs // 8, gap=0.05)[0]
            print(f"{family.name:16s} {images:5d} {passed:8.1%} {failed:8.1%} power 0.05 off {power:.1%}", flush=True)
    print("draws on all of 500 images")
    for family in (FAMILIES[0], FAMILIES[2], BEYOND[1], BEYOND[2]):
        for draws in (10, 40):
            passed, failed = crossed(family, draws, 500, runs // 4)
            power = crossed(family, draws, 500, runs // 8, gap=0.1)[0]
            print(f"{family.name:16s} {draws:5d} {passed:8.1%} {failed:8.1%} power 0.1 off {power:.1%}", flush=True)


if __name__ == "__main__":
    main()


def repeated(truth: float, images: int, random: np.random.Generator, gap: float = 0.0) -> bool:
    """Whether a gate passes chips that are all alike: every later round meets what the first one met."""
    size = chunk_images(images)
    starts = range(0, images - size + 1, size)
    draws = most_draws(images)
    hits = random.random(images) < truth
    shares = np.array([hits[start : start + size].mean() for start in starts])
    which = np.arange(draws) % len(starts)
    gains = shares[which][None]
    bets = Bets(
        0.0, gains, np.ones_like(gains), 0.0, 1.0, starts=tuple(starts[i] for i in which), sizes=(float(size),) * draws
    )
    return most(bets.above(truth - gap)) >= TWENTY


@pytest.mark.parametrize("images", [20, 60, 100, 1000])
@pytest.mark.parametrize("truth", [0.95, 0.8, 0.6])
def test_images_that_come_again_prove_nothing_that_they_did_not_say_at_first(truth: float, images: int) -> None:
    random, runs = np.random.default_rng([17, images]), 400
    most_false = 0.05 + 2.5 * (0.05 * 0.95 / runs) ** 0.5
    assert np.mean([repeated(truth, images, random) for _ in range(runs)]) <= most_false


def test_where_the_images_agree_later_rounds_count() -> None:
    random = np.random.default_rng(18)
    assert np.mean([repeated(0.9, 1000, random, gap=0.05) for _ in range(50)]) > 0.9
