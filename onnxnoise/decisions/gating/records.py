"""The records of a gate's verdict, and its JSON."""

from __future__ import annotations

from dataclasses import dataclass

from onnxnoise.records import MeasuredModel, Notice, Verdict
from onnxnoise.results.as_json import flat, strict_json
from onnxnoise.words import Sweep

SCHEMA = "onnxnoise/verdict/1"


@dataclass(frozen=True)
class CellVerdict:
    """One place that a rule looks at (`layer` None: all layers, or their mean), its value and its verdict.

    `low` and `high` are one-sided bounds of `value` at the rule's error. `e_pass` and `e_fail` are the evidence for and
    against the rule in this place, as "31 to 1"; `p_pass` and `p_fail` are the errors at which it would decide, 1 over the
    evidence.
    """

    layer: int | None
    name: str | None
    draws: int
    value: float
    low: float | None
    high: float | None
    p_pass: float | None
    p_fail: float | None
    verdict: Verdict
    e_pass: float = 1.0
    e_fail: float = 1.0


@dataclass(frozen=True)
class RuleVerdict:
    """A rule with its verdict: `value`, whose meaning is `quantity`, must be at least `limit`; of several layers, one
    decides.

    `message` gives the reason to a person; it has names from the model in it: untrusted text. `e_pass` and `e_fail` are the
    evidence for the rule, in the place that has least, and against it, over all places; 1 / (1 - confidence) decides. `value`
    is None where nothing was measured before the time was over.
    """

    name: str
    verdict: Verdict
    message: str
    sweep: Sweep
    layer: str | None
    level: float
    metric: str
    relative_to: str
    min: float | None
    max_drop: float | None
    confidence: float
    quantity: str
    limit: float
    value: float | None
    low: float | None
    high: float | None
    draws: int
    cells: tuple[CellVerdict, ...]
    snr: float | None = None
    e_pass: float = 1.0
    e_fail: float = 1.0


@dataclass(frozen=True)
class GateVerdict(MeasuredModel):
    """The answer to `onnxnoise gate`: fail beats inconclusive beats pass.

    `looks` are the numbers of draws at which rules were looked at, `seconds` the time spent on each rule, which the JSON
    leaves out.
    """

    verdict: Verdict
    run_file: str
    rules_file: str
    looks: tuple[int, ...]
    rules: tuple[RuleVerdict, ...]
    warnings: tuple[Notice, ...]
    seconds: tuple[float, ...] = ()


def to_json(verdict: GateVerdict) -> str:
    """The verdict as one JSON document, schema `onnxnoise/verdict/1`: the records of this file, field by field, without times."""
    return strict_json({"schema": SCHEMA, **{key: value for key, value in flat(verdict).items() if key != "seconds"}})
