"""What was asked for, validated once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar, get_args

from onnxnoise.errors import UsageError
from onnxnoise.noise import DEFAULT_SEED, PAPER_SNRS
from onnxnoise.records import Kind, Metric, NoiseLayer, Policy, SigmaScope, Sweep

SWEEPS: tuple[Sweep, ...] = ("single", "all")
DEFAULT_SWEEPS: tuple[Sweep, ...] = ("single", "all")
POLICIES: tuple[Policy, ...] = get_args(Policy)
SIGMA_SCOPES: tuple[SigmaScope, ...] = get_args(SigmaScope)
METRICS: tuple[Metric, ...] = get_args(Metric)
DEFAULT_DRAWS = 3

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
_Word = TypeVar("_Word", bound=str)


@dataclass(frozen=True)
class BenchSpec:
    """A noise profile to measure: `model` is a path or a bundled card's name, None means "the default of".

    `target` is the share of the clean accuracy that a draw must keep to count in a yield, `memory` the most bytes to use.
    """

    model: str
    card: str | None = None
    data: str | None = None
    snrs: tuple[float, ...] = PAPER_SNRS
    sweeps: tuple[Sweep, ...] = DEFAULT_SWEEPS
    draws: int = DEFAULT_DRAWS
    seed: int = DEFAULT_SEED
    layers: str | None = None
    bn: Policy = "group"
    sigma_scope: SigmaScope = "tensor"
    metric: Metric | None = None
    limit: int | None = None
    target: float = 0.95
    memory: int | None = None
    provider: str = "auto"
    output: str | None = None
    out: str | None = None
    clean_check: bool = True

    def __post_init__(self) -> None:
        """Raise UsageError for a value that no run could use."""
        for snr in self.snrs:
            if not snr > 0:
                raise UsageError(
                    f"--snr: {snr:g} is no signal-to-noise ratio: sigma_w / sigma_noise is a number above 0 "
                    "(10 is noise of 10 %, inf is none)"
                )
        _distinct("--snr", self.snrs)
        _distinct("--sweep", self.sweeps)
        for sweep in self.sweeps:
            one_of("--sweep", sweep, SWEEPS)
        one_of("--bn", self.bn, POLICIES)
        one_of("--sigma-scope", self.sigma_scope, SIGMA_SCOPES)
        if self.metric is not None:
            one_of("--metric", self.metric, METRICS)
        if not 0 < self.target <= 1:
            raise UsageError(f"--target: {self.target:g} is no share of the clean accuracy; give a number from 0 to 1")
        for flag, number, least in (("--draws", self.draws, 1), ("--seed", self.seed, 0), ("--limit", self.limit, 1)):
            if number is not None and number < least:
                raise UsageError(f"{flag}: {number} is too small; give a whole number from {least} up")


def from_flags(
    model: str,
    *,
    snrs: str | None = None,
    sweeps: str | None = None,
    draws: str | None = None,
    seed: str | None = None,
    limit: str | None = None,
    target: str | None = None,
    memory: str | None = None,
    protocol: str | None = None,
    bn: str | None = None,
    sigma_scope: str | None = None,
    metric: str | None = None,
    provider: str | None = None,
    **others: Any,
) -> BenchSpec:
    """The spec that the command line's texts ask for, None for a flag that is not given; `others` as in BenchSpec.

    Raises UsageError naming flag and value.
    """
    if protocol is not None:
        one_of("--protocol", protocol, ("paper",))
        bn = _implied("--bn", bn, "group")
        sigma_scope = _implied("--sigma-scope", sigma_scope, "layer")
    given: dict[str, Any] = {
        "snrs": None if snrs is None else tuple(_number("--snr", part) for part in snrs.split(",")),
        "sweeps": None if sweeps is None else _sweeps(sweeps),
        "draws": _whole("--draws", draws),
        "seed": _whole("--seed", seed),
        "limit": _whole("--limit", limit),
        "target": None if target is None else _number("--target", target),
        "memory": None if memory is None else _bytes("--memory", memory),
        "bn": None if bn is None else one_of("--bn", bn, POLICIES),
        "sigma_scope": None if sigma_scope is None else one_of("--sigma-scope", sigma_scope, SIGMA_SCOPES),
        "metric": None if metric is None else one_of("--metric", metric, METRICS),
        "provider": provider,
    }
    return BenchSpec(model, **others, **{name: value for name, value in given.items() if value is not None})


def one_of(flag: str, value: str, allowed: Sequence[_Word]) -> _Word:
    """`value`, or UsageError with what is allowed."""
    for word in allowed:
        if word == value:
            return word
    raise UsageError(f"{flag}: {_shown(value)} is not known; use {', '.join(allowed)}")


def _distinct(flag: str, values: Sequence[object]) -> None:
    if not values:
        raise UsageError(f"{flag}: nothing given; name at least one")
    if twice := [value for value in dict.fromkeys(values) if values.count(value) > 1]:
        raise UsageError(f"{flag}: {twice[0]} is given twice; leave out one")


def _implied(flag: str, given: str | None, meant: str) -> str:
    if given not in (None, meant):
        raise UsageError(
            f"--protocol paper means {flag} {meant}, but {flag} {given} is given too; leave out one of the two"
        )
    return meant


def _sweeps(text: str) -> tuple[Sweep, ...]:
    asked = [one_of("--sweep", part.strip(), SWEEPS) for part in text.split(",")]
    return tuple(sorted(asked, key=SWEEPS.index))


def _number(flag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{flag}: {_shown(text)} is not a number; write for example {flag} 100,10,5") from None


_UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?b)", re.IGNORECASE)


def _bytes(flag: str, text: str) -> int:
    size = _SIZE.fullmatch(text.strip())
    if size is None:
        raise UsageError(f"{flag}: {_shown(text)} is no amount of memory; write for example {flag} 4GB")
    return int(float(size[1]) * _UNITS[size[2].lower()])


def _whole(flag: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{flag}: {_shown(text)} is not a whole number; write for example {flag} 10") from None


def _shown(text: str) -> str:
    return repr(text.strip() if len(text) <= 40 else f"{text[:37]}...")


def select_layers(layers: Sequence[NoiseLayer], pattern: str | None) -> tuple[NoiseLayer, ...]:
    """The layers that any comma-separated part names: a glob on the name, a kind, an index or a range `3-10`.

    Raises UsageError for a part that matches none.
    """
    if pattern is None:
        return tuple(layers)
    chosen: set[int] = set()
    for part in (each.strip() for each in pattern.split(",")):
        found = {layer.index for layer in layers if _matches(layer, part)}
        if not found:
            kinds = ", ".join(sorted({layer.kind for layer in layers}))
            raise UsageError(
                f"--layers: {_shown(part)} matches no layer; give a name or glob (`onnxnoise layers` shows the names), "
                f"a kind ({kinds}), an index or a range within 1-{max((layer.index for layer in layers), default=0)}"
            )
        chosen |= found
    return tuple(layer for layer in layers if layer.index in chosen)


def _matches(layer: NoiseLayer, part: str) -> bool:
    if part in get_args(Kind):
        return layer.kind == part
    if numbers := _RANGE.fullmatch(part):
        return int(numbers[1]) <= layer.index <= int(numbers[2] or numbers[1])
    return part == layer.name or fnmatchcase(layer.name, part)
