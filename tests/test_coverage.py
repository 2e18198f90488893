"""How often intervals hold the truth and gates decide wrongly and rightly; `python tests/test_coverage.py` prints longer tables.

The draws are synthetic, from the families of `support/families.py`, or hits of real chips, resampled (`support/chips.py`).

Runs are of both designs: crossed, where every draw meets every image, and chunked, where each chunk of images meets a draw of
its own and a cell stops when it is precise enough (stopping.py), which must not spoil its interval.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import NormalDist

import numpy as np
import pytest
from support.chips import DRAWS, IMAGES, Hits, Population, populations
from support.families import BEYOND, CLASSES, FAMILIES, MARGIN, Family
from support.gates import crossed_gates, gates
from support.looks import Looks, stopped

from onnxnoise.statistics.clustered import ChunkHits, estimate_chunks
from onnxnoise.statistics.distributions import quantile
from onnxnoise.statistics.estimates import count, estimate
from onnxnoise.statistics.stopping import FEWEST, RARE


@dataclass(frozen=True)
class Coverage:
    """Shares of runs whose interval held the truth, and mean widths in units of A."""

    fixed: float
    sampled: float
    fixed_width: float
    sampled_width: float
    plain_t: float  # the t interval over draws without the departures, for `fixed`
    pooled_fixed: float  # draws x images as one binomial sample
    pooled_sampled: float


def measure(family: Family, draws: int, runs: int, seed: int = 40) -> Coverage:
    rows = np.array(list(_outcomes(family, draws, runs, np.random.default_rng([seed, draws]))), dtype=np.float64)
    return Coverage(*rows.mean(axis=0).tolist())


def _outcomes(family: Family, draws: int, runs: int, random: np.random.Generator) -> Iterator[tuple[float, ...]]:
    batch = max(1, 1_000_000 // (family.layers * draws * family.images))
    for start in range(0, runs, batch):
        hits, clean, conditional = family.sample(random, min(batch, runs - start), draws)
        for noisy, kept, here in zip(hits, clean, conditional, strict=True):
            yield _outcome(noisy, kept, float(here), family.truth)


def _outcome(noisy: Hits, clean: Hits, here: float, truth: float) -> tuple[float, ...]:
    """One run's fields of Coverage: hits (layers, draws, images), clean hits (images,), A on these images, A on all."""
    sums = count(noisy, clean)
    result = estimate(sums)
    assert result.fixed is not None
    assert result.sampled is not None
    draws = noisy.shape[1]
    plain = quantile(0.975, draws - 1) * np.std(sums.ratios, ddof=1) / draws**0.5
    rate = noisy.mean()
    pooled = NormalDist().inv_cdf(0.975) * (rate * (1.0 - rate) / noisy.size) ** 0.5 / clean.mean()
    return (
        result.fixed[0] <= here <= result.fixed[1],
        result.sampled[0] <= truth <= result.sampled[1],
        result.fixed[1] - result.fixed[0],
        result.sampled[1] - result.sampled[0],
        abs(result.mean - here) <= plain,
        abs(result.mean - here) <= pooled,
        abs(result.mean - truth) <= pooled,
    )


RUNS = 1500
LEAST = 0.94 - 2.5 * (0.94 * 0.06 / RUNS) ** 0.5  # a true 0.94 falls below with one seed in 160; ours is fixed


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_both_intervals_hold_the_truth_from_ten_draws_on(family: Family) -> None:
    coverage = measure(family, draws=10, runs=RUNS)
    assert coverage.fixed >= LEAST
    assert coverage.sampled >= LEAST


def test_skewed_draws_need_more_than_a_t_interval() -> None:
    coverage = measure(FAMILIES[2], draws=10, runs=RUNS)
    assert coverage.plain_t < LEAST <= coverage.fixed


def test_pooling_draws_and_images_is_several_times_too_narrow() -> None:
    coverage = measure(FAMILIES[0], draws=10, runs=200)
    assert coverage.pooled_fixed < 0.5
    assert coverage.pooled_sampled < 0.5


def test_a_rare_collapse_is_beyond_ten_draws() -> None:
    """Not a wish but a fact for the documentation: 0.9^10, a third of all runs, see no collapse at all."""
    assert measure(BEYOND[1], draws=10, runs=200).fixed < 1.0 - 0.9**10 + 0.1


SIZE, MOST = 32, 160
"""Images in a chunk, and the most draws a cell may have."""

