"""Pass, fail or not yet known: one rule held against measured draws, at looks announced in advance.

A rule says that a mean over chips and images like these is at least some limit. At a look, its one-sided p-values come from
`contrasts.Contrast`. The error that a rule allows, 1 - confidence, is spent over the looks (`SPENT`; their sum is 1, so that by
Bonferroni a false pass, over the whole sequence, has at most the rule's error, and so has a false failure). A rule that
wants every one of several layers passes when each has passed, each at the full error (an intersection-union test), and fails
when any has failed at the error divided by their number (Bonferroni, which is Holm's first step).

**Chips that collapse.** Draws that look alike may hide that some chips lose everything: of 5 draws, none shows a collapse that
hits 3 chips in 10 in 17 % of runs, and a t interval over such draws is narrow and wrong. So a verdict also needs draws enough
to rule that out: with value v, limit m and lowest possible value l, a share q = (v - m) / (v - l) of collapsing chips would break
the rule, and (1 - max(q, rare))^draws, the chance of seeing none, must be no more than the error; for a failure the same upward.
Where draws are measured on demand `rare` is `RARE`: a rule of confidence 0.95 passes at 40 draws, sooner where the limit is far.
A run file has the draws it has: there it is `RARE_IN_A_FILE`, for which 9 draws do. A collapse of fewer chips can stay unseen.

Measured over the whole sequence with the limit at the truth itself, the worst case (tests/decisions/test_gate_statistics.py;
2,000 runs of 200 images a family, confidence 0.95): false passes in 3.2 % of runs where draws vary normally, 2.5 % where they
are skewed and 3.5 % with a log-normal tail (9 and 15 % by the bounds alone), and 1.6 % at most where 50, 30, 20, 15 or 10 % of
chips collapse (up to 47 % by the bounds alone). Out of reach: 10 % where one chip in twenty does. False failures: 2.1 % at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnxnoise.records import Verdict
from onnxnoise.statistics.contrasts import Contrast

LOOKS = (5, 10, 20, 40)
"""Draws at which a rule is looked at while draws are sampled; announced before the first."""

SPENT = (0.125, 0.125, 0.25, 0.5)
"""Shares of a rule's error that the looks may use."""

RARE, RARE_IN_A_FILE = 0.1, 0.3
"""Shares of collapsing chips that a verdict rules out: where draws are measured on demand, and where a file's must do."""


@dataclass(frozen=True)
class Range:
    """The lowest and the highest possible value of an estimate."""

    low: float
    high: float


@dataclass(frozen=True)
class Reading:
    """One place of a rule at one look: the estimate, its one-sided bounds at the error of this look, and the verdict.

    `p_pass` and `p_fail` are the smallest errors at which it would pass or fail; they and the bounds are None with one draw.
    `lacking` is the number of draws needed to rule out collapses, None where the verdict doesn't wait for that.
    """

    draws: int
    value: float
    low: float | None
    high: float | None
    p_pass: float | None
    p_fail: float | None
    verdict: Verdict
    lacking: int | None


def look_errors(confidence: float) -> tuple[float, ...]:
    """The error of each look; together 1 - confidence."""
    return tuple((1.0 - confidence) * share for share in SPENT)


def read(
    contrast: Contrast, limit: float, possible: Range, error: float, *, peers: int = 1, rare: float = RARE
) -> Reading:
    """The reading of one place for the rule "at least `limit`" at one look; `peers` is the number of places of the rule.

    `error` is the error that this look may spend, `rare` the smallest share of collapsing chips to rule out.
    """
    value, draws = contrast.value, contrast.draws
    low, high = contrast.bounds(error)
    unseen_low, unseen_high = (
        _hidden(value - limit, value - possible.low, rare),
        _hidden(limit - value, possible.high - value, rare),
    )
    above, below = contrast.p_above(limit), contrast.p_below(limit)
    p_pass = 0.0 if limit <= possible.low else max(above, unseen_low**draws)
    p_fail = max(below, unseen_high**draws)
    verdict: Verdict = "pass" if p_pass <= error else "fail" if p_fail <= error / peers else "inconclusive"
    lacking = None
    if verdict == "inconclusive":
        if above <= error:
            lacking = least_draws(unseen_low, error)
        elif below <= error / peers:
            lacking = least_draws(unseen_high, error / peers)
    return Reading(draws, value, max(low, possible.low), min(high, possible.high), p_pass, p_fail, verdict, lacking)


def unread(value: float) -> Reading:
    """The reading of a place with a single draw, about which nothing can be said."""
    return Reading(1, value, None, None, None, None, "inconclusive", None)


def _hidden(margin: float, whole: float, rare: float) -> float:
    """The chance that one draw does not show a collapse that would break the rule: 1 - max(margin / whole, rare)."""
    share = margin / whole if whole > 0.0 else 0.0
    return 1.0 - min(max(share, rare), 1.0)


def least_draws(hidden: float, error: float) -> int:
    """The fewest draws whose chance of hiding such a collapse is at most `error`."""
    return 1 if hidden <= 0.0 else math.ceil(math.log(error) / math.log(hidden))


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of several places together: fail beats inconclusive beats pass."""
    return "fail" if "fail" in verdicts else "inconclusive" if "inconclusive" in verdicts else "pass"
