"""Reads the texts of flags into the values of records."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from onnxnoise.errors import UsageError
from onnxnoise.fields import Flag, Syntax, check, flag, flags_of, one_of
from onnxnoise.noise.times import seconds
from onnxnoise.protocols import PROTOCOLS
from onnxnoise.spec import DEFAULT_DRAWS, BenchSpec
from onnxnoise.text import quoted

_Record = TypeVar("_Record")


class Given(dict[str, Any]):
    """The flags of BenchSpec and Shorthand that are given, by field: texts, or a bool for a switch."""


@dataclass(frozen=True, kw_only=True)
class Shorthand:
    """A name for several of BenchSpec's flags."""

    protocol: str | None = flag(
        "--protocol",
        "NAME",
        f"A published protocol, whose flags it stands for ({', '.join(PROTOCOLS)}); `onnxnoise protocols` says what each means",
        default=None,
        syntax="word",
        choices=tuple(PROTOCOLS),
        at="bench compare gate rules margin plan apply",
    )


def bench_flags(command: str) -> dict[str, Flag]:
    """The flags that say how a model is benched, by field: those that `command` takes, or a rules file's `[bench]` (`rules`)."""
    both = {**flags_of(Shorthand), **flags_of(BenchSpec)}
    return {name: each for name, each in both.items() if each.taken_by(command)}


def from_flags(model: str, *, protocol: str | None = None, **given: Any) -> BenchSpec:
    """The spec that the texts of flags ask for, named as BenchSpec's fields; None stands for a flag that is not given.

    Raises UsageError that names flag and value.
    """
    texts = {name: text for name, text in given.items() if text is not None}
    if protocol is not None:
        texts |= PROTOCOLS[one_of("--protocol", protocol, tuple(PROTOCOLS))].implied(texts)
        if protocol == "paper" and texts.keys().isdisjoint(("draws", "precision", "budget", "max_draws")):
            texts["draws"] = str(DEFAULT_DRAWS)
    levels = texts.pop("levels", None)
    spec = record(BenchSpec, {"model": model, **texts})
    return spec if levels is None else replace(spec, levels=_levels_of(spec, levels))


def _levels_of(spec: BenchSpec, text: str) -> tuple[float, ...]:
    """The levels in a text, which are written as those of the spec's noise are."""
    each = replace(flags_of(BenchSpec)["levels"], example=spec.level.example)
    parts = [part.strip() for part in text.split(",")]
    if not spec.level.time and (times := [part for part in parts if seconds(part) is not None]):
        raise UsageError(f"--levels: {quoted(times[0])} is a time, but the level of {spec.noise} is {spec.level.title}")
    for part in parts:
        if spec.level.time and part[-1:].isalpha() and seconds(part) is None:
            raise _refused(each, part, "no time, which is a number and s, m, h, d or y")
    levels: tuple[float, ...] = value_of(each, text)
    return levels


def record(kind: type[_Record], texts: Mapping[str, Any]) -> _Record:
    """A record whose fields have the values of their texts, a list of texts for a flag that may be given several times.

    Raises UsageError that names flag and value.
    """
    flags = flags_of(kind)
    return kind(**{name: value_of(flags[name], text) for name, text in texts.items()})


def value_of(each: Flag, given: Any) -> Any:
    """The value of a flag's text; raises UsageError that names flag and value."""
    if isinstance(given, bool):
        return given
    if each.many:
        return tuple(_READERS[each.syntax](each, text) for text in given)
    value = _READERS[each.syntax](each, given)
    check(each, value)
    return value


def _number(each: Flag, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _refused(each, text, "not a number") from None


def _numbers(each: Flag, text: str) -> tuple[float, ...]:
    return tuple(_number(each, part) for part in text.split(","))


def _levels(each: Flag, text: str) -> tuple[float, ...]:
    times = [seconds(part) for part in text.split(",")]
    return tuple(
        _number(each, part) if time is None else time for part, time in zip(text.split(","), times, strict=True)
    )


def _whole(each: Flag, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _refused(each, text, "not a whole number", "10") from None


def _word(each: Flag, text: str) -> str:
    return one_of(each.name, text, each.choices)


def _words(each: Flag, text: str) -> tuple[str, ...]:
    """The words in the order of the choices, so that the same words in any order are the same question."""
    asked = [one_of(each.name, part.strip(), each.choices) for part in text.split(",")]
    return tuple(sorted(asked, key=each.choices.index))


_UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?b?)", re.IGNORECASE)


def _bytes(each: Flag, text: str) -> int:
    size = _SIZE.fullmatch(text.strip())
    if size is None:
        raise _refused(each, text, "no amount of memory")
    return int(float(size[1]) * _UNITS[size[2].lower().removesuffix("b") + "b"])


_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+)s)?", re.IGNORECASE)


def _seconds(each: Flag, text: str) -> float:
    time = _TIME.fullmatch(text.strip())
    parts = time.groups("0") if time else ("0", "0", "0")
    seconds = sum(float(part) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True))
    if not seconds:
        raise _refused(each, text, "no length of time")
    return seconds


_SHARE = re.compile(r"(\d{1,6})/(\d{1,6})")


def _share(each: Flag, text: str) -> tuple[int, int]:
    share = _SHARE.fullmatch(text.strip())
    if share is None:
        raise _refused(each, text, "no share of the work")
    return int(share[1]), int(share[2])


def _amounts(each: Flag, text: str) -> tuple[tuple[str, float], ...]:
    return tuple(_amount(each, part) for part in text.split(","))


def _amount(each: Flag, text: str) -> tuple[str, float]:
    name, _, amount = text.partition("=")
    try:
        if float(amount) > 0:
            return name.strip(), float(amount)
        raise ValueError
    except ValueError:
        raise _refused(each, text, "no name and amount") from None


def _refused(each: Flag, text: str, what: str, example: str = "0.05") -> UsageError:
    return UsageError(f"{each.name}: {quoted(text)} is {what}; write for example {each.name} {each.example or example}")


def _as_it_is(_: Flag, text: str) -> str:
    return text


_READERS: dict[Syntax, Callable[[Flag, str], Any]] = {
    "text": _as_it_is,
    "path": _as_it_is,
    "word": _word,
    "words": _words,
    "whole": _whole,
    "number": _number,
    "numbers": _numbers,
    "levels": _levels,
    "bytes": _bytes,
    "seconds": _seconds,
    "share": _share,
    "amounts": _amounts,
}
