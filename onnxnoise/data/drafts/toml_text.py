"""Writes a draft of a card as TOML: what is known with where it is from, what isn't as a comment with the question."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnxnoise.text import safe

_MOST_ON_A_LINE = 88


@dataclass(frozen=True)
class Entry:
    """One key of a card with its value, and the sentence about it that stands above as a comment.

    `question` is what only a person can answer. A key without a value (None) is a comment alone.
    """

    table: str
    key: str
    value: Any = None
    comment: str = ""
    question: str = ""


def card_toml(entries: Sequence[Entry], head: str) -> str:
    """The card's text; tables come in the order of their first entries."""
    lines = [f"# {safe(head)}"]
    for table in dict.fromkeys(entry.table for entry in entries):
        mine = [entry for entry in entries if entry.table == table]
        lines += ["", f"[{table}]" if any(entry.value is not None for entry in mine) else f"# [{table}]"]
        for entry in mine:
            lines += [f"# {part}" for part in _wrapped(entry.comment)]
            lines += [f"# ? {part}" for part in _wrapped(entry.question)]
            if entry.value is not None:
                lines.append(f"{entry.key} = {_value(entry.value)}")
    return "\n".join(lines) + "\n"


def _wrapped(sentence: str) -> list[str]:
    """The sentence in lines that a reader takes in at a glance."""
    return textwrap.wrap(safe(sentence), 110, break_long_words=False, break_on_hyphens=False)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(safe(value), ensure_ascii=False)
    if isinstance(value, list | tuple):
        texts = [_value(each) for each in value]
        short = f"[{', '.join(texts)}]"
        return short if len(short) <= _MOST_ON_A_LINE else "[\n" + "".join(f"    {text},\n" for text in texts) + "]"
    return f"{value:.10g}" if isinstance(value, float) else str(value)
