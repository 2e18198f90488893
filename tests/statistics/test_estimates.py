"""Estimates against slow loops that follow the design's words, SciPy, and what must hold whatever the bits are."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats

from onnxnoise.records import Bits, Estimate, Interval
from onnxnoise.statistics.estimates import accuracy, average, count, estimate, estimate_accuracy, passing, ratio

THREE = -math.log(0.05)


def bits(seed: int, layers: int = 1, draws: int = 6, images: int = 40, sigma: float = 0.5) -> tuple[Bits, Bits]:
    """Hits (layers, draws, images) and clean hits (images,) with image, draw and interaction effects."""
    random = np.random.default_rng(seed)
    margin = random.normal(1.0, 1.0, images)
    shift = random.normal(0.3, sigma, (layers, draws, 1))
    clean = margin > 0.0
    clean[0] = True
    return margin + random.normal(0.0, sigma, (layers, draws, images)) > shift, clean


def mean_squares(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """MS_draw, MS_image, MS_rest of a two-way layout (draws, images) without replication, cell by cell."""
    draws, images = values.shape
    everything = sum(values[d, j] for d in range(draws) for j in range(images)) / (draws * images)
    of_draw = [sum(values[d, j] for j in range(images)) / images for d in range(draws)]
    of_image = [sum(values[d, j] for d in range(draws)) / draws for j in range(images)]
    rest = sum((values[d, j] - of_draw[d] - of_image[j] + everything) ** 2 for d in range(draws) for j in range(images))
    return (
        images * sum((m - everything) ** 2 for m in of_draw) / (draws - 1),
        draws * sum((m - everything) ** 2 for m in of_image) / (images - 1),
        rest / ((draws - 1) * (images - 1)),
    )


def oracle(noisy: Bits, clean: Bits, departures: bool = True) -> Estimate:
    """The design's section 3.6 in loops and SciPy; `departures` adds the four that intervals.py lists."""
    _, draws, images = noisy.shape
    hits = sum(clean.tolist())
    per_draw = [
        sum(float(noisy[i, d, j]) for i in range(len(noisy)) for j in range(images)) / len(noisy) / hits
        for d in range(draws)
    ]
    mean = sum(per_draw) / draws
    linear = (noisy.mean(axis=0) - mean * clean) * images / hits
    ms_draw, ms_image, ms_rest = mean_squares(linear)
    total = ms_draw + ms_image - ms_rest
    if departures:
        total = max(total, ms_draw, ms_image)
    freedom = total**2 / (
        ms_draw**2 / (draws - 1) + ms_image**2 / (images - 1) + ms_rest**2 / ((draws - 1) * (images - 1))
    )
    if departures:
        freedom = max(freedom, min(draws, images) - 1)
    se_fixed = float(np.std(per_draw, ddof=1)) / draws**0.5
    se_sampled = (total / (draws * images)) ** 0.5
    t_fixed, t_sampled = scipy.stats.t.ppf(0.975, draws - 1), scipy.stats.t.ppf(0.975, freedom)
    if not departures:
        low, high = se_fixed * t_fixed, se_sampled * t_sampled
        return Estimate(mean, (mean - low, mean + low), (mean - high, mean + high))
    # kstat(x, 3) is the unbiased third cumulant; that of a mean of n is 1/n^2 of it
    third_draw = scipy.stats.kstat(per_draw, 3) / draws**2 if draws >= 5 else 0.0
    third_image = scipy.stats.kstat(linear.mean(axis=0), 3) / images**2
    fixed = reach(t_fixed, se_fixed, third_draw, THREE / hits / draws)
    sampled = reach(t_sampled, se_sampled, third_draw + third_image, THREE / hits)
    return Estimate(
        mean,
        (max(0.0, mean - fixed[0]), min(images / hits, mean + fixed[1])),
        (max(0.0, mean - max(fixed[0], sampled[0])), min(images / hits, mean + max(fixed[1], sampled[1]))),
    )


def reach(t: float, error: float, third: float, least: float) -> tuple[float, float]:
    skewness = third / error**3
    sides = [t * error, t * error]
    if abs(skewness) > 0.1:
        sides[int(skewness > 0.0)] += 2 * abs(skewness) * (1 + 2 * t**2) / 6 * error
    return max(sides[0], least), max(sides[1], least)


