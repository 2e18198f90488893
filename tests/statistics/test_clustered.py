"""Clustered estimates against SciPy on the linearized chunks and against the jackknife; and the stopping rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from onnxnoise.records import Estimate, Interval
from onnxnoise.statistics.clustered import (
    ChunkHits,
    Chunks,
    estimate_chunks,
    estimate_chunks_accuracy,
    estimate_layers,
    share_of_images,
)
from onnxnoise.statistics.stopping import StoppingRule, half_width

THREE = -math.log(0.05)
INF = float("inf")


def chunks(
    seed: int, number: int = 20, sigma: float = 0.1, most_draws: int = 1, images: int = 40
) -> dict[int, ChunkHits]:
    """Chunks of one cell, of unequal clean hits, losses and gains."""
    random = np.random.default_rng(seed)
    found = {}
    for start in range(0, number * images, images):
        clean, draws = int(random.integers(images // 2, images)), int(random.integers(1, most_draws + 1))
        rate = np.clip(random.normal(0.15, sigma, draws), 0.02, 1.0)
        lost, gained = random.binomial(clean, rate).sum(), random.binomial(images - clean, rate / 2).sum()
        found[start] = ChunkHits(images, clean, draws, int(lost), int(gained))
    return found


def sampled(result: Estimate) -> Interval:
    assert result.sampled is not None
    return result.sampled


def ratio(cell: Chunks) -> float:
    hits = sum(one.draws * one.clean - one.lost + one.gained for one in cell.values())
    return hits / sum(one.draws * one.clean for one in cell.values())


def oracle(cell: Chunks) -> tuple[float, float, float]:
    """A and its 95 % interval: SciPy's unbiased cumulants of the chunks' linearized losses and gains."""
    k = len(cell)
    unseen = THREE / sum(one.clean for one in cell.values())
    whole = [one.draws * one.clean for one in cell.values()]
    each = {}
    for name in ("lost", "gained"):
        counts = [getattr(one, name) for one in cell.values()]
        each[name] = np.array(
            [(c - sum(counts) / sum(whole) * w) * k / sum(whole) for c, w in zip(counts, whole, strict=True)]
        )
    error = math.sqrt(scipy.stats.kstat(each["gained"] - each["lost"], 2) / k)
    losses, gains = (scipy.stats.kstat(each[name], 3) / k**2 if k >= 5 else 0.0 for name in ("lost", "gained"))
    t = scipy.stats.t.ppf(0.975, k - 1)
    sides = []
    for third in (max(losses, 0) - min(gains, 0), max(gains, 0) - min(losses, 0)):
        skewness = third / error**3
        side = t * error + (2 * skewness * (1 + 2 * t**2) / 6 * error if skewness > 0.1 else 0.0)
        sides.append(max(side, unseen))
    top = sum(one.draws * one.images for one in cell.values()) / sum(whole)
    return ratio(cell), max(ratio(cell) - sides[0], 0.0), max(min(ratio(cell) + sides[1], top), ratio(cell))


@pytest.mark.parametrize("number", [2, 4, 5, 16, 64])
@pytest.mark.parametrize("most_draws", [1, 3])
@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.3])
def test_equals_the_oracle(number: int, most_draws: int, sigma: float) -> None:
    for seed in range(5):
        cell = chunks(seed, number, sigma, most_draws)
        result = estimate_chunks(cell)
        assert (result.mean, *sampled(result)) == pytest.approx(oracle(cell), rel=1e-9)
        assert (result.fixed, result.sd, result.worst, result.target_yield) == (None, None, None, None)


def test_the_width_is_the_jackknife_s() -> None:
    """Leaving out one chunk at a time knows nothing of the formula."""
    cell = chunks(1, 400, 0.1)
    left_out = [ratio({start: one for start, one in cell.items() if start != gone}) for gone in cell]
    error = math.sqrt((len(cell) - 1) * float(np.var(left_out)))
    assert half_width(estimate_chunks(cell)) == pytest.approx(scipy.stats.t.ppf(0.975, len(cell) - 1) * error, rel=0.02)


def test_order_changes_nothing_and_draws_of_a_chunk_add_up() -> None:
    cell = chunks(2, most_draws=3)
    backwards = dict(reversed(cell.items()))
    assert estimate_chunks(backwards) == estimate_chunks(cell)
    assert estimate_layers([backwards, cell]) == estimate_layers([cell, cell])
    one, other = ChunkHits(40, 30, 1, 3, 1), ChunkHits(40, 30, 2, 5, 0)
    assert one + other == ChunkHits(40, 30, 3, 8, 1)
    with pytest.raises(ValueError, match="the same images"):
        one + ChunkHits(40, 31, 1, 0, 0)


def test_more_draws_on_the_same_chunks_are_no_more_clusters() -> None:
    """Draws that agree on every chunk say nothing new about other images."""
    cell = chunks(3)
    thrice = {start: one + one + one for start, one in cell.items()}
    assert (estimate_chunks(thrice).mean, *sampled(estimate_chunks(thrice))) == pytest.approx(
        (estimate_chunks(cell).mean, *sampled(estimate_chunks(cell)))
    )


def test_where_no_image_differs_a_rule_of_three_remains() -> None:
    cell = {start: ChunkHits(50, 40, 2, 0, 0) for start in range(0, 1000, 50)}
    assert (estimate_chunks(cell).mean, *sampled(estimate_chunks(cell))) == pytest.approx(
        (1, 1 - THREE / 800, 1 + THREE / 800)
    )
    nothing = {start: ChunkHits(50, 40, 1, 40, 0) for start in range(0, 1000, 50)}
    assert (estimate_chunks(nothing).mean, *sampled(estimate_chunks(nothing))) == pytest.approx((0, 0, THREE / 800))


@pytest.mark.parametrize("changed", range(1, 30))
def test_few_losses_reach_about_as_far_as_the_exact_poisson_bound(changed: int) -> None:
    number = 2000
    cell = {start: ChunkHits(50, 50, 1, int(start < changed), 0) for start in range(number)}
    exact = scipy.stats.gamma.ppf(0.975, changed + 1)
    assert exact * 0.99 < (1.0 - sampled(estimate_chunks(cell))[0]) * number * 50 < exact * 1.07


def test_losses_and_gains_that_cancel_still_leave_both_tails() -> None:
    """Two of each: A is 1, and the exact bounds on four events apart reach further than 1.96 standard errors of four."""
    number = 2000
    cell = {start: ChunkHits(50, 45, 1, int(start < 2), int(2 <= start < 4)) for start in range(number)}
    low, high = sampled(estimate_chunks(cell))
    assert low + high == pytest.approx(2.0)
    assert (high - low) / 2 * number * 45 > 1.3 * 1.96 * 2


def test_accuracy_is_a_fraction_of_all_images() -> None:
    cell = chunks(4, most_draws=3)
    hits = sum(one.draws * one.clean - one.lost + one.gained for one in cell.values())
    result = estimate_chunks_accuracy(cell)
    assert result.mean == pytest.approx(hits / sum(one.draws * one.images for one in cell.values()))
    always = {
        start: replace(
            one, clean=one.images, lost=one.draws * (one.images - one.clean) + one.lost - one.gained, gained=0
        )
        for start, one in cell.items()
    }
    assert (result.mean, *sampled(result)) == pytest.approx(oracle(always))
    perfect = {start: ChunkHits(10, 10, 1, 0, 0) for start in range(0, 100, 10)}
    assert sampled(estimate_chunks_accuracy(perfect)) == (pytest.approx(1 - THREE / 100), 1.0)


def test_an_average_is_the_mean_over_layers_each_from_all_its_chunks() -> None:
    layers = [chunks(5, 64), chunks(6, 32), chunks(7, 48)]
    assert estimate_layers(layers).mean == pytest.approx(np.mean([ratio(layer) for layer in layers]))
    assert estimate_layers(layers[:1]) == estimate_chunks(layers[0])
    same = estimate_layers([layers[0]] * 3)
    assert (same.mean, *sampled(same)) == pytest.approx(
        (estimate_chunks(layers[0]).mean, *sampled(estimate_chunks(layers[0])))
    )


def test_chunks_that_layers_share_are_one_cluster() -> None:
    """Apart, layers' variances add; together, those of their sum count: here the second undoes the first."""
    one = {start: ChunkHits(40, 40, 1, 5 + start % 3, 0) for start in range(30)}
    other = {start: ChunkHits(40, 40, 1, 7 - start % 3, 0) for start in range(30)}
    elsewhere = {start + 100: each for start, each in other.items()}
    alone = half_width(estimate_chunks(one))
    assert half_width(estimate_layers([one, elsewhere])) == pytest.approx(alone / math.sqrt(2), rel=1e-6)
    assert half_width(estimate_layers([one, other])) == pytest.approx(THREE / 1200), "no more than is unseen"


