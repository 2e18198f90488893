"""What was asked for, validated once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import get_args

from onnxnoise.errors import UsageError
from onnxnoise.noise import DEFAULT_SEED, PAPER_SNRS
from onnxnoise.records import Kind, Metric, NoiseLayer, Policy, SigmaScope, Sweep

SWEEPS: tuple[Sweep, ...] = ("single", "all")
DEFAULT_DRAWS = 3


@dataclass(frozen=True)
class BenchSpec:
    """A noise profile to measure: `model` is a path or a bundled card's name, None means "the default of"."""

    model: str
    card: str | None = None
    data: str | None = None
    snrs: tuple[float, ...] = PAPER_SNRS
    sweeps: tuple[Sweep, ...] = SWEEPS
    draws: int = DEFAULT_DRAWS
    seed: int = DEFAULT_SEED
    layers: str | None = None
    bn: Policy = "group"
    sigma_scope: SigmaScope = "tensor"
    metric: Metric | None = None
    limit: int | None = None
    provider: str = "auto"
    output: str | None = None
    out: str | None = None
    clean_check: bool = True

    def __post_init__(self) -> None:
        """Raise UsageError for a value that no run could use."""
        if not self.snrs or any(math.isnan(snr) or snr <= 0 for snr in self.snrs):
            raise UsageError(
                f"an SNR is sigma_w / sigma_noise, a number above 0; got {', '.join(map(str, self.snrs)) or 'none'}"
            )
        if len(set(self.snrs)) < len(self.snrs):
            raise UsageError("the same SNR is given twice")
        one_of("sweep", self.sweeps, SWEEPS)
        one_of("--bn", [self.bn], get_args(Policy))
        one_of("--sigma-scope", [self.sigma_scope], get_args(SigmaScope))
        one_of("--metric", [self.metric or "top1"], get_args(Metric))
        for name, value, least in (("--draws", self.draws, 1), ("--seed", self.seed, 0), ("--limit", self.limit, 1)):
            if value is not None and value < least:
                raise UsageError(f"{name} must be at least {least}; got {value}")


def one_of(what: str, values: Iterable[str], allowed: Sequence[str]) -> None:
    """Raise UsageError where one of `values` is not allowed, or there is none."""
    values = list(values)
    for value in values:
        if value not in allowed:
            raise UsageError(f"{what}: {value!r} is not known; use {', '.join(allowed)}")
    if not values:
        raise UsageError(f"{what}: nothing given; use {', '.join(allowed)}")


def parse_snrs(text: str) -> tuple[float, ...]:
    """`100,10,5` as numbers; raises UsageError naming the part that is none."""
    snrs = []
    for part in text.split(","):
        try:
            snrs.append(float(part))
        except ValueError:
            raise UsageError(f"--snr: {part.strip()!r} is not a number; write for example --snr 100,10,5") from None
    return tuple(snrs)


def parse_sweeps(text: str) -> tuple[Sweep, ...]:
    """`single,all` in the order they are run; raises UsageError."""
    asked = [part.strip() for part in text.split(",") if part.strip()]
    one_of("--sweep", asked, SWEEPS)
    return tuple(sweep for sweep in SWEEPS if sweep in asked)


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
            last = layers[-1].index if layers else 0
            raise UsageError(
                f"--layers: {part!r} matches no layer; give a name or glob (see `onnxnoise layers`), a kind "
                f"({', '.join(sorted({layer.kind for layer in layers}))}), an index or a range up to {last}"
            )
        chosen |= found
    return tuple(layer for layer in layers if layer.index in chosen)


def _matches(layer: NoiseLayer, part: str) -> bool:
    if part in get_args(Kind):
        return layer.kind == part
    low, dash, high = part.partition("-")
    if low.isdecimal() and (not dash or high.isdecimal()):
        return int(low) <= layer.index <= int(high if dash else low)
    return fnmatchcase(layer.name, part)
