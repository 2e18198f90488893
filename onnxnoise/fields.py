"""Flags as fields of dataclasses: how people write a field's value, and which values it may have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, TypeVar

from onnxnoise.errors import UsageError
from onnxnoise.text import quoted

Syntax = Literal[
    "text",
    "path",
    "word",
    "words",
    "switch",
    "whole",
    "number",
    "numbers",
    "levels",
    "bytes",
    "seconds",
    "share",
    "amounts",
]
"""The ways to write a value: `word` and `words` are the flag's choices, `levels` are numbers or times (1h, 1d) in seconds,
`share` is I/N, `amounts` are NAME=N,..."""

_Word = TypeVar("_Word", bound=str)


@dataclass(frozen=True)
class Flag:
    """The flag by which people give a field's value.

    `names` are the names of the option, as `-q --quiet` or `--check/--no-check`; an argument has none. `at` names the commands
    that take it, `rules` the `[bench]` table of a gate's rules; where it is empty, every command that takes the field's record
    does. `choices` are the words allowed, also for completion, `least` is the smallest number, `example` a value for messages.
    `by_default` is the help's text about the default: it says what None means, or has `{}` in the place of the value. A flag
    with `many` may be given several times. `after` names the field after which help lists the flag, where that isn't the field
    before.
    """

    names: str
    metavar: str
    help: str
    syntax: Syntax = "text"
    default: Any = ...
    at: str = ""
    choices: tuple[str, ...] = ()
    least: int | None = None
    example: str = ""
    by_default: str = ""
    many: bool = False
    after: str = ""

    @property
    def name(self) -> str:
        """The option as messages say it."""
        return self.names.split()[-1].split("/")[0] if self.names else self.metavar

    @property
    def required(self) -> bool:
        return self.default is ...

    @property
    def shown_default(self) -> str | None:
        """The default as people read it, None where there is nothing to say."""
        if self.required or self.default in (None, False, ()):
            return self.by_default or None
        if self.default is True:
            return self.name
        items = self.default if isinstance(self.default, tuple) else (self.default,)
        text = ",".join(f"{item:g}" if isinstance(item, float) else str(item) for item in items)
        return self.by_default.format(text) if self.by_default else text

    def taken_by(self, command: str) -> bool:
        """Whether the command, or `rules`, takes the flag."""
        return not self.at or command in self.at.split()


def flag(names: str, metavar: str | None, help_text: str, *, default: Any = ..., **more: Any) -> Any:
    """A dataclass field that people give as a flag, required where it has no default.

    `more` are other fields of Flag. Without a `metavar` the value is one of the `choices`; without those too, it is a switch.
    """
    if metavar is None:
        metavar = "|".join(more.get("choices", ()))
        more["syntax"] = "word" if metavar else "switch"
    metadata = {"flag": Flag(names, metavar, help_text, default=default, **more)}
    return field(default=MISSING if default is ... else default, metadata=metadata)


def flags_of(record: type) -> dict[str, Flag]:
    """The flags of a dataclass by the names of their fields, in the order in which help lists them."""
    flags = {each.name: each.metadata["flag"] for each in fields(record) if "flag" in each.metadata}
    names = [name for name, each in flags.items() if not each.after]
    for name, each in flags.items():
        if each.after:
            names.insert(names.index(each.after) + 1, name)
    return {name: flags[name] for name in names}


def check(each: Flag, value: Any) -> None:
    """Raise UsageError for a value that is too small, missing, given twice, or not one of the flag's words."""
    if value is None:
        return
    if each.syntax in ("numbers", "levels", "words"):
        if not value:
            raise UsageError(f"{each.name}: nothing given; name at least one")
        if twice := [item for item in dict.fromkeys(value) if value.count(item) > 1]:
            raise UsageError(f"{each.name}: {twice[0]} is given twice; leave out one")
    if each.syntax in ("word", "words"):
        for word in value if each.syntax == "words" else (value,):
            one_of(each.name, word, each.choices)
    if each.least is not None and value < each.least:
        raise UsageError(f"{each.name}: {value} is too small; give a whole number from {each.least} up")


def one_of(name: str, value: str, allowed: Sequence[_Word]) -> _Word:
    """`value` itself; raises UsageError, which lists what is allowed, for any other word."""
    for word in allowed:
        if word == value:
            return word
    raise UsageError(f"{name}: {quoted(value)} is not known; use {', '.join(allowed)}")
