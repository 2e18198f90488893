"""Reads a gate's rules from TOML: `onnxnoise.toml`, or `[tool.onnxnoise.gate]` in pyproject.toml; unknown keys are errors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from onnxnoise.data.toml import Table, as_table, read_document, shown
from onnxnoise.errors import InputError, UsageError
from onnxnoise.fields import Flag
from onnxnoise.files import is_file, is_there
from onnxnoise.flags import bench_flags, from_flags
from onnxnoise.formats import RULES, mistaken
from onnxnoise.noise.base import Level
from onnxnoise.noise.models import readable
from onnxnoise.noise.times import seconds
from onnxnoise.spec import BenchSpec
from onnxnoise.text import did_you_mean
from onnxnoise.words import METRICS, SWEEPS, Metric, Sweep

RULES_FILE = "onnxnoise.toml"
PROJECT_FILE = "pyproject.toml"
PROJECT_TABLE = ("tool", "onnxnoise", "gate")
WORST = "worst"
CLEAN, ABSOLUTE = "clean", "absolute"
RULE_KEYS = ("name", "sweep", "layer", "snr", "level", "metric", "relative_to", "min", "max_drop", "confidence")
TABLES = ("bench", "noise", "rule")
NOISE_KEYS = (
    *("noise", "protocol", "scale", "sigma_scope", "analog"),
    *("bn", "compensate", "calibration", "noise_map", "seed"),
)
"""The keys of `[bench]` that say what the noise is; a table `[noise]` of their own may have them."""
DEFAULT_CONFIDENCE = 0.95
MOST_CONFIDENCE = 0.999999
"""Beyond it no number of draws that anybody measures decides anything, and the bounds' arithmetic ends."""
MOST_RULES = 1000


@dataclass(frozen=True)
class Rule:
    """A rule: an accuracy under noise, relative to something, must be at least `min`, or drop by `max_drop` at most.

    `layer` is None (all layers together, or with the sweep `single` the mean over layers, `A_avr`), a pattern as of `--layers`
    (then every layer it names must hold; an index is one too) or `worst` (every layer must). `relative_to` is `clean`,
    `absolute`, or `baseline`, the run file whose accuracy in the same place is divided by.

    | relative_to | `min`                             | `max_drop`                             |
    |-------------|-----------------------------------|----------------------------------------|
    | `clean`     | accuracy / clean >= min           | accuracy / clean >= 1 - max_drop       |
    | `absolute`  | accuracy >= min                   | accuracy - clean >= -max_drop          |
    | a run file  | accuracy / the baseline's >= min  | accuracy / the baseline's >= 1 - max_drop |

    `key` is the key that the level was written with: `snr`, for gaussian noise only, or `level`; `is_time` says that it was
    written as a time, in a text with a unit.
    """

    name: str
    sweep: Sweep
    layer: str | None
    key: Literal["snr", "level"]
    level: float
    metric: Metric
    relative_to: str
    baseline: Path | None
    min: float | None
    max_drop: float | None
    confidence: float
    is_time: bool = False

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
        """The meaning of the rule's value, in words."""
        if self.relative_to == CLEAN:
            return "accuracy / clean"
        if self.relative_to == ABSOLUTE:
            return "accuracy - clean" if self.from_clean else "accuracy"
        return "accuracy / baseline"


@dataclass(frozen=True)
class Rules:
    """A rules file: its rules in order, and the flags of its tables `[bench]` and `[noise]`, as texts: how a model is benched."""

    path: Path
    rules: tuple[Rule, ...]
    bench: Mapping[str, str | bool]


def find_rules(given: str | None) -> Path:
    """The rules file: `given`, else onnxnoise.toml or pyproject.toml in this folder; raises InputError where there is none."""
    if given is not None:
        return Path(given)
    for name in (RULES_FILE, PROJECT_FILE):
        if is_there(Path(name)):
            return Path(name)
    raise InputError(
        f"no rules: there is no {RULES_FILE} and no {PROJECT_FILE} in this folder; write one (examples/gate shows how) "
        "or pass --rules FILE"
    )


