"""What was asked for, validated once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Protocol, TypeVar, get_args

from onnxnoise.errors import UsageError
from onnxnoise.noise.base import Level, check_scale
from onnxnoise.noise.models import chain_of, parse_chain
from onnxnoise.records import DEFAULT_SEED, Analog, Kind, Metric, NoiseSetting, Policy, SigmaScope, Sweep

SWEEPS: tuple[Sweep, ...] = ("single", "cumulative", "all")
DEFAULT_SWEEPS: tuple[Sweep, ...] = ("single", "all")
POLICIES: tuple[Policy, ...] = get_args(Policy)
SIGMA_SCOPES: tuple[SigmaScope, ...] = get_args(SigmaScope)
METRICS: tuple[Metric, ...] = get_args(Metric)
DEFAULT_DRAWS = 3
DEFAULT_MAX_DRAWS = 64
UNLIMITED_DRAWS = 1024
"""Of a run that its budget ends, at the most."""

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
_Word = TypeVar("_Word", bound=str)


@dataclass(frozen=True)
class BenchSpec:
    """A noise profile to measure: `model` is a path or a bundled card's name, None means "the default of".

    `target` is the share of the clean accuracy that a draw must keep to count in a yield, `memory` the most bytes to use.
    `workers` are processes on this machine, `cluster` the address of a Dask scheduler, `resources` what a task takes of its
    worker; `precision` is the half-width of the `sampled` interval at which a cell has draws enough (at most `max_draws`),
    `budget` the seconds that may be spent; `shard` (i, n) asks for every n-th chunk from the i-th on, counted from 1.
    """

    model: str
    card: str | None = None
    data: str | None = None
    noise: str = "gaussian"
    snrs: tuple[float, ...] | None = None
    levels: tuple[float, ...] | None = None
    sweeps: tuple[Sweep, ...] = DEFAULT_SWEEPS
    draws: int = DEFAULT_DRAWS
    seed: int = DEFAULT_SEED
    layers: str | None = None
    bn: Policy = "group"
    sigma_scope: SigmaScope = "tensor"
    scale: str = "tensor"
    analog: Analog | None = None
    metric: Metric | None = None
    limit: int | None = None
    target: float = 0.95
    memory: int | None = None
    provider: str = "auto"
    output: str | None = None
    out: str | None = None
    clean_check: bool = True
    workers: int | None = None
    cluster: str | None = None
    resources: tuple[tuple[str, float], ...] = ()
    shard: tuple[int, int] | None = None
    precision: float | None = None
    max_draws: int | None = None
    budget: float | None = None

    @property
    def chunked(self) -> bool:
        """Whether each chunk of images meets draws of its own, as many as `precision` or `budget` ask for."""
        return self.precision is not None or self.budget is not None

    @property
    def most_draws(self) -> int:
        """The most draws that a cell can have."""
        if not self.chunked:
            return self.draws
        return self.max_draws or (DEFAULT_MAX_DRAWS if self.precision is not None else UNLIMITED_DRAWS)

    @cached_property
    def setting(self) -> NoiseSetting:
        """Which noise this is about; noise that is not white and gaussian is on kernels only unless `analog` says otherwise."""
        steps = parse_chain(self.noise)
        analog: Analog = "all" if self.noise == "gaussian" else "kernels"
        return NoiseSetting(steps, self.seed, self.bn, self.sigma_scope, self.scale, self.analog or analog)

    @property
    def level(self) -> Level:
        """What is swept: a signal-to-noise ratio, or another noise model's number."""
        return chain_of(self.setting).level

    @property
    def swept(self) -> tuple[float, ...]:
        """The levels to measure: those that are given, else the noise model's defaults."""
        if self.levels is not None:
            return self.levels
        return chain_of(self.setting).levels if self.snrs is None else self.snrs

    def at(self, *levels: float) -> BenchSpec:
        """The same at other levels."""
        return replace(self, snrs=None, levels=levels)

    def _check_noise(self) -> None:
        chain = chain_of(self.setting)
        check_scale(self.scale)
        if self.snrs is not None and chain.level.name != "SNR":
            raise UsageError(
                f"--snr: the noise {self.noise} has no signal-to-noise ratio but {chain.level.name}; "
                f"write --levels {chain.level.example}"
            )
        if self.snrs is not None and self.levels is not None:
            raise UsageError("--levels and --snr both say what is swept; leave out one")
        if self.scale != "tensor" and self.noise == "gaussian":
            raise UsageError("--scale is of noise relative to max |w|; gaussian noise has --sigma-scope")
        flag = chain.level.flag
        for level in self.swept:
            chain.level.check(level, flag)
        _distinct(flag, self.swept)

    def __post_init__(self) -> None:
        """Raise UsageError for a value that no run could use."""
        self._check_noise()
        _distinct("--sweep", self.sweeps)
        for sweep in self.sweeps:
            one_of("--sweep", sweep, SWEEPS)
        one_of("--bn", self.bn, POLICIES)
        one_of("--sigma-scope", self.sigma_scope, SIGMA_SCOPES)
        if self.metric is not None:
            one_of("--metric", self.metric, METRICS)
        if not 0 < self.target <= 1:
            raise UsageError(
                f"--target: {self.target:g} is no share of the clean accuracy; give a number above 0, up to 1"
            )
        if self.precision is not None and not 0 < self.precision < 1:
            raise UsageError(
                f"--precision: {self.precision:g} is no half-width of an interval; give a share of the clean accuracy, as 0.01"
            )
        if self.max_draws is not None and not self.chunked:
            raise UsageError("--max-draws is for --precision and --budget; for a fixed number give --draws")
        if self.chunked and self.shard is not None:
            raise UsageError("--shard needs a fixed number of draws: leave out --precision and --budget")
        if self.workers is not None and self.cluster is not None:
            raise UsageError("--workers are processes on this machine, --cluster has workers of its own; leave out one")
        if self.resources and self.cluster is None:
            raise UsageError("--cluster-resources are those of Dask workers; give --cluster too")
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise UsageError(f"--shard: {self.shard[0]}/{self.shard[1]} is none; with N shards they are 1/N to N/N")
        for flag, number, least in (
            ("--draws", self.draws, 1),
            ("--seed", self.seed, 0),
            ("--limit", self.limit, 1),
            ("--workers", self.workers, 1),
            ("--max-draws", self.max_draws, 2),
        ):
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
    workers: str | None = None,
    resources: str | None = None,
    shard: str | None = None,
    precision: str | None = None,
    max_draws: str | None = None,
    budget: str | None = None,
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
    if draws is not None and (precision or budget) is not None:
        raise UsageError("--draws is a fixed number; with --precision or --budget give --max-draws")
    if protocol is not None:
        one_of("--protocol", protocol, ("paper",))
        bn = _implied("--bn", bn, "group")
        sigma_scope = _implied("--sigma-scope", sigma_scope, "layer")
    given: dict[str, Any] = {
        "snrs": None if snrs is None else tuple(number("--snr", part, "100,10,5") for part in snrs.split(",")),
        "sweeps": None if sweeps is None else _sweeps(sweeps),
        "draws": whole("--draws", draws),
        "seed": whole("--seed", seed),
        "limit": whole("--limit", limit),
        "target": None if target is None else number("--target", target),
        "memory": None if memory is None else _bytes("--memory", memory),
        "workers": whole("--workers", workers),
        "resources": None if resources is None else tuple(_resource(part) for part in resources.split(",")),
        "shard": None if shard is None else _shard(shard),
        "precision": None if precision is None else number("--precision", precision),
        "max_draws": whole("--max-draws", max_draws),
        "budget": None if budget is None else _seconds("--budget", budget),
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


def only_level(spec: BenchSpec) -> float:
    """The level of a command that takes one; UsageError for none or several."""
    levels = spec.swept
    if len(levels) == 1:
        return levels[0]
    flag = spec.level.flag
    given = f"{len(levels)} are given" if levels in (spec.snrs, spec.levels) else "none is given"
    raise UsageError(f"{flag}: {given}, but this takes one; write for example {flag} {levels[len(levels) // 2]:g}")


def number(flag: str, text: str, example: str = "0.05") -> float:
    """A flag's value as a number, or UsageError."""
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{flag}: {_shown(text)} is not a number; write for example {flag} {example}") from None


_UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?b?)", re.IGNORECASE)


