"""The words in which a comparison is told, in a terminal and in reports."""

from __future__ import annotations

from collections.abc import Mapping

from onnxnoise.decisions.comparing.records import Comparison, Crossing, Placing, Quantity, Scale, Standing
from onnxnoise.noise.models import level_of

TITLES: dict[Quantity, str] = {
    "all": "All layers noisy together, by accuracy",
    "a_avr": "A_avr: one noisy layer at a time, mean over layers, by accuracy / clean",
}
RANK = "rank: 1 + the number of models that are better beyond a tie; =: tied with another model"
RANK_OF_ONE_DRAW = "rank: by the means; with one draw nothing shows which differences are ties"

_SORTED_BY: dict[Quantity, Scale] = {"all": "absolute", "a_avr": "normalized"}
_SCALES: dict[Scale, str] = {"absolute": "accuracy", "normalized": "accuracy / clean"}
_SHOWN: dict[Quantity, str] = {"all": "all layers", "a_avr": "A_avr"}


def first_standing(placing: Placing) -> Standing:
    """The standing by which the models of a quantity are sorted."""
    return placing.normalized if _SORTED_BY[placing.quantity] == "normalized" else placing.absolute


def rank(standing: Standing) -> str:
    """A rank, with `=` where it is shared beyond a tie."""
    return f"{standing.rank}{'=' if standing.tied else ''}"


def ranking_note(comparison: Comparison) -> str:
    """The sentence on what a rank is."""
    return RANK if any(each.tied is not None for each in comparison.differences) else RANK_OF_ONE_DRAW


def crossing(comparison: Comparison, each: Crossing, names: Mapping[str, str]) -> str:
    """A sentence on where the order of two models changes; `names` has what they are called, by label."""
    level = level_of(comparison.noise)
    return (
        f"{_SHOWN[each.quantity]}, by {_SCALES[each.scale]}: {names[each.better_above]} is better at {level.text(each.high)}, "
        f"{names[each.better_below]} at {level.text(each.low)}"
    )
