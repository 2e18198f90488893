"""Differences between models: their variance, intervals and p-values, and how often ties are told apart.

`python tests/test_compare_statistics.py` prints the rates of more families and runs.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import chain, combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import ndtri

from onnxnoise.statistics.contrasts import Contrast, Side, absolute, contrast, difference, holm, normalized
from onnxnoise.statistics.estimates import accuracy, average

Array = npt.NDArray[Any]


def some_hits(layers: int, draws: int, images: int, seed: int) -> tuple[Array, Array]:
    """(hits (layers, draws, images), clean hits), with effects of image, draw and layer."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(1.0, 1.0, images)
    shift = rng.normal(0.3, 0.4, (layers, draws, 1))
    return margin + 0.5 * rng.normal(size=(layers, draws, images)) > shift, margin > 0


def side_of(hits: Array, clean: Array) -> Side:
    return Side(hits.sum(axis=0).astype(np.int64), len(hits), clean)


@pytest.mark.parametrize(("layers", "draws", "images"), [(1, 2, 60), (3, 4, 50), (1, 10, 300), (4, 12, 80), (1, 5, 7)])
def test_of_one_model_the_intervals_are_those_of_bench(layers: int, draws: int, images: int) -> None:
    for seed in range(5):
        hits, clean = some_hits(layers, draws, images, seed)
        side = side_of(hits, clean)
        value, each, image, decisions = normalized(side)
        found = contrast(value, [each], image, decisions)
        known = average(hits, clean)
        assert found is not None
        assert known.sampled is not None
        assert known.fixed is not None
        assert value == pytest.approx(known.mean)
        low, high = found.interval()
        assert (max(low, 0.0), min(high, images / clean.sum())) == pytest.approx(known.sampled)
        low, high = found.interval(fixed=True)
        assert (max(low, 0.0), min(high, images / clean.sum())) == pytest.approx(known.fixed)
        if layers == 1:
            value, each, image, decisions = absolute(side)
            found = contrast(value, [each], image, decisions)
            plain = accuracy(hits[0])
            assert found is not None
            assert plain.sampled is not None
            assert (max(found.interval()[0], 0.0), min(found.interval()[1], 1.0)) == pytest.approx(plain.sampled)


def slow_variance(sides: list[Array], image: Array) -> float:
    """V_draw + V_image - V_rest by the definitions of the mean squares, number by number."""
    images = len(image)
    by_draw = rest = 0.0
    together = [
        image[j] + sum(sum(side[d][j] for d in range(len(side))) / len(side) for side in sides) for j in range(images)
    ]
    for side in sides:
        draws = len(side)
        row = [sum(side[d][j] for j in range(images)) / images for d in range(draws)]
        column = [sum(side[d][j] for d in range(draws)) / draws for j in range(images)]
        mean = sum(row) / draws
        ms_draw = images * sum((each - mean) ** 2 for each in row) / (draws - 1)
        squares = sum((side[d][j] - row[d] - column[j] + mean) ** 2 for d in range(draws) for j in range(images))
        by_draw += ms_draw / (draws * images)
        rest += squares / ((draws - 1) * (images - 1)) / (draws * images)
    mean = sum(together) / images
    by_image = sum((each - mean) ** 2 for each in together) / (images - 1) / images
    return float(max(by_draw + by_image - rest, by_draw, by_image))


@pytest.mark.parametrize("by_draw", [False, True])
def test_a_difference_s_variance_is_that_of_its_mean_squares(by_draw: bool) -> None:
    for seed in range(3):
        one, clean = some_hits(2, 4, 25, seed)
        other, _ = some_hits(3, 4 if by_draw else 6, 25, seed + 10)
        first, second = normalized(side_of(one, clean)), normalized(side_of(other, clean[::-1]))
        found = difference(first, second, by_draw=by_draw)
        sides = [first[1] - second[1]] if by_draw else [first[1], -second[1]]
        assert found is not None
        assert found.sampled.variance == pytest.approx(slow_variance(sides, first[2] - second[2]))
        assert found.value == pytest.approx(one.mean() / clean.mean() - other.mean() / clean.mean(), abs=1e-12)


@pytest.mark.parametrize("by_draw", [False, True], ids=["independent chips", "the same noise"])
def test_the_variance_is_the_one_over_repetitions(by_draw: bool) -> None:
    """Effects of known size: images shared by both models and own, draws, and the rest; everything drawn anew each time."""
    rng = np.random.default_rng(1)
    images, counts = 20, (5, 5) if by_draw else (4, 7)
    values, estimates = [], []
    for _ in range(4000):
        shared = rng.normal(0.0, 1.0, images)
        noise = rng.normal(0.0, 0.4, (counts[0], 1))
        sides = []
        for count in counts:
            own = 0.5 * rng.normal(size=images)
            chips = noise + rng.normal(0.0, 0.1, (count, 1)) if by_draw else rng.normal(0.0, 0.4, (count, 1))
            sides.append(shared + own + chips + rng.normal(0.0, 0.6, (count, images)))
        pair = [sides[0] - sides[1]] if by_draw else [sides[0], -sides[1]]
        value = sides[0].mean() - sides[1].mean()
        found = contrast(value, pair, np.zeros(images), images)
        assert found is not None
        values.append(value)
        estimates.append(found.sampled.variance)
    assert np.mean(estimates) == pytest.approx(np.var(values), rel=0.08)