def _bytes(flag: str, text: str) -> int:
    size = _SIZE.fullmatch(text.strip())
    if size is None:
        raise UsageError(f"{flag}: {_shown(text)} is no amount of memory; write for example {flag} 4GB")
    return int(float(size[1]) * _UNITS[size[2].lower().removesuffix("b") + "b"])


_SHARD = re.compile(r"(\d{1,6})/(\d{1,6})")


def _shard(text: str) -> tuple[int, int]:
    shard = _SHARD.fullmatch(text.strip())
    if shard is None:
        raise UsageError(f"--shard: {_shown(text)} is no share of the work; write for example --shard 3/8")
    return int(shard[1]), int(shard[2])


def _resource(text: str) -> tuple[str, float]:
    name, _, amount = text.partition("=")
    try:
        if float(amount) > 0:
            return name.strip(), float(amount)
        raise ValueError
    except ValueError:
        raise UsageError(
            f"--cluster-resources: {_shown(text)} is no name and amount; write for example --cluster-resources GPU=1"
        ) from None


_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+)s)?", re.IGNORECASE)


def _seconds(flag: str, text: str) -> float:
    time = _TIME.fullmatch(text.strip())
    seconds = (
        sum(float(part or 0) * unit for part, unit in zip(time.groups(), (3600, 60, 1), strict=True)) if time else 0
    )
    if not seconds:
        raise UsageError(f"{flag}: {_shown(text)} is no length of time; write for example {flag} 10m, 90s or 1h30m")
    return float(seconds)


def whole(flag: str, text: str | None) -> int | None:
    """A flag's value as a whole number, None where it is not given, or UsageError."""
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{flag}: {_shown(text)} is not a whole number; write for example {flag} 10") from None


def _shown(text: str) -> str:
    return repr(text.strip() if len(text) <= 40 else f"{text[:37]}...")


class Selectable(Protocol):
    """A layer that a pattern can name."""

    @property
    def index(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...


_Layer = TypeVar("_Layer", bound=Selectable)


def select_layers(layers: Sequence[_Layer], pattern: str | None) -> tuple[_Layer, ...]:
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


def index_ranges(indices: Sequence[int]) -> str:
    """Rising layer indices as `--layers` takes them: 1-3,5."""
    parts: list[list[int]] = []
    for index in indices:
        if parts and index == parts[-1][1] + 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def _matches(layer: Selectable, part: str) -> bool:
    if part in get_args(Kind):
        return layer.kind == part
    if numbers := _RANGE.fullmatch(part):
        return int(numbers[1]) <= layer.index <= int(numbers[2] or numbers[1])
    return part == layer.name or fnmatchcase(layer.name, part)
