"""Reads a gate's rules from TOML: `onnxnoise.toml`, or `[tool.onnxnoise.gate]` in pyproject.toml; what is unknown is an error."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from onnxnoise.data.toml import MAX_BYTES, as_number, did_you_mean
from onnxnoise.errors import InputError
from onnxnoise.records import Metric, Sweep
from onnxnoise.spec import METRICS

SWEEPS: tuple[Sweep, ...] = get_args(Sweep)
RULES_FILE = "onnxnoise.toml"
PROJECT_FILE = "pyproject.toml"
PROJECT_TABLE = ("tool", "onnxnoise", "gate")
WORST = "worst"
CLEAN, ABSOLUTE = "clean", "absolute"
RULE_KEYS = ("name", "sweep", "layer", "snr", "metric", "relative_to", "min", "max_drop", "confidence")
BENCH_KEYS = ("card", "data", "seed", "bn", "sigma_scope", "protocol", "limit", "provider", "output", "clean_check")
TABLES = ("bench", "rule")
DEFAULT_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Rule:
    """What must hold: an accuracy under noise, relative to something, is at least `min`, or drops by `max_drop` at most.

    `layer` is None (all layers together, or with the sweep `single` the mean over layers, `A_avr`), a pattern as of `--layers`
    (then every layer it names must hold; an index is one too) or `worst` (every layer must). `relative_to` is `clean`,
    `absolute`, or `baseline`, the run file whose accuracy in the same place is divided by.

    | relative_to | `min`                             | `max_drop`                             |
    |-------------|-----------------------------------|----------------------------------------|
    | `clean`     | accuracy / clean >= min           | accuracy / clean >= 1 - max_drop       |
    | `absolute`  | accuracy >= min                   | accuracy - clean >= -max_drop          |
    | a run file  | accuracy / the baseline's >= min  | accuracy / the baseline's >= 1 - max_drop |
    """

    name: str
    sweep: Sweep
    layer: str | None
    level: float
    metric: Metric
    relative_to: str
    baseline: Path | None
    min: float | None
    max_drop: float | None
    confidence: float

    @property
    def from_clean(self) -> bool:
        """Whether the value is accuracy less clean accuracy, in fractions of 1."""
        return self.relative_to == ABSOLUTE and self.max_drop is not None

    @property
    def limit(self) -> float:
        """The least value that passes."""
        if self.max_drop is None:
            assert self.min is not None
            return self.min
        return -self.max_drop if self.from_clean else 1.0 - self.max_drop

    @property
    def quantity(self) -> str:
        """What the value is, in words."""
        if self.relative_to == CLEAN:
            return "accuracy / clean"
        if self.relative_to == ABSOLUTE:
            return "accuracy - clean" if self.from_clean else "accuracy"
        return "accuracy / baseline"


@dataclass(frozen=True)
class Rules:
    """A rules file: its rules in order, and from its `[bench]` table how a model is benched (texts and numbers as flags take)."""

    path: Path
    rules: tuple[Rule, ...]
    bench: Mapping[str, str | bool]


def find_rules(given: str | None) -> Path:
    """The rules file: `given`, else onnxnoise.toml here, else pyproject.toml here; InputError where there is none."""
    if given is not None:
        return Path(given)
    for name in (RULES_FILE, PROJECT_FILE):
        if Path(name).is_file():
            return Path(name)
    raise InputError(
        f"no rules: there is no {RULES_FILE} and no {PROJECT_FILE} in this folder; write one (examples/gate shows how) "
        "or pass --rules FILE"
    )


def load_rules(path: Path) -> Rules:
    """The rules in `path`. Raises InputError: can't be read, no TOML, a key or value that no gate can use, or no rule at all."""
    document = _document(path)
    where = ""
    if path.name == PROJECT_FILE:
        where = ".".join(PROJECT_TABLE) + "."
        for key in PROJECT_TABLE:
            inner = document.get(key, {})
            document = inner if isinstance(inner, dict) else {}
        if not document:
            raise InputError(f"{path}: has no [{where[:-1]}] with rules; add [[{where}rule]] or pass --rules FILE")
    for key in document:
        if key not in TABLES:
            raise InputError(
                f"{path}: {where}{_shown(key)} is unknown{did_you_mean(key, TABLES)} (known: [{where}bench], [[{where}rule]])"
            )
    tables = document.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise InputError(f"{path}: write each rule as a table of its own, [[{where}rule]] with two brackets")
    if not tables:
        raise InputError(f"{path}: has no rules; write at least one [[{where}rule]] with name, snr and min")
    rules = tuple(_rule(path, number, each) for number, each in enumerate(tables, 1))
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"{path}: two rules have the name {_shown(name)}; a report tells rules by their names: change one"
            )
    return Rules(path, rules, _bench(path, where, document.get("bench", {})))


def _document(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: the rules can't be read: {error.strerror or error}; pass --rules FILE") from error
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: more than {MAX_BYTES} bytes; these are no rules")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path}: is not valid TOML: {error}") from error


