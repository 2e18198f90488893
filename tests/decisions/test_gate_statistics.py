"""How often the gate decides wrongly over its whole sequence of looks; `python tests/test_gate_statistics.py` prints more.

The families are those of support/families.py. The limit is put at the truth itself: the worst case of a false pass (the rule
then holds with equality) and of a false failure at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.families import BEYOND, FAMILIES, Family

from onnxnoise.statistics.contrasts import Contrast, Side, contrast, normalized
from onnxnoise.statistics.sequential import LOOKS, RARE_IN_A_FILE, SPENT, Range, least_draws, look_errors, overall, read

Array = npt.NDArray[Any]

SMALL = {family.name: replace(family, images=200) for family in (*FAMILIES, *BEYOND)}
SMALL["cliff 0.15"] = replace(SMALL["cliff 0.2"], name="cliff 0.15", collapse=0.15)
SMALL["cliff 0.05"] = replace(SMALL["cliff 0.1"], name="cliff 0.05", collapse=0.05)
CONFIDENCE = 0.95


def looks(hits: Array, clean: Array) -> Iterator[tuple[int, float, Contrast, Range]]:
    """(draws, error, law, possible values) of each look at hits (layers, draws, images)."""
    for draws, error in zip(LOOKS, look_errors(CONFIDENCE), strict=True):
        value, each, images, decisions = normalized(Side(hits[:, :draws].sum(axis=0), len(hits), clean))
        found = contrast(value, [each], images, decisions)
        assert found is not None
        yield draws, error, found, Range(0.0, 1.0 / float(clean.mean()))


@dataclass(frozen=True)
class Rates:
    """Shares of runs that passed, that failed, and that would have passed by the one-sided bounds alone; mean draws used."""

    passed: float
    failed: float
    bounds_alone: float
    draws: float


def rates(family: Family, runs: int, shift: float = 0.0, peers: int = 1) -> Rates:
    """With the limit at truth + shift."""
    random = np.random.default_rng([40, runs])
    limit = family.truth + shift
    rows = []
    for _ in range(0, runs, 50):
        hits, clean, _ = family.sample(random, 50, LOOKS[-1])
        for one, kept in zip(hits, clean, strict=True):
            verdict, used, alone = "inconclusive", LOOKS[-1], False
            for draws, error, found, possible in looks(one, kept):
                alone = alone or found.p_above(limit) <= error
                reading = read(found, limit, possible, error, peers=peers)
                if verdict == "inconclusive" and reading.verdict != "inconclusive":
                    verdict, used = reading.verdict, draws
            rows.append((verdict == "pass", verdict == "fail", alone, used))
    return Rates(*np.mean(np.array(rows, dtype=np.float64), axis=0).tolist())


RUNS = 250
MOST = 0.05 + 2.5 * (0.05 * 0.95 / RUNS) ** 0.5  # a true 0.05 goes above with one seed in 160; ours is fixed


@pytest.mark.parametrize("name", ["normal", "skewed", "cliff 0.5", "cliff 0.3", "cliff 0.1", "heavy tail"])
def test_false_passes_and_failures_stay_rare_over_the_whole_sequence(name: str) -> None:
    found = rates(SMALL[name], RUNS)
    assert found.passed <= MOST
    assert found.failed <= MOST


def test_bounds_alone_would_pass_chips_that_collapse() -> None:
    assert rates(SMALL["cliff 0.2"], RUNS).bounds_alone > 0.15


def test_a_collapse_of_one_chip_in_twenty_is_out_of_reach() -> None:
    """Not a wish but a fact for the documentation: 13 % of sequences see none in 40 draws."""
    assert 0.05 < rates(SMALL["cliff 0.05"], RUNS).passed < 0.25


def test_clear_cases_are_decided_and_soon() -> None:
    """The clearer, the sooner: where the limit is far, five draws are enough to fail, and ten to pass."""
    bad = rates(SMALL["normal"], 50, shift=0.17)
    assert bad.failed > 0.9
    assert bad.draws < 12
    good = rates(SMALL["normal"], 50, shift=-0.15)
    assert good.passed > 0.95
    assert rates(SMALL["normal"], 50, shift=-0.5).draws <= 10


def test_the_error_is_spent_once() -> None:
    assert sum(SPENT) == 1.0
    assert len(SPENT) == len(LOOKS)
    assert sum(look_errors(0.9)) == pytest.approx(0.1)
    assert list(LOOKS) == sorted(LOOKS)


def test_collapses_are_ruled_out_by_counting() -> None:
    """The oracle: the shares of all outcomes of so many draws in which none collapses."""
    for draws in (3, 8, 9):
        outcomes = product((True, False), repeat=draws)
        hidden = sum(
            prod(RARE_IN_A_FILE if collapsed else 1.0 - RARE_IN_A_FILE for collapsed in each)
            for each in outcomes
            if not any(each)
        )
        assert (hidden <= 0.05) == (draws >= least_draws(1.0 - RARE_IN_A_FILE, 0.05))


def steady(draws: int, value: float = 0.98) -> Contrast:
    """Draws that all look alike."""
    hits = np.zeros((draws, 1000), np.int64)
    hits[:, : round(1000 * value)] = 1
    hits[np.arange(draws), np.arange(draws)] = 0
    side = Side(hits, 1, np.ones(1000, np.bool_))
    found = contrast(side.mean, [side.each], np.zeros(1000), 1000)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("draws", "limit", "verdict", "lacking"),
    [
        (8, 0.9, "inconclusive", 9),
        (9, 0.9, "pass", None),
        (3, 0.3, "pass", None),
        (8, 0.99, "fail", None),
        (9, 0.999, "fail", None),
        (9, 0.979, "inconclusive", None),
        (2, 0.0, "pass", None),
    ],
)
def test_one_look_at_steady_draws(draws: int, limit: float, verdict: str, lacking: int | None) -> None:
    reading = read(steady(draws), limit, Range(0.0, 1.0), 0.05, rare=RARE_IN_A_FILE)
    assert (reading.verdict, reading.lacking) == (verdict, lacking)


def test_many_layers_fail_only_with_a_correction_for_their_number() -> None:
    law = steady(9, 0.98)
    limits = np.linspace(0.979, 1.0, 200)
    alone = [limit for limit in limits if read(law, limit, Range(0.0, 1.01), 0.05, rare=0.3).verdict == "fail"]
    together = [
        limit for limit in limits if read(law, limit, Range(0.0, 1.01), 0.05, peers=40, rare=0.3).verdict == "fail"
    ]
    assert alone
    assert len(together) < len(alone)
    for limit in limits:
        reading = read(law, limit, Range(0.0, 1.01), 0.05, peers=40, rare=0.3)
        assert reading.p_fail is not None
        assert (reading.verdict == "fail") == (reading.p_fail <= 0.05 / 40)


def test_fail_beats_inconclusive_beats_pass() -> None:
    assert overall(["pass", "inconclusive", "fail"]) == "fail"
    assert overall(["pass", "inconclusive"]) == "inconclusive"
    assert overall(["pass", "pass"]) == "pass"


def main() -> None:
    parser = argparse.ArgumentParser(description="Wrong verdicts over the whole sequence, in percent of runs.")
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    print("family           A      false pass  false fail  by bounds alone   power 0.05 off (draws)")
    for family in SMALL.values():
        at, off = rates(family, runs), rates(family, runs // 4, shift=-0.05)
        print(
            f"{family.name:15s} {family.truth:.4f} {at.passed:8.1%} {at.failed:11.1%} {at.bounds_alone:14.1%}"
            f" {off.passed:16.1%} ({off.draws:.1f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
