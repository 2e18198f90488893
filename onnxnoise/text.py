"""Untrusted text made fit for people to see: invisible characters are replaced, long texts cut in their middle."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of characters that move a cursor, turn the direction of writing, break XML or can't be encoded."""


def safe(text: str) -> str:
    """The text on one line, with a replacement character for each invisible one."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _HIDDEN else c for c in text)


def shortened(text: str, most: int) -> str:
    """The text made `safe`, of at most `most` characters; a longer one loses its middle."""
    text = safe(text)
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def shortened_paths(text: str, most: int = 160) -> str:
    """A message in which whatever is too long for a name, as paths are that nobody reads, loses its middle.

    That is a word of `most` characters, and a name with spaces before the first colon, of twice that (a sentence of our
    own without a name that long stays whole).
    """
    head, colon, rest = text.partition(": ")
    if colon and len(head) > 2 * most:
        text = f"{_cut(head, most)}{colon}{rest}"
    return re.sub(rf"\S{{{most},}}", lambda word: _cut(word[0], most), text)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: (most - 1) // 2]}…{text[-(most // 2) :]}"


def counted(count: int, noun: str, several: str = "") -> str:
    """A number with its noun: `1 layer`, `1,000 layers`; `several` is a plural that is not made with an s."""
    return f"{count:,} {noun if count == 1 else several or f'{noun}s'}"


def among(numbers: Iterable[int]) -> str:
    """Whole numbers: `3`, `3 and 5`, of more than two different ones `32 to 208`; 0 where there are none."""
    found = [f"{number:,}" for number in sorted(set(numbers))] or ["0"]
    return " and ".join(found) if len(found) < 3 else f"{found[0]} to {found[-1]}"


def quoted(text: str) -> str:
    """A text that someone typed, in quotes and without hidden characters; over 40 characters, only the first 37 of them."""
    return repr(text.strip() if len(text) <= 40 else f"{text[:37]}...")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The end of a message about an unknown word: the choice that is like it, or nothing."""
    close = difflib.get_close_matches(word[:80], list(choices), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def ranged(mean: float, ends: tuple[float, float] | None, form: str = ".3f") -> str:
    """A number and the ends of its interval, each as `form` formats it: `0.912 [0.890, 0.934]`; the number alone without ends."""
    return f"{mean:{form}}" if ends is None else f"{mean:{form}} [{ends[0]:{form}}, {ends[1]:{form}}]"


def three(values: tuple[float, float, float] | None, shown: str = "{:.3f}") -> str:
    """Three numbers side by side, each as `shown` formats it; a dash where there are none."""
    return "-" if values is None else "  ".join(shown.format(value).replace("-0.000", "0.000") for value in values)
