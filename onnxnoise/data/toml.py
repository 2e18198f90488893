"""Reads TOML files strictly: a key or value that is unknown or impossible is an error that says which ones are allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from onnxnoise.errors import CardError, InputError
from onnxnoise.files import read_file
from onnxnoise.formats import CARD, RULES, mistaken
from onnxnoise.parsing import parsed
from onnxnoise.text import did_you_mean, shortened

Name = TypeVar("Name", bound=str)
Size = int | tuple[int, int]
"""The side of a square, or (height, width); pixels."""

MAX_BYTES = 1 << 20
_LARGEST_INTEGER = 2**63 - 1
"""TOML's integers have 64 bits; Python reads longer ones, and can't always write them."""


@dataclass(frozen=True)
class Table:
    """One table of `file`, which messages call `title`; `refusal` is the class of its errors.

    Each method returns None where the key is absent, and raises `refusal` where its value is not what the method says.
    """

    file: Path
    title: str
    values: Mapping[str, object]
    refusal: type[InputError] = CardError

    def refused(self, found: str) -> InputError:
        """The error that says what was found in this table."""
        return self.refusal(f"{self.file}: {self.title} {found}")

    def error(self, key: str, allowed: str) -> InputError:
        """The error that says which values `key` may have."""
        if self.values.get(key) is None:
            return self.refused(f"needs {key}: {allowed}")
        return self.refused(f"{key} = {shown(self.values.get(key))}: must be {allowed}")

    def check_keys(self, known: Sequence[str], of: str) -> None:
        """Raise `refusal` for a key that is not known; `of` says whose keys they are."""
        for key in self.values:
            if key not in known:
                raise self.refused(
                    f"has no key {shown(key)}{did_you_mean(key, known)} (keys of {of}: {', '.join(known)})"
                )

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
        near = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise self.error(key, f"one of {', '.join(choices)}{near}")

    def switch(self, key: str) -> bool | None:
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise self.error(key, "true or false")

    def integer(self, key: str, low: int, high: int | None = None) -> int | None:
        """A whole number from `low` to `high`, both included; None for no upper end but that of TOML's integers."""
        value = self.values.get(key)
        most = _LARGEST_INTEGER if high is None else high
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and low <= value <= most):
            return value
        raise self.error(key, f"a whole number from {low} " + ("up" if high is None else f"to {high}"))

    def number(
        self,
        key: str,
        allowed: str,
        *,
        above: float = -math.inf,
        least: float = -math.inf,
        to: float = math.inf,
        infinite: bool = False,
    ) -> float | None:
        """A number x, above < x and least <= x <= to, finite unless `infinite`; `allowed` says so to a person."""
        value = self.values.get(key)
        if value is None:
            return None
        number = math.inf if infinite and value == math.inf else as_number(value)
        if number is not None and number > above and least <= number <= to:
            return number
        raise self.error(key, allowed)

    def size(self, key: str, low: int, high: int) -> Size | None:
        """A whole number from `low` to `high`, or a pair of those, [height, width]."""
        value = self.values.get(key)
        if not isinstance(value, list):
            return self.integer(key, low, high)
        pair = [side for side in value if isinstance(side, int) and not isinstance(side, bool) and low <= side <= high]
        if len(pair) == len(value) == 2:
            return pair[0], pair[1]
        raise self.error(key, f"a whole number from {low} to {high}, or two of them, [height, width]")

    def channels(
        self, key: str, allowed: str, *, above: float = -math.inf, count: int | None = None
    ) -> tuple[float, ...] | None:
        """Finite numbers, one for each of `count` channels (None: any number of them).

        A single one stands for any number of channels, and comes back three times.
        """
        value = self.values.get(key)
        if value is None:
            return None
        numbers = [as_number(item) for item in (value if isinstance(value, list) else [value])]
        valid = [number for number in numbers if number is not None and number > above]
        if len(numbers) == len(valid) > 0 and len(valid) in (1, count or len(valid)):
            return tuple(valid) if len(valid) > 1 else (valid[0],) * 3
        raise self.error(key, allowed)


def read_document(path: Path, what: str, refusal: type[InputError], otherwise: str = "") -> dict[str, object]:
    """The content of a TOML file, which messages call a `what`; `otherwise` says what to do where it can't be read.

    Raises `refusal` where the file can't be read, is too large, or isn't TOML.
    """
    try:
        content = read_file(path, MAX_BYTES)
    except OSError as error:
        raise refusal(f"{path}: can't be read: {error.strerror or error}{otherwise}") from error
    if len(content) > MAX_BYTES:
        raise refusal(f"{path}: {_other(path, what) or f'more than {MAX_BYTES} bytes; this is no {what}'}")
    try:
        return parsed(content)
    except OverflowError as error:
        raise refusal(f"{path}: {_other(path, what) or f'{error}; this is no {what}'}") from None
    except (ValueError, RecursionError) as error:
        raise refusal(f"{path}: {_other(path, what) or f'is not valid TOML: {error}'}") from error


def _other(path: Path, what: str) -> str | None:
    """The kind of a file that should be a `what`, where its first bytes tell it, and what to do."""
    return mistaken(path, f"a {what}", besides=(RULES if what == "rules file" else CARD,))


def read_tables(path: Path, allowed: Mapping[str, Sequence[str]]) -> dict[str, Table]:
    """The tables of a card or a manifest; `allowed` has the keys of each. A table that the file lacks comes back empty.

    Raises CardError where the file can't be read, isn't TOML, or has a table or key that `allowed` lacks.
    """
    document = read_document(path, "card", CardError)
    tables = {}
    for name, values in document.items():
        if name not in allowed:
            found = (
                f"[{shortened(name, 80)}]" if isinstance(values, dict) else f"{shortened(name, 80)} outside of a table"
            )
            if other := _other(path, "card"):
                raise CardError(f"{path}: {other}")
            known = ", ".join(f"[{table}]" for table in allowed)
            raise CardError(f"{path}: {found} is unknown{did_you_mean(name, allowed)} (allowed: {known})")
        tables[name] = as_table(path, f"[{name}]", values, CardError)
        tables[name].check_keys(allowed[name], f"[{name}]")
    return {name: tables.get(name, Table(path, f"[{name}]", {})) for name in allowed}


def as_table(path: Path, title: str, values: object, refusal: type[InputError]) -> Table:
    """The table that a document has under `title`; raises `refusal` where something else is there."""
    if not isinstance(values, dict):
        raise refusal(f"{path}: {title.strip('[]')} = {shown(values)}: must be a table, {title}")
    return Table(path, title, values, refusal)


def as_number(value: object) -> float | None:
    """A finite TOML integer or float as float; None for anything else (TOML knows inf and nan)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def shown(value: object) -> str:
    """A value from a file as messages write it, in 80 characters at most."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        text = "a number of thousands of digits"
    return text if len(text) <= 80 else text[:77] + "..."