def load_rules(path: Path) -> Rules:
    """The rules in `path`. Raises InputError where it can't be read, isn't TOML, has an unusable key or value, or no rule."""
    document = read_document(path, "rules file", InputError, "; pass --rules FILE")
    where = ""
    if path.name == PROJECT_FILE:
        where = ".".join(PROJECT_TABLE) + "."
        for key in PROJECT_TABLE:
            inner = document.get(key)
            document = inner if isinstance(inner, dict) else {}
        if not document:
            raise InputError(f"{path}: has no [{where[:-1]}] with rules; add [[{where}rule]] or pass --rules FILE")
    for key in document:
        if key not in TABLES:
            if not where and (other := mistaken(path, "a rules file", besides=(RULES,))):
                raise InputError(f"{path}: {other}")
            raise InputError(
                f"{path}: {where}{shown(key)} is unknown{did_you_mean(key, TABLES)} (known: [{where}bench], [{where}noise], "
                f"[[{where}rule]])"
            )
    tables = document.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise InputError(f"{path}: write each rule as a table of its own, [[{where}rule]] with two brackets")
    if not tables:
        raise InputError(f"{path}: has no rules; write at least one [[{where}rule]] with name, snr and min")
    if len(tables) > MOST_RULES:
        raise InputError(
            f"{path}: has {len(tables):,} rules; a gate decides {MOST_RULES:,} at most: use patterns for layers"
        )
    rules = tuple(_rule(path, number, each) for number, each in enumerate(tables, 1))
    for name, count in Counter(rule.name for rule in rules).items():
        if count > 1:
            raise InputError(
                f"{path}: {'two' if count == 2 else count} rules have the name {shown(name)}; a report tells rules by their "
                "names: change one"
            )
    bench, noise = (
        as_table(path, f"[{where}{name}]", document.get(name, {}), InputError) for name in ("bench", "noise")
    )
    if twice := sorted(bench.values.keys() & noise.values.keys()):
        raise noise.refused(f"has {twice[0]}, and so has {bench.title}; leave out one of the two")
    flags = bench_flags("rules")
    return Rules(path, rules, _bench(bench, flags) | _bench(noise, {key: flags[key] for key in NOISE_KEYS}))


def check_rules(path: Path) -> Rules:
    """The rules in `path`, with all held against what can be known without a model; raises InputError as a gate would."""
    rules = load_rules(path)
    check_asked(rules, bench_spec("", rules, {}))
    return rules


def bench_spec(model: str, rules: Rules, given: Mapping[str, str | bool]) -> BenchSpec:
    """A spec of how a model is benched: by the flags that are given, else by the rules' `[bench]`.

    Raises InputError, which names file and key, where `[bench]` alone can't be used, UsageError where the flags can't.
    """
    own: dict[str, Any] = dict(rules.bench)
    try:
        spec = from_flags(model, **own)
    except UsageError as error:
        keys = {flag.name: key for key, flag in bench_flags("rules").items()}
        named = re.match(r"(--[a-z-]+)", str(error))
        key = keys.get(named[1], "") if named else ""
        said = re.sub(r"--[a-z-]+", lambda found: keys.get(found[0], found[0]), str(error))
        where = f"{key} = {shown(own[key])}: {said.removeprefix(key).lstrip(' :')}" if key in own else said
        raise InputError(f"{rules.path}: [bench] {where}") from error
    return from_flags(model, **{**own, **given}) if given else spec


def _bench(table: Table, flags: Mapping[str, Flag]) -> dict[str, str | bool]:
    """The settings in a table as flags take them: texts, a bool for a switch. Relative paths are the rules file's."""
    table.check_keys(tuple(flags), table.title)
    return {key: _setting(table, key, flags[key]) for key in table.values}


def _setting(table: Table, key: str, flag: Flag) -> str | bool:
    """The value that a key of `[bench]` has; raises InputError where a flag of the same kind would be refused."""
    value: object
    if flag.syntax == "switch":
        value = table.switch(key)
    elif flag.syntax == "whole":
        value = table.integer(key, flag.least or 0)
    elif flag.syntax == "number":
        value = table.number(key, "a number")
    elif flag.syntax == "word":
        value = table.choice(key, flag.choices)
    else:
        value = table.text(key)
        if flag.syntax == "path" and (beside := table.file.parent / str(value)).exists():
            value = beside
    return value if isinstance(value, bool) else str(value)