PRECISIONS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12)
CLOSE = tuple(
    replace(
        family, name=f"{family.name}, close", shift=partial(lambda shift, u: 0.2 * shift(u), family.shift), noise=0.2
    )
    for family in FAMILIES[:3:2]
)
"""Families of a fifth of the draw effect, which reach 0.01 before they have all draws, and so make the rule decide."""

CHUNKED = tuple(family for family in FAMILIES if family.layers == 1) + CLOSE


def simulated(family: Family, runs: int, seed: int = 40) -> Looks:
    """Cells of a family, each draw on a chunk of its own."""
    random = np.random.default_rng([seed, 7])
    counts = []
    for _ in range(0, runs, batch := 50):
        margin = random.standard_normal((batch, MOST, SIZE), dtype=np.float32) + np.float32(MARGIN)
        label = random.integers(CLASSES, size=margin.shape)
        counts.append((np.count_nonzero(margin > 0, axis=2), *family.changes(random, margin, label)))
    return Looks.of(SIZE, *(np.concatenate(each) for each in zip(*counts, strict=True)))


def resampled(population: Population, runs: int, most: int = MOST, seed: int = 40, size: int = SIZE) -> Looks:
    """Cells of a recorded population, each draw on a chunk of its own."""
    return Looks.of(size, *population.chunked(np.random.default_rng([seed, 8]), (runs, most, size)))


def at_least(share: float, runs: int) -> float:
    """The lowest coverage at which a true `share` isn't ruled out: it falls below with one seed in 160; ours is fixed."""
    return share - 2.5 * (share * (1.0 - share) / runs) ** 0.5


CHUNKED_RUNS = 600


@pytest.mark.parametrize("family", CHUNKED, ids=lambda family: family.name)
def test_stopping_when_precise_spoils_no_interval(family: Family) -> None:
    looks = simulated(family, CHUNKED_RUNS)
    results = [stopped(looks, family.truth, precision, MOST) for precision in PRECISIONS]
    assert looks.hold(family.truth)[:, [31, 63, MOST - 1]].mean(axis=0).min() >= at_least(0.94, CHUNKED_RUNS)
    assert min(each.covered for each in results) >= at_least(0.94, CHUNKED_RUNS), "whatever the precision asked for"
    assert min(each.covered_early for each in results if each.early > 0.5) >= at_least(0.94, CHUNKED_RUNS)
    assert min([each.end for each in results if each.early > 0.5 and each.draws > 36] or [1.0]) > 0.9, "as asked"
    assert [each.draws for each in results] == sorted((each.draws for each in results), reverse=True)


DEFAULTS = ((16, 189), (32, 96), (32, 938))
"""The images of a chunk, and the most draws, of default runs on 1,000 images, twice, and on 10,000."""


def first_look(population: Population) -> int:
    """The draws before the first look: chips whose batch norms' variances are noisy, in all layers at once, may collapse."""
    return RARE if population.name.startswith("group") else FEWEST


@pytest.mark.parametrize(("size", "most"), DEFAULTS[:2])
@pytest.mark.parametrize("population", populations(), ids=lambda each: each.name)
def test_intervals_of_real_chips_hold_in_the_default_design(population: Population, size: int, most: int) -> None:
    """Known to +-0.01, or with the draws that three passes over 1,000 images make."""
    looks = resampled(population, CHUNKED_RUNS, most, size=size)
    result = stopped(looks, population.truth, 0.01, most, first_look(population))
    assert result.covered >= at_least(0.94, CHUNKED_RUNS)


@pytest.mark.parametrize("precision", [0.03, 0.05])
def test_cells_with_rare_collapses_have_met_some_before_they_stop(precision: float) -> None:
    """At precisions that few draws reach, `group` at SNR 10 needs a later first look than other cells."""
    population = populations()[0]
    looks = resampled(population, 1000)
    late, early = (stopped(looks, population.truth, precision, MOST, fewest) for fewest in (RARE, FEWEST))
    assert late.covered >= at_least(0.94, 1000)
    assert early.covered < late.covered
    assert late.draws < 3.1 * early.draws


def test_few_draws_on_all_images_miss_where_a_few_chips_collapse() -> None:
    """Not a wish but a fact for the documentation: the README's first network under `group`, ten and forty draws."""
    population = populations()[0]
    held = {draws: crossed(population, draws, 300).sampled for draws in (10, 40)}
    assert held[10] < 0.9, "hence the warning"
    assert held[40] > held[10] - 0.06


