"""The records of a comparison, and its JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onnxnoise.records import Interval, Measured, Notice
from onnxnoise.results.as_json import measured_json
from onnxnoise.words import Metric

SCHEMA = "onnxnoise/comparison/1"
Quantity = Literal["all", "a_avr"]
Scale = Literal["normalized", "absolute"]
QUANTITIES: tuple[Quantity, ...] = ("all", "a_avr")
QUANTITY_OF: dict[str, Quantity] = {"all": "all", "single": "a_avr"}
"""The quantity that models are ranked by, for each sweep."""

SCALES: tuple[Scale, ...] = ("normalized", "absolute")


@dataclass(frozen=True)
class ComparedModel:
    """A model that is compared. `label` tells it from the others; `clean_accuracy` is a fraction of 1, as `chance` is, the
    accuracy of always giving the same answer.
    """

    label: str
    name: str
    sha256: str
    run_file: str
    provider: str
    seed: int
    layers: int
    parameters: int
    clean_hits: int
    clean_accuracy: float
    chance: float | None = None


@dataclass(frozen=True)
class Standing:
    """The standing of a model in one ranking at one level: its mean, 95 % intervals (None with one draw), rank and ties.

    `rank` is 1 + the number of models that are better beyond a tie; with one draw ties can't be told, and it follows the means.
    `tied` has the labels of the models that it is tied with.
    """

    mean: float
    fixed: Interval | None
    sampled: Interval | None
    rank: int
    tied: tuple[str, ...]


@dataclass(frozen=True)
class Placing:
    """One model's standings at one level: by the accuracy with noise in `all` layers, or its mean over single noisy layers."""

    model: str
    quantity: Quantity
    level: float
    layers: int
    draws: int
    normalized: Standing
    absolute: Standing
    snr: float | None = None


@dataclass(frozen=True)
class Difference:
    """`first` - `second` in one ranking at one level, with its 95 % interval (other draws, other images like these).

    `p` is two-sided, `p_holm` adjusted over the ranking, and `tied` says that `p_holm` is above 0.05. These three and the
    interval are None with one draw. `paired` says by what the hits of the two models are paired.
    """

    first: str
    second: str
    quantity: Quantity
    scale: Scale
    level: float
    paired: Literal["image", "image and draw"]
    mean: float
    interval: Interval | None
    p: float | None
    p_holm: float | None
    tied: bool | None
    snr: float | None = None


@dataclass(frozen=True)
class Crossing:
    """A change in the order of two models between two levels.

    `better_above` leads at `high`, the level of less noise, and `better_below` at `low`, the one of more.

    It is `clear` where the two aren't tied at either level; otherwise only the means cross.
    """

    better_above: str
    better_below: str
    quantity: Quantity
    scale: Scale
    high: float
    low: float
    clear: bool


@dataclass(frozen=True)
class Comparison(Measured):
    """The answer to `onnxnoise compare`, whose noise is that of the first model.

    `figures` and `differences` are sorted by quantity, level (the least noise first) and model.
    """

    metric: Metric
    dataset: dict[str, str | int]
    models: tuple[ComparedModel, ...]
    figures: tuple[Placing, ...]
    differences: tuple[Difference, ...]
    crossings: tuple[Crossing, ...]
    warnings: tuple[Notice, ...]


def to_json(comparison: Comparison) -> str:
    """The comparison as one JSON document, schema `onnxnoise/comparison/1`: the records of this file, field by field."""
    return measured_json(SCHEMA, comparison)
