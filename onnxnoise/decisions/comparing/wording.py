"""The words in which a comparison is told, in a terminal and in reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from onnxnoise.decisions.comparing.records import Comparison, Crossing, Placing, Quantity, Scale, Standing
from onnxnoise.noise.models import level_of
from onnxnoise.text import counted

TITLES: dict[Quantity, str] = {
    "all": "All layers noisy together, by accuracy",
    "a_avr": "A_avr: one noisy layer at a time, mean over layers, by accuracy / clean",
}
RANK = "rank: 1 + the number of models that are better beyond a tie; =: tied with another model"
_PAIRED = {
    "image": "the models met the same images, each under draws of its own",
    "image and draw": "models with the same noise layers met the same images under the same draws",
}
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


def notes(comparison: Comparison) -> list[str]:
    """The sentences on what a rank is, when two models are tied, and what the hits of two models have in common."""
    told = [each for each in comparison.differences if each.tied is not None]
    if not told:
        return [RANK_OF_ONE_DRAW]
    counts = Counter((each.quantity, each.scale) for each in comparison.differences)
    compared = "/".join(map(str, sorted(set(counts.values()))))
    ways = sorted({each.paired for each in told})
    return [
        RANK,
        f"tie: the 95 % interval of the difference contains 0; Holm over the {compared} comparisons of a ranking",
        *(_PAIRED[way] for way in ways),
    ]


def counted_title(quantity: Quantity, placings: Iterable[Placing]) -> str:
    """The title of a ranking, with the number of draws that its accuracies are means of."""
    draws = sorted({placing.draws for placing in placings})
    many = counted(draws[0], "draw") if len(draws) == 1 else f"{draws[0]} to {draws[-1]} draws"
    return f"{TITLES[quantity]}; {many}"


def crossing(comparison: Comparison, each: Crossing, names: Mapping[str, str]) -> str:
    """A sentence on where the order of two models changes; `names` has what they are called, by label."""
    level = level_of(comparison.noise)
    return (
        f"{_SHOWN[each.quantity]}, by {_SCALES[each.scale]}: {names[each.better_above]} is better at {level.text(each.high)}, "
        f"{names[each.better_below]} at {level.text(each.low)}"
    )