def flat(result: Estimate) -> list[float]:
    assert result.fixed is not None
    assert result.sampled is not None
    return [result.mean, *result.fixed, *result.sampled]


def width(interval: Interval | None) -> float:
    assert interval is not None
    return interval[1] - interval[0]


@pytest.mark.parametrize(("layers", "draws", "images"), [(1, 2, 30), (1, 3, 40), (1, 7, 25), (3, 6, 30), (5, 10, 12)])
@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.5])
def test_equals_the_slow_oracle(layers: int, draws: int, images: int, sigma: float) -> None:
    for seed in range(5):
        noisy, clean = bits(seed, layers, draws, images, sigma)
        if np.ptp(noisy.sum(axis=(0, 2))) == 0:
            continue  # no skewness to speak of; the tests of no variation look there
        assert flat(average(noisy, clean)) == pytest.approx(flat(oracle(noisy, clean)), rel=1e-7)


def test_equals_the_bare_formula_where_draws_are_symmetric_and_changes_many() -> None:
    random = np.random.default_rng(1)
    margin = random.normal(0.0, 1.0, 400)
    margin = np.concatenate([margin, -margin])
    shift = np.linspace(-0.4, 0.4, 10)[:, None]
    noisy = margin + 0.5 * random.standard_normal((10, 800)) > shift
    clean = np.ones(800, np.bool_)
    assert flat(ratio(noisy, clean)) == pytest.approx(flat(oracle(noisy[None], clean, departures=False)), rel=1e-9)


def test_fixed_is_the_t_interval_over_the_draws_ratios() -> None:
    noisy, clean = bits(3, draws=4, images=500)
    ratios = [float(draw.sum() / clean.sum()) for draw in noisy[0]]
    result = ratio(noisy[0], clean)
    low, high = scipy.stats.t.interval(0.95, 3, np.mean(ratios), scipy.stats.sem(ratios))
    assert count(noisy, clean).ratios == pytest.approx(ratios)
    assert result.mean == pytest.approx(np.mean(ratios))
    assert result.fixed == pytest.approx((low, high))


def test_order_of_draws_and_images_and_chunking_change_nothing() -> None:
    random = np.random.default_rng(5)
    noisy, clean = bits(5, layers=3, draws=8, images=101)
    whole = count(noisy, clean)
    shuffled, order = random.permutation(8), random.permutation(101)
    assert estimate(count(noisy[:, shuffled][:, :, order], clean[order])) == estimate(whole)
    assert count(noisy[:, :, order], clean[order]) == whole
    parts = [count(noisy[:, :, part], clean[part]) for part in (slice(0, 1), slice(1, 60), slice(60, 101))]
    assert parts[0] + parts[1] + parts[2] == parts[2] + parts[0] + parts[1] == whole


def test_a_chunk_without_clean_hits_still_counts() -> None:
    noisy, clean = bits(6)
    clean[20:] = False
    parts = count(noisy[:, :, :20], clean[:20]) + count(noisy[:, :, 20:], clean[20:])
    assert estimate(parts) == average(noisy, clean)


def test_the_average_is_the_mean_over_layers_and_equal_layers_are_one() -> None:
    noisy, clean = bits(7, layers=4)
    assert average(noisy, clean).mean == pytest.approx(np.mean([ratio(layer, clean).mean for layer in noisy]))
    assert average(iter(noisy), clean) == average(noisy, clean)
    assert flat(average([noisy[0]] * 5, clean)) == pytest.approx(flat(ratio(noisy[0], clean)), rel=1e-9)
    assert average(noisy[:1], clean) == ratio(noisy[0], clean)


def test_independent_layers_average_to_a_narrower_interval_shared_draws_do_not() -> None:
    noisy, clean = bits(8, layers=16, draws=10, images=300)
    assert width(average(noisy, clean).fixed) < 0.6 * np.mean([width(ratio(layer, clean).fixed) for layer in noisy])
    assert width(average([noisy[0]] * 16, clean).fixed) == pytest.approx(width(ratio(noisy[0], clean).fixed))