def _rule(path: Path, number: int, values: Mapping[str, object]) -> Rule:
    name = values.get("name")
    title = f"rule {number}" + (f" ({shown(name)})" if isinstance(name, str) else "") + ":"
    table = Table(path, title, values, InputError)
    table.check_keys(RULE_KEYS, "a rule")
    if not isinstance(name, str) or not name.strip():
        raise table.refused("needs a name, text in quotes; reports tell rules by their names")
    layer = _layer(table)
    sweep = table.choice("sweep", SWEEPS) or ("all" if layer is None else "single")
    if sweep == "all" and layer is not None:
        raise table.refused(
            "the sweep all has noise in every layer, so it takes no layer; leave it out, or use sweep = 'single'"
        )
    if sweep == "cumulative" and layer is None:
        raise table.refused(
            f"the sweep cumulative has one figure for each layer; say which with layer, or layer = {WORST!r}"
        )
    metric = table.choice("metric", METRICS) or "top1"
    relative_to, baseline = _relative_to(table)
    share = "a fraction from 0 to 1 (0.95 is 95 %)"
    least, drop = (table.number(key, share, least=0.0, to=1.0) for key in ("min", "max_drop"))
    if (least is None) == (drop is None):
        raise table.refused("needs either min or max_drop" + (", not both" if least is not None else ""))
    confidence = table.number(
        "confidence",
        f"a number above 0.5, at most {MOST_CONFIDENCE} ({DEFAULT_CONFIDENCE} is the default)",
        above=0.5,
        to=MOST_CONFIDENCE,
    )
    key, level = _level(table)
    sure, is_time = confidence or DEFAULT_CONFIDENCE, isinstance(values.get("level"), str)
    return Rule(name, sweep, layer, key, level, metric, relative_to, baseline, least, drop, sure, is_time)


def _level(table: Table) -> tuple[Literal["snr", "level"], float]:
    """The key that a rule's level is written with, and the level itself."""
    ratio = "a number above 0, sigma_w / sigma_noise (10 is noise of 10 %)"
    if "level" not in table.values:
        snr = table.number("snr", ratio, above=0.0, infinite=True)
        if snr is None:
            raise table.error("snr", f"{ratio}, or give level for other noise than gaussian")
        return "snr", snr
    if "snr" in table.values:
        raise table.refused("has snr and level, which say the same; leave out one")
    written = table.values["level"]
    if isinstance(written, str):
        time = seconds(written)
        if time is None or not time >= 0:
            raise table.error("level", 'a number from 0 up, or a time in quotes, as "1d"')
        return "level", time
    level = table.number("level", 'a number from 0 up, or a time in quotes, as "1d"', least=0.0, infinite=True)
    assert level is not None
    return "level", level


def check_levels(rules: Rules, level: Level) -> None:
    """Raise InputError for a rule whose level isn't one of the noise that is gated."""
    for rule in rules.rules:
        title = f"{rules.path}: rule {shown(rule.name)}"
        if rule.key == "snr" and level.name != "SNR":
            raise InputError(
                f"{title}: snr is of gaussian noise, but this noise has {level.name}; write level = {_written(level)}"
            )
        if rule.is_time and not level.time:
            raise InputError(
                f"{title}: level is a time, but the level of this noise is the {level.title}; write level = {_written(level)}"
            )
        try:
            level.check(rule.level, f"{title}: {rule.key}")
        except UsageError as error:
            raise InputError(str(error)) from error


def check_asked(rules: Rules, spec: BenchSpec) -> None:
    """Raise InputError for a rule whose level isn't one that a run of this spec measures."""
    check_levels(rules, spec.level)
    for rule in rules.rules:
        if spec.only not in (None, rule.level):
            there = spec.level.number(spec.only)
            raise InputError(
                f"{rules.path}: rule {shown(rule.name)}: {rule.key} is {spec.level.number(rule.level)}, but "
                f"{readable(spec.setting)} has its level written; write {rule.key} = "
                + (f'"{there}"' if spec.level.time else there)
                + ", or the noise without its level"
            )


def _written(level: Level) -> str:
    """A level as a rule has it, for a message."""
    number = level.number(level.defaults[0])
    return f'"{number}"' if level.time else number


def _layer(table: Table) -> str | None:
    """The layers of a rule as a pattern, or `worst`; None for all layers together or their mean."""
    layer = table.values.get("layer")
    if layer is None or (isinstance(layer, str) and layer):
        return layer
    if isinstance(layer, int):
        return str(table.integer("layer", 1))
    raise table.error("layer", f"an index, a pattern as of --layers, or {WORST!r}")


def _relative_to(table: Table) -> tuple[str, Path | None]:
    """The `relative_to` of a rule, and its path where that is a run file."""
    allowed = f"{CLEAN!r}, {ABSOLUTE!r} or the path of a baseline's run file"
    relative_to = table.values.get("relative_to", CLEAN)
    if not isinstance(relative_to, str) or not relative_to:
        raise table.error("relative_to", allowed)
    if relative_to in (CLEAN, ABSOLUTE):
        return relative_to, None
    baseline = table.file.parent / relative_to
    if not is_file(baseline):
        near = did_you_mean(relative_to, (CLEAN, ABSOLUTE))
        raise table.error("relative_to", f"{allowed}, and there is no file {str(baseline)!r}{near}")
    return relative_to, baseline