def test_sums_of_looks_are_the_product_s_intervals() -> None:
    for population in populations():
        counts = population.chunked(np.random.default_rng(1), (3, 40, SIZE))
        looks = Looks.of(SIZE, *counts)
        for run, draws in ((0, 2), (1, 5), (2, 40)):
            clean, lost, gained = (each[run].tolist() for each in counts)
            cell = {i: ChunkHits(SIZE, clean[i], 1, lost[i], gained[i]) for i in range(draws)}
            result = estimate_chunks(cell)
            column = (each[run, draws - 1] for each in (looks.mean, looks.low, looks.high))
            assert tuple(column) == pytest.approx((result.mean, *(result.sampled or ())))


def error_of(population: Population, draws: int, images: int, runs: int, *, crossed: bool) -> float:
    """Mean square error of A from draws that all met the same images (`crossed`), or each so many of its own."""
    random = np.random.default_rng([40, draws, images])
    if crossed:
        chips = random.integers(len(population.hits), size=(runs, draws))
        columns = random.integers(population.clean.size, size=(runs, images))
        pairs = zip(chips, columns, strict=True)
        found = [population.hits[one][:, here].mean() / population.clean[here].mean() for one, here in pairs]
    else:
        clean, lost, gained = (each.sum(axis=1) for each in population.chunked(random, (runs, draws, images)))
        found = 1.0 - (lost - gained) / clean
    return float(np.square(np.array(found) - population.truth).mean())


def test_many_draws_on_few_images_each_tell_many_times_as_much() -> None:
    """At 10,000 passes, in every cell."""
    for population in populations():
        few, many = error_of(population, 10, 1000, 150, crossed=True), error_of(population, 625, 16, 150, crossed=False)
        assert few > 8.0 * many, population.name


GATES = 200
FALSE = 0.05 + 2.5 * (0.05 * 0.95 / GATES) ** 0.5  # a true 0.05 goes above with one seed in 160; ours is fixed


@pytest.mark.parametrize("images", [1000, 20_000])
@pytest.mark.parametrize("population", populations(), ids=lambda each: each.name)
def test_a_gate_on_real_chips_is_hardly_ever_wrong_and_decides_what_is_clear(
    population: Population, images: int
) -> None:
    at_truth = gates(population, images, 0.0, GATES)
    assert at_truth.passed <= FALSE
    assert at_truth.failed <= FALSE
    above = gates(population, images, 0.1, 60)
    assert above.passed >= 0.9
    assert above.evaluations < 4500, "images that are passed"
    assert gates(population, images, -0.1, 30).failed >= 0.8


def test_a_gate_on_a_run_file_of_real_chips_is_hardly_ever_wrong() -> None:
    for population in populations():
        for draws in (10, 40):
            outcome = crossed_gates(population, draws, 400, 0.0, 25)
            assert outcome.passed <= 0.13, population.name
            assert outcome.failed <= 0.13, population.name


def crossed(population: Population, draws: int, runs: int, seed: int = 40) -> Coverage:
    """Coverage of a recorded population's intervals in runs where every draw meets every image."""
    random = np.random.default_rng([seed, draws])
    rows = []
    for _ in range(runs):
        columns = random.integers(population.clean.size, size=population.clean.size)
        chips = random.integers(len(population.hits), size=draws)
        here = population.hits[:, columns].mean() / population.clean[columns].mean()
        rows.append(
            _outcome(population.hits[chips][:, columns][None], population.clean[columns], here, population.truth)
        )
    return Coverage(*np.array(rows, dtype=np.float64).mean(axis=0).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Coverage of the 95 % intervals, and verdicts of gates, in percent of runs."
    )
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--draws", type=int, nargs="+", default=[3, 5, 10, 20])
    parser.add_argument("--design", choices=["crossed", "chunked", "both"], default="both")
    parser.add_argument("--only", choices=["chips", "families", "both"], default="both")
    arguments = parser.parse_args()
    if arguments.only != "families":
        _print_chips(min(arguments.runs, 1000), [3, 10, 20, 40])
    if arguments.only == "chips":
        return
    if arguments.design != "chunked":
        _print_crossed(arguments.runs, arguments.draws)
    if arguments.design != "crossed":
        _print_chunked(arguments.runs)


def _print_crossed(runs: int, draws: Sequence[int]) -> None:
    print("every draw meets every image")
    print("family           A      draws  fixed (width)   sampled (width)  plain t  pooled: fixed  sampled")
    for family in (*FAMILIES, *BEYOND):
        for number in draws:
            begun = time.perf_counter()
            c = measure(family, number, runs)
            print(
                f"{family.name:15s} {family.truth:6.4f} {number:6d} {c.fixed:8.1%} ({c.fixed_width:.4f})"
                f" {c.sampled:8.1%} ({c.sampled_width:.4f}) {c.plain_t:8.1%} {c.pooled_fixed:10.1%}"
                f" {c.pooled_sampled:11.1%}   {time.perf_counter() - begun:.0f} s",
                flush=True,
            )


