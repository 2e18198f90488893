"""Chooses layers by a pattern, and writes layer indices as one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Protocol, TypeVar, get_args

from onnxnoise.errors import UsageError
from onnxnoise.text import quoted
from onnxnoise.words import Kind

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


class Selectable(Protocol):
    """A layer that a pattern can name."""

    @property
    def index(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...


_Layer = TypeVar("_Layer", bound=Selectable)


def select_layers(layers: Sequence[_Layer], pattern: str | None, flag: str = "--layers") -> tuple[_Layer, ...]:
    """The layers that `pattern`, given with `flag`, names, in the order of `layers`; None names all of them.

    A pattern has parts between commas: a glob on the name, a kind, an index or a range `3-10`. Raises UsageError for a part
    that matches no layer.
    """
    if pattern is None:
        return tuple(layers)
    chosen: set[int] = set()
    for part in (each.strip() for each in pattern.split(",")):
        found = {layer.index for layer in layers if _matches(layer, part)}
        if not found:
            kinds = ", ".join(sorted({layer.kind for layer in layers}))
            raise UsageError(
                f"{flag}: {quoted(part)} matches no layer; give a name or glob (`onnxnoise layers` shows the names), "
                f"a kind ({kinds}), an index or a range within 1-{max((layer.index for layer in layers), default=0)}"
            )
        chosen |= found
    return tuple(layer for layer in layers if layer.index in chosen)


def matches(layer: Selectable, pattern: str) -> bool:
    """Whether one of a pattern's parts between commas names the layer."""
    return any(_matches(layer, part.strip()) for part in pattern.split(","))


def _matches(layer: Selectable, part: str) -> bool:
    if part in get_args(Kind):
        return layer.kind == part
    if numbers := _RANGE.fullmatch(part):
        return int(numbers[1]) <= layer.index <= int(numbers[2] or numbers[1])
    return part == layer.name or fnmatchcase(layer.name, part)


def index_ranges(indices: Sequence[int]) -> str:
    """Rising layer indices as a pattern, with ranges where they are consecutive: `1-3,5`."""
    parts: list[list[int]] = []
    for index in indices:
        if parts and index == parts[-1][1] + 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)