def test_what_can_not_be_estimated_is_refused() -> None:
    assert estimate_chunks({0: ChunkHits(10, 8, 3, 6, 0)}) == Estimate(0.75, None, None)
    assert half_width(estimate_chunks({0: ChunkHits(10, 8, 3, 6, 0)})) == INF
    assert estimate_layers([chunks(8), {0: ChunkHits(10, 8, 1, 0, 0)}]).sampled is None
    for nothing in ({}, {0: ChunkHits(10, 0, 2, 0, 3)}):
        with pytest.raises(ValueError, match="no clean hit"):
            estimate_chunks(nothing)
    with pytest.raises(ValueError, match="at least one layer"):
        estimate_layers([])


def looks(rule: StoppingRule, width: Callable[[int], float]) -> list[int]:
    """The looks of a cell, each asked for at every number of draws before it, as after any interruption."""
    draws, found = 0, list[int]()
    while (more := rule.next(draws, width)) is not None:
        assert all(rule.next(between, width) == more for between in range(draws, more))
        draws = more
        found.append(more)
    return found


@pytest.mark.parametrize("scale", [0.02, 0.08, 0.3, 2.0])
def test_a_cell_ends_within_a_tenth_of_the_precision_asked_for(scale: float) -> None:
    found = looks(StoppingRule(0.01, 10**6), lambda draws: scale / draws**0.5)
    assert 0.009 < scale / found[-1] ** 0.5 <= 0.01 or found == [32]
    assert len(found) < 25, "with few interruptions"
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("width", "most", "found"),
    [
        (0.0, 189, [32]),
        (0.0, 20, [20]),
        (1.0, 32, [32]),
        (1.0, 50, [32, 50]),
        (1.0, 500, [32, 500]),
        (INF, 500, [32, 64, 128, 256, 500]),
    ],
)
def test_a_cell_has_32_draws_and_no_more_than_it_may(width: float, most: int, found: list[int]) -> None:
    assert looks(StoppingRule(0.01, most), lambda _: width) == found