def test_layers_are_never_held_together() -> None:
    draws, images = 4, 20_000
    clean = np.ones(images, np.bool_)

    def layers() -> Iterator[Bits]:
        for seed in range(40):
            yield np.random.default_rng(seed).integers(2, size=(draws, images), dtype=np.uint8).astype(np.bool_)

    tracemalloc.start()
    average(layers(), clean)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 8 * draws * images


def test_sums_do_not_overflow() -> None:
    hits = np.ones((1000, 3), np.bool_)
    hits[0, 0] = False
    sums = count(itertools.repeat(hits, 3000), np.ones(3, np.bool_))
    assert sums.powers[1] == 2 * 3_000_000**3 + 2_997_000**3 > 2**63
    assert estimate(sums).mean == pytest.approx(2999 / 3000)


def test_one_draw_has_no_interval() -> None:
    noisy, clean = bits(9, draws=1)
    result = ratio(noisy[0], clean)
    alone = noisy.sum() / clean.sum()
    assert result == Estimate(alone, None, None, None, alone)


def test_where_no_image_differs_a_rule_of_three_remains() -> None:
    clean = np.arange(100) < 80
    result = ratio(np.tile(clean, (5, 1)), clean)
    assert flat(result) == pytest.approx([1.0, 1 - THREE / 400, 1 + THREE / 400, 1 - THREE / 80, 1 + THREE / 80])
    nothing = ratio(np.zeros((5, 100), np.bool_), clean)
    assert flat(nothing) == pytest.approx([0.0, 0.0, THREE / 400, 0.0, THREE / 80])
    everything = ratio(np.ones((5, 100), np.bool_), clean)
    assert everything.mean == 1.25
    assert everything.fixed == pytest.approx((1.25 - THREE / 400, 1.25))
    assert flat(accuracy(np.ones((5, 100), np.bool_))) == pytest.approx([1, 1 - THREE / 500, 1, 1 - THREE / 100, 1])


def test_draws_that_agree_leave_the_images_to_vary() -> None:
    clean = np.ones(100, np.bool_)
    result = ratio(np.tile(np.arange(100) < 70, (5, 1)), clean)
    assert width(result.fixed) == pytest.approx(2 * THREE / 500)
    se = (0.7 * 0.3 / 99) ** 0.5
    assert width(result.sampled) >= 2 * scipy.stats.t.ppf(0.975, 99) * se * (1 - 1e-9)


@pytest.mark.parametrize("changed", range(1, 30))
def test_few_changed_images_reach_about_as_far_as_the_exact_poisson_bound(changed: int) -> None:
    images = 100_000
    noisy = np.tile(np.arange(images) >= changed, (10, 1))
    result = ratio(noisy, np.ones(images, np.bool_))
    assert result.sampled is not None
    exact = scipy.stats.gamma.ppf(0.975, changed + 1)
    assert exact * 0.99 < (1.0 - result.sampled[0]) * images < exact * 1.07


def test_intervals_hold_their_mean_have_width_and_nest() -> None:
    for seed in range(300):
        random = np.random.default_rng(seed)
        draws, images = int(random.integers(2, 12)), int(random.integers(1, 30))
        noisy = random.random((int(random.integers(1, 4)), draws, images)) < random.choice([0.0, 0.02, 0.5, 0.98, 1.0])
        clean = random.random(images) < 0.9
        clean[0] = True
        mean, low, high, wide_low, wide_high = flat(average(noisy, clean))
        assert 0.0 <= wide_low <= low <= mean <= high <= wide_high
        assert low < high < math.inf
        assert wide_high <= images / clean.sum() * (1 + 1e-12), "more than all images right is impossible"


def test_more_draws_more_images_and_less_spread_narrow_the_intervals() -> None:
    noisy, clean = bits(11, draws=6, images=200)
    once = ratio(noisy[0], clean)
    more_draws = ratio(np.concatenate([noisy[0]] * 3), clean)
    more_images = ratio(np.tile(noisy[0], 4), np.tile(clean, 4))
    assert more_draws.mean == pytest.approx(once.mean)
    assert more_images.mean == pytest.approx(once.mean)
    assert width(more_draws.fixed) < 0.7 * width(once.fixed)
    assert width(more_draws.sampled) < width(once.sampled)
    assert width(more_images.fixed) == pytest.approx(width(once.fixed))
    assert width(more_images.sampled) <= width(once.sampled)
    calm, clean = bits(11, draws=6, images=200, sigma=0.05)
    assert width(ratio(calm[0], clean).fixed) < width(once.fixed)


