"""Reads TOML files strictly: what is unknown, wrongly typed or impossible is a CardError that says what is allowed."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from onnxnoise.errors import CardError

Name = TypeVar("Name", bound=str)
Triple = tuple[float, float, float]

MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Table:
    """One `[name]` table of `file`.

    Each method returns None where the key is absent, and raises CardError where its value is not what the method says.
    """

    file: Path
    name: str
    values: Mapping[str, object]

    def error(self, key: str, allowed: str) -> CardError:
        return CardError(f"{self.file}: [{self.name}] {key} = {_shown(self.values.get(key))}: must be {allowed}")

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self.error(key, "text in quotes")

    def path(self, key: str, allowed: str) -> Path | None:
        """A file inside the folder of this one, written with /: a TOML file can't point out of its folder."""
        text = self.text(key)
        if text is None:
            return None
        relative = PurePosixPath(text)
        if not text or "\\" in text or relative.is_absolute() or ".." in relative.parts:
            raise self.error(key, allowed)
        return self.file.parent / relative

    def choice(self, key: str, choices: Sequence[Name]) -> Name | None:
        value = self.values.get(key)
        if value is None:
            return None
        for choice in choices:
            if value == choice:
                return choice
        raise self.error(key, f"one of {', '.join(choices)}{did_you_mean(str(value), choices)}")

    def integer(self, key: str, low: int, high: int) -> int | None:
        value = self.values.get(key)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and low <= value <= high):
            return value
        raise self.error(key, f"a whole number from {low} to {high}")

    def number(self, key: str, allowed: str, *, above: float = -math.inf, to: float = math.inf) -> float | None:
        """A finite number x, above < x <= to; `allowed` says so to a person."""
        value = self.values.get(key)
        if value is None:
            return None
        if (number := as_number(value)) is not None and above < number <= to:
            return number
        raise self.error(key, allowed)

    def triple(self, key: str, allowed: str, *, above: float = -math.inf) -> Triple | None:
        """Three finite numbers, one for each channel; a single one stands for all three."""
        value = self.values.get(key)
        if value is None:
            return None
        numbers = [as_number(item) for item in (value if isinstance(value, list) else [value] * 3)]
        valid = [number for number in numbers if number is not None and number > above]
        if len(numbers) == len(valid) == 3:
            return valid[0], valid[1], valid[2]
        raise self.error(key, allowed)


def read_tables(path: Path, allowed: Mapping[str, Sequence[str]]) -> dict[str, Table]:
    """The tables of a TOML file; `allowed` has the keys of each. A table that the file lacks comes back empty.

    Raises CardError: the file can't be read, is not TOML, or has a table or key that `allowed` lacks.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise CardError(f"{path}: more than {MAX_BYTES} bytes; this is no card")
        document = tomllib.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise CardError(f"{path}: can't be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise CardError(f"{path}: is not valid TOML: {error}") from error

    for name, values in document.items():
        if name not in allowed:
            found = f"[{name}]" if isinstance(values, dict) else f"{name} outside of a table"
            tables = ", ".join(f"[{table}]" for table in allowed)
            raise CardError(f"{path}: {found} is unknown{did_you_mean(name, allowed)} (allowed: {tables})")
        if not isinstance(values, dict):
            raise CardError(f"{path}: {name} = {_shown(values)}: must be a table, [{name}]")
        for key in values:
            if key not in allowed[name]:
                keys = ", ".join(allowed[name])
                raise CardError(
                    f"{path}: [{name}] has no key {key!r}{did_you_mean(key, allowed[name])} (keys of [{name}]: {keys})"
                )
    return {name: Table(path, name, document.get(name, {})) for name in allowed}


def as_number(value: object) -> float | None:
    """A finite TOML integer or float as float; None for anything else (TOML knows inf and nan)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