def test_the_first_look_may_be_later() -> None:
    assert looks(StoppingRule(0.01, 500, 64), lambda _: 0.0) == [64]
    assert looks(StoppingRule(0.01, 40, 64), lambda _: 0.0) == [40]


def test_without_a_precision_a_cell_gets_all_draws() -> None:
    assert looks(StoppingRule(0.0, 300), lambda _: 0.001)[-1] == 300


def test_the_share_of_the_variance_that_is_the_images() -> None:
    """Images alone: all draws on a chunk agree. Draws alone: a chunk's two draws differ as much as two chunks do."""
    random = np.random.default_rng(3)
    alike, apart, once = list[tuple[int, ChunkHits]](), list[tuple[int, ChunkHits]](), list[tuple[int, ChunkHits]]()
    for start in range(400):
        lost = int(random.binomial(20, 0.3))
        alike += [(start, ChunkHits(20, 20, 1, lost, 0))] * 3
        apart += [(start, ChunkHits(20, 20, 1, int(random.binomial(20, 0.3)), 0)) for _ in range(3)]
        once += [(start, ChunkHits(20, 20, 1, lost, 0))]
    assert share_of_images(alike) == pytest.approx(1.0)
    assert share_of_images(apart) == pytest.approx(0.0, abs=0.2)
    assert share_of_images(once) is None, "no chunk met two draws"
    assert share_of_images([(0, ChunkHits(20, 20, 1, 0, 0)), (1, ChunkHits(20, 20, 1, 0, 0))] * 2) is None, (
        "nothing varies"
    )