def _print_chips(runs: int, draws: Sequence[int]) -> None:
    print(
        f"hits of real chips: the bundled network, {DRAWS} chips x {IMAGES} images, resampled; every draw on every image"
    )
    print("cell              A      sd     draws  fixed (width)   sampled (width)")
    for population in populations():
        for number in draws:
            c = crossed(population, number, runs)
            print(
                f"{population.name:16s} {population.truth:6.3f} {population.spread:6.3f} {number:6d}"
                f" {c.fixed:8.1%} ({c.fixed_width:.3f}) {c.sampled:9.1%} ({c.sampled_width:.3f})",
                flush=True,
            )
    print(f"the same, each draw on {SIZE} images of its own, {MOST} draws at most, until precise")
    for population in populations():
        print(f"first look at {first_look(population)} draws")
        _print_looks(population.name, resampled(population, runs), population.truth, first_look(population))
    print("mean square error of A at 10,000 passes: ten draws on 1,000 images, over that of")
    for population in populations():
        few = error_of(population, 10, 1000, runs, crossed=True)
        shares = [
            few / error_of(population, draws, size, runs, crossed=False) for draws, size in ((200, 50), (625, 16))
        ]
        print(f"{population.name:16s} 200 draws on 50 each {shares[0]:5.1f}   625 draws on 16 each {shares[1]:5.1f}")
    print("default runs, to +-0.01")
    for population in populations():
        for size, most in DEFAULTS:
            looks = resampled(population, runs, most, size=size)
            one = stopped(looks, population.truth, 0.01, most, first_look(population))
            print(
                f"{population.name:16s} {size} images a chunk, {most} draws at most: {one.covered:.1%}, {one.draws:.0f} draws; "
                f"stopped early {one.early:.1%}, covered of these {one.covered_early:.1%}",
                flush=True,
            )
    _print_gates(runs)


def _print_gates(runs: int) -> None:
    print("gates on the same chips, each draw on 50 images of its own, the limit below the truth by")
    print("cell               images   0: passes  fails   0.05: passes (evaluations)  0.1                 0.2")
    for population in populations():
        for images in (1000, 20_000):
            at_truth = gates(population, images, 0.0, runs)
            off = [gates(population, images, gap, runs // 2) for gap in (0.05, 0.1, 0.2)]
            said = "  ".join(f"{one.passed:8.1%} ({one.evaluations:6,.0f})" for one in off)
            print(
                f"{population.name:16s} {images:8,} {at_truth.passed:10.1%} {at_truth.failed:6.1%}   {said}", flush=True
            )
    print(f"gates on run files, every draw on {IMAGES} images")
    print("cell              draws   0: passes  fails   0.1: passes   0.2: passes")
    for population in populations():
        for draws in (10, 40):
            at_truth = crossed_gates(population, draws, IMAGES, 0.0, runs // 2)
            off = [crossed_gates(population, draws, IMAGES, gap, runs // 4) for gap in (0.1, 0.2)]
            said = "  ".join(f"{one.passed:12.1%}" for one in off)
            print(f"{population.name:16s} {draws:6d} {at_truth.passed:11.1%} {at_truth.failed:6.1%}{said}", flush=True)


def _print_chunked(runs: int) -> None:
    print(f"each chunk of {SIZE} images meets a draw of its own, {MOST} at most, until precise")
    for family in (*CHUNKED, *BEYOND):
        _print_looks(family.name, simulated(family, runs), family.truth)


def _print_looks(name: str, looks: Looks, truth: float, fewest: int = FEWEST) -> None:
    held = looks.hold(truth).mean(axis=0)
    whatever = ", ".join(
        f"{n}: {held[n - 1]:.1%} (+-{looks.half_widths[:, n - 1].mean():.3f})" for n in (16, 32, 64, MOST)
    )
    print(f"{name:16s} {truth:6.3f}  without stopping, by draws: {whatever}")
    print("                precision  covered   draws   stopped early  covered of these  end / precision")
    for precision in PRECISIONS:
        one = stopped(looks, truth, precision, MOST, fewest)
        print(
            f"{precision:25.3f} {one.covered:8.1%} {one.draws:7.1f} {one.early:15.1%} {one.covered_early:17.1%}"
            f" {one.end:16.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