def some_contrasts() -> list[Contrast]:
    found = []
    for seed in range(12):
        draws = 3 + seed
        one, clean = some_hits(1, draws, 120, seed)
        other, _ = some_hits(1, draws, 120, seed + 50)
        found.append(difference(absolute(side_of(one, clean)), absolute(side_of(other, clean)), by_draw=False))
    return [each for each in found if each is not None]


@pytest.mark.parametrize("error", [0.3, 0.05, 0.01, 0.0005])
def test_p_values_are_where_intervals_end(error: float) -> None:
    for found in some_contrasts():
        for each in (found, *(replace(found, value=float(value)) for value in np.linspace(-0.5, 0.5, 41))):
            low, high = each.interval(1.0 - error)
            assert (each.p_zero() <= error) == (not low <= 0.0 <= high)


def test_one_draw_tells_nothing() -> None:
    hits, clean = some_hits(1, 1, 30, 0)
    more, _ = some_hits(1, 4, 30, 1)
    assert difference(normalized(side_of(hits, clean)), normalized(side_of(more, clean)), by_draw=False) is None


def test_equal_hits_are_a_tie_of_some_width() -> None:
    hits, clean = some_hits(1, 5, 50, 0)
    measured = normalized(side_of(hits, clean))
    found = difference(measured, measured, by_draw=True)
    assert found is not None
    assert found.p_zero() == 1.0
    low, high = found.interval()
    assert low < 0.0 < high


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    """The oracle: an adjusted p is the largest, over all sets with that comparison, of the set's size times its least p."""
    rng = np.random.default_rng(3)
    for count in (1, 2, 5, 7):
        p_values = (rng.random(count) ** 3).tolist()
        sets = list(chain.from_iterable(combinations(range(count), size) for size in range(1, count + 1)))
        expected = [
            max(min(1.0, len(chosen) * min(p_values[i] for i in chosen)) for chosen in sets if each in chosen)
            for each in range(count)
        ]
        assert holm(p_values) == pytest.approx(expected)


# -- how often ties are told apart -------------------------------------------------------------------------------------

SHAPES: dict[str, Any] = {
    "normal": lambda u: 0.35 * ndtri(u),
    "skewed": lambda u: -0.5 * np.log1p(-u) - 0.5,
    "collapse 0.3": lambda u: np.where(u < 0.3, 9.0, 0.0),
}


def told_apart(
    shape: str, *, runs: int, draws: int, better: float = 0.0, paired: bool = False, seed: int = 7
) -> tuple[float, float, float]:
    """Of three models on the same 200 images at two SNRs: shares of runs in which any two are told apart, by Holm's
    method and without it; and in which the first, whose margins are larger by `better`, is told from the second at both.
    """
    rng = np.random.default_rng([seed, draws])
    any_of, without, found = 0, 0, 0
    images, models = 200, 3
    for _ in range(runs):
        common = rng.normal(size=images)
        margins = [1.0 + 0.8 * common + 0.6 * rng.normal(size=images) for _ in range(models)]
        margins[0] = margins[0] + better
        p_values = []
        for level in (0.2, 0.6):
            chip = rng.random((draws, 1))
            sides = []
            for margin in margins:
                u = chip if paired else rng.random((draws, 1))
                hits = margin + 0.5 * rng.normal(size=(draws, images)) > level + SHAPES[shape](u)
                sides.append(absolute(Side(hits.astype(np.int64), 1, margin > 0)))
            for one, other in combinations(sides, 2):
                law = difference(one, other, by_draw=paired)
                assert law is not None
                p_values.append(law.p_zero())
        any_of += min(holm(p_values)) <= 0.05
        without += min(p_values) <= 0.05
        found += max(holm(p_values)[i] for i in (0, 3)) <= 0.05
    return any_of / runs, without / runs, found / runs


@pytest.mark.parametrize("paired", [False, True], ids=["by image", "by image and draw"])
def test_ties_are_told_apart_in_one_run_of_twenty_at_most(paired: bool) -> None:
    any_of, without, _ = told_apart("normal", runs=300, draws=10, paired=paired)
    assert any_of <= 0.05 + 2.5 * (0.05 * 0.95 / 300) ** 0.5
    assert without > 0.09, "six comparisons without Holm's method: the bound above is no accident"


def test_a_better_model_is_found() -> None:
    assert told_apart("normal", runs=60, draws=10, better=0.8)[2] > 0.8
    independent = told_apart("normal", runs=60, draws=10, better=0.4)[2]
    assert told_apart("normal", runs=60, draws=10, better=0.4, paired=True)[2] > independent + 0.2, (
        "pairing by draw pays"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Shares of runs in which any of three equal models are told apart.")
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    print("family          draws  paired by       Holm  no Holm")
    for shape in SHAPES:
        for draws in (3, 5, 10, 20):
            for paired in (False, True):
                any_of, without, _ = told_apart(shape, runs=runs, draws=draws, paired=paired)
                print(
                    f"{shape:15s} {draws:5d}  {'image and draw' if paired else 'image':14s} {any_of:5.1%} {without:7.1%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
