"""Reads a noise map, a TOML file that gives single layers their chain, their level, or none because they are digital."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from onnxnoise.errors import InputError, UsageError
from onnxnoise.files import read_file
from onnxnoise.noise.base import Level
from onnxnoise.noise.models import chain_of, parse_chain
from onnxnoise.noise.times import seconds
from onnxnoise.parsing import parsed
from onnxnoise.records import MapEntry, NoiseMap, NoiseSetting, NoiseStep
from onnxnoise.text import quoted

DIGITAL = "digital"
EXAMPLE = '[layers] with lines as "conv1,dense" = "digital" or "layer1.*" = "relative:0.05"'
_MAX_BYTES = 1 << 20


def read_map(path: str, steps: tuple[NoiseStep, ...]) -> NoiseMap:
    """The noise map in a file, of a run whose own chain is `steps`.

    Its table `[layers]` has patterns as of `--layers`, each with `digital`, a level of the run's own chain, or a chain. Raises
    InputError where the file can't be read or has anything else in it, naming the pattern.
    """
    try:
        content = read_file(path, _MAX_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path}: the noise map can't be read: {reason}; name another file with --noise-map"
        ) from error
    if len(content) > _MAX_BYTES:
        raise InputError(f"{path}: is no noise map: it is larger than 1 MiB; a noise map is {EXAMPLE}")
    try:
        document = parsed(content)
    except OverflowError as error:
        raise InputError(f"{path}: is no noise map: it has {error}; a noise map is {EXAMPLE}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no noise map, not even TOML: {error}; a noise map is {EXAMPLE}") from error
    table = document.get("layers")
    if unknown := [key for key in document if key != "layers"]:
        raise InputError(f"{path}: {quoted(unknown[0])} is unknown; a noise map is {EXAMPLE}")
    if not isinstance(table, dict) or not table:
        raise InputError(f"{path}: has no layers; a noise map is {EXAMPLE}")
    try:
        found = [_entry(pattern, value, steps) for pattern, value in table.items()]
        return noise_map(hashlib.sha256(content).hexdigest(), found, steps)
    except UsageError as error:
        raise InputError(f"{path}: {str(error).removeprefix('--noise: ')}") from error


def noise_map(sha256: str, entries: Sequence[MapEntry], steps: tuple[NoiseStep, ...]) -> NoiseMap:
    """The noise map of these entries; raises UsageError where one leaves a level open that the run of `steps` doesn't sweep."""
    swept = _level(steps)
    for each in entries:
        if each.steps is not None and _is_open(each.steps) and _level(each.steps) != swept:
            level = _level(each.steps)
            raise UsageError(
                f"{quoted(each.pattern)}: {each.noise} has no level written down, and {swept.name} is swept, not {level.name}; "
                f"write one, as {each.noise}:{level.number(level.defaults[0])}"
            )
    whole = any("*" in map(str.strip, each.pattern.split(",")) for each in entries)
    return NoiseMap(sha256, tuple(entries), whole and not any(_is_open(each.steps or ()) for each in entries))


def kept_map(kept: dict[str, object] | None, steps: tuple[NoiseStep, ...]) -> NoiseMap | None:
    """The noise map that `NoiseMap.flat` wrote; raises ValueError for anything else."""
    if kept is None:
        return None
    layers = kept.get("layers")
    if not isinstance(layers, list) or not isinstance(kept.get("sha256"), str):
        raise ValueError("its noise map is none")
    entries = []
    for row in layers:
        if not (isinstance(row, list) and len(row) >= 2 and all(isinstance(each, str) for each in row)):
            raise ValueError("its noise map has an entry that is none")
        entries.append(MapEntry(row[0], None if row[1] == DIGITAL else parse_chain(row[1], row[2:])))
    return noise_map(str(kept["sha256"]), entries, steps)


def map_text(entries: Iterable[tuple[str, str]], about: str) -> str:
    """A noise map as a file: its (pattern, noise) pairs under a comment `about` it."""
    lines = [f'"{pattern}" = "{noise}"' for pattern, noise in entries]
    return "\n".join([*(f"# {line}" for line in about.splitlines()), "[layers]", *lines, ""])


def _entry(pattern: str, value: object, steps: tuple[NoiseStep, ...]) -> MapEntry:
    if isinstance(value, dict):
        raise UsageError(f"{quoted(pattern)} is a table; write a pattern with dots in quotes, as {EXAMPLE}")
    if value == DIGITAL:
        return MapEntry(pattern, None)
    level = value if isinstance(value, int | float) and not isinstance(value, bool) else _as_level(value)
    if level is not None:
        if not _is_open(steps):
            raise UsageError(
                f"{quoted(pattern)}: {value} is a level, but the run's own noise has one written; write a chain"
            )
        return MapEntry(pattern, _with_level(steps, _level(steps).check(float(level), quoted(pattern))))
    if not isinstance(value, str):
        raise UsageError(f"{quoted(pattern)}: {value!r} is no noise; write a chain, a level or {DIGITAL!r}, in quotes")
    return MapEntry(pattern, _closed(parse_chain(value)))


def _as_level(value: object) -> float | None:
    """The level that a text is: a number, or a time; None for any other value."""
    if not isinstance(value, str):
        return None
    try:
        return float(value)
    except ValueError:
        return seconds(value)


def _level(steps: tuple[NoiseStep, ...]) -> Level:
    return chain_of(NoiseSetting(steps)).level


def _is_open(steps: tuple[NoiseStep, ...]) -> bool:
    return any(step.level is None for step in steps)


def _closed(steps: tuple[NoiseStep, ...]) -> tuple[NoiseStep, ...]:
    """The steps, the open level written down where it can have but one value."""
    level = _level(steps)
    return _with_level(steps, level.only) if _is_open(steps) and level.only is not None else steps


def _with_level(steps: tuple[NoiseStep, ...], level: float) -> tuple[NoiseStep, ...]:
    return tuple(replace(step, level=level) if step.level is None else step for step in steps)