def test_a_collapsed_draw_lengthens_the_lower_side() -> None:
    noisy, clean = bits(12, draws=10, images=500, sigma=0.05)
    noisy[0, 3, 50:] = False
    mean, low, high, *_ = flat(ratio(noisy[0], clean))
    half = scipy.stats.t.ppf(0.975, 9) * scipy.stats.sem(noisy[0].sum(axis=1) / clean.sum())
    assert mean - low > 1.3 * half
    assert high - mean == pytest.approx(half)


def test_accuracy_is_a_fraction_of_all_images() -> None:
    noisy, clean = bits(13, draws=5, images=60)
    result = accuracy(noisy[0])
    assert estimate_accuracy(count(noisy, clean)) == result
    assert result.mean == pytest.approx(noisy.mean())
    assert flat(result) == pytest.approx(flat(oracle(noisy, np.ones(60, np.bool_))), rel=1e-7)


def test_unpacked_bytes_serve_as_bits() -> None:
    noisy, clean = bits(14)
    assert average(noisy.astype(np.uint8), clean.astype(np.uint8)) == average(noisy, clean)  # type: ignore[arg-type]


def test_what_can_not_be_estimated_is_refused() -> None:
    noisy, clean = bits(15)
    with pytest.raises(ValueError, match="no clean hit"):
        ratio(noisy[0], np.zeros_like(clean))
    with pytest.raises(ValueError, match="do not fit"):
        ratio(noisy[0, :, 1:], clean)
    with pytest.raises(ValueError, match="do not fit"):
        average([noisy[0], noisy[0, 1:]], clean)
    with pytest.raises(ValueError, match="at least one layer"):
        average([], clean)
    with pytest.raises(ValueError, match="at least one layer"):
        ratio(noisy[0, :0], clean)
    with pytest.raises(ValueError, match="same layers and draws"):
        count(noisy, clean) + count(noisy[:, 1:], clean)
    with pytest.raises(ValueError, match="at least one draw"):
        passing([], 0.9)


def test_spread_over_draws() -> None:
    noisy, clean = bits(16, layers=3, draws=12, images=50)
    ratios = [float(noisy[:, d].sum() / (3 * clean.sum())) for d in range(12)]
    target = sorted(ratios)[4]
    result = average(noisy, clean, target)
    assert result.sd == pytest.approx(scipy.stats.tstd(ratios))
    assert result.worst == pytest.approx(min(ratios))
    good = sum(value >= target for value in ratios)
    exact = scipy.stats.binomtest(good, 12).proportion_ci(method="exact")
    assert result.target_yield is not None
    assert (result.target_yield.target, result.target_yield.share) == (target, good / 12)
    assert result.target_yield.interval == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert average(noisy, clean).target_yield is None


def test_the_yield_of_an_accuracy_counts_the_draws_that_the_ratio_s_does() -> None:
    noisy, clean = bits(17, draws=12, images=50)
    sums = count(noisy, clean)
    target = sorted(sums.ratios)[7]
    relative, absolute = estimate(sums, target).target_yield, estimate_accuracy(sums, target).target_yield
    assert relative is not None
    assert absolute is not None
    assert (absolute.share, absolute.interval) == (relative.share, relative.interval)
    assert absolute.target == pytest.approx(target * clean.mean())
    result = estimate_accuracy(sums, target)
    rates = noisy[0].mean(axis=1)
    assert (result.sd, result.worst) == pytest.approx((scipy.stats.tstd(rates), min(rates)))
    assert estimate_accuracy(count(noisy, np.zeros_like(clean)), target).target_yield is None


@pytest.mark.parametrize(("good", "draws"), [(0, 1), (0, 3), (1, 3), (5, 10), (10, 10), (99, 100)])
def test_yield_is_clopper_pearson(good: int, draws: int) -> None:
    result = passing([0.9] * good + [0.899] * (draws - good), 0.9)
    exact = scipy.stats.binomtest(good, draws).proportion_ci(method="exact")
    assert result.share == good / draws
    assert result.interval == pytest.approx((exact.low, exact.high), abs=1e-9)