def _bench(path: Path, where: str, table: object) -> dict[str, str | bool]:
    """The `[bench]` table with values as the flags of `bench` take them; relative paths are the rules file's."""
    if not isinstance(table, dict):
        raise InputError(f"{path}: bench must be a table, [{where}bench]")
    settings: dict[str, str | bool] = {}
    for key, value in table.items():
        if key not in BENCH_KEYS:
            raise InputError(
                f"{path}: [{where}bench] has no key {_shown(key)}{did_you_mean(key, BENCH_KEYS)} (keys: {', '.join(BENCH_KEYS)})"
            )
        if key == "clean_check":
            if not isinstance(value, bool):
                raise InputError(f"{path}: [{where}bench] clean_check = {_shown(value)}: must be true or false")
            settings[key] = value
        elif key in ("seed", "limit"):
            if not isinstance(value, int) or isinstance(value, bool):
                raise InputError(f"{path}: [{where}bench] {key} = {_shown(value)}: must be a whole number")
            settings[key] = str(value)
        elif not isinstance(value, str):
            raise InputError(f"{path}: [{where}bench] {key} = {_shown(value)}: must be text in quotes")
        else:
            beside = path.parent / value
            settings[key] = str(beside) if key in ("card", "data") and beside.exists() else value
    return settings


def _rule(path: Path, number: int, table: dict[str, object]) -> Rule:
    name = table.get("name")
    title = f"{path}: rule {number}" + (f" ({_shown(name)})" if isinstance(name, str) else "")

    def wrong(key: str, allowed: str) -> InputError:
        return InputError(f"{title}: {key} = {_shown(table.get(key))}: must be {allowed}")

    for key in table:
        if key not in RULE_KEYS:
            raise InputError(
                f"{title}: has no key {_shown(key)}{did_you_mean(key, RULE_KEYS)} (keys of a rule: {', '.join(RULE_KEYS)})"
            )
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{title}: needs a name, text in quotes; reports tell rules by their names")
    layer = table.get("layer")
    if isinstance(layer, bool) or not (layer is None or isinstance(layer, str | int)) or layer == "":
        raise wrong("layer", f"an index, a pattern as of --layers, or {WORST!r}")
    sweep = table.get("sweep", "all" if layer is None else "single")
    if sweep not in SWEEPS:
        raise wrong("sweep", f"one of {', '.join(SWEEPS)}{did_you_mean(str(sweep), SWEEPS)}")
    if sweep == "all" and layer is not None:
        raise InputError(
            f"{title}: the sweep all has noise in every layer, so it takes no layer; leave it out, or use sweep = 'single'"
        )
    if sweep == "cumulative" and layer is None:
        raise InputError(
            f"{title}: the sweep cumulative has one figure for each layer; say which with layer, or layer = {WORST!r}"
        )
    metric = table.get("metric", "top1")
    if metric not in METRICS:
        raise wrong("metric", f"one of {', '.join(METRICS)}")
    relative_to = table.get("relative_to", CLEAN)
    if not isinstance(relative_to, str) or not relative_to:
        raise wrong("relative_to", f"{CLEAN!r}, {ABSOLUTE!r} or the path of a baseline's run file")
    baseline = None if relative_to in (CLEAN, ABSOLUTE) else path.parent / relative_to
    if baseline is not None and not baseline.is_file():
        raise InputError(
            f"{title}: relative_to = {_shown(relative_to)}: must be {CLEAN!r}, {ABSOLUTE!r} or the path of a baseline's run "
            f"file, and there is no file {str(baseline)!r}{did_you_mean(relative_to, (CLEAN, ABSOLUTE))}"
        )
    least, drop = (_share(table, key, wrong) for key in ("min", "max_drop"))
    if (least is None) == (drop is None):
        raise InputError(f"{title}: needs either min or max_drop" + (", not both" if least is not None else ""))
    confidence = as_number(table.get("confidence", DEFAULT_CONFIDENCE))
    if confidence is None or not 0.5 < confidence < 1.0:
        raise wrong("confidence", "a number between 0.5 and 1 (0.95 is the default)")
    return Rule(
        name,
        sweep,
        None if layer is None else str(layer),
        _snr(table, wrong),
        metric,
        relative_to,
        baseline,
        least,
        drop,
        confidence,
    )


def _share(table: Mapping[str, object], key: str, wrong: Any) -> float | None:
    if key not in table:
        return None
    number = as_number(table[key])
    if number is None or not 0.0 <= number <= 1.0:
        raise wrong(key, "a fraction from 0 to 1 (0.95 is 95 %)")
    return number


def _snr(table: Mapping[str, object], wrong: Any) -> float:
    value = table.get("snr")
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value <= 0:
        raise wrong("snr", "a number above 0, sigma_w / sigma_noise (10 is noise of 10 %)")
    return float(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
