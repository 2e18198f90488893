"""Untrusted text made fit for people to see: what is no visible character replaced, what is too long cut in its middle."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories that move a cursor, turn the direction, are no XML or can't be encoded."""


def safe(text: str) -> str:
    """On one line; whatever is no visible character becomes a replacement character."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _HIDDEN else c for c in text)


def shortened(text: str, most: int) -> str:
    """Visible and of at most `most` characters; what is too long loses its middle."""
    text = safe(text)
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def counted(count: int, noun: str) -> str:
    """1 layer, 1,000 layers."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def noise_percent(snr: float) -> float:
    """sigma_noise as a percentage of sigma_w: 20 for an SNR of 5, 0 for an infinite one."""
    return 100.0 / snr


def noise_text(snr: float) -> str:
    """An SNR as tables and charts write it, with its percentage."""
    return f"SNR {snr:g} ({noise_percent(snr):.3g} %)"


def quoted(text: str) -> str:
    """What someone typed, in quotes and without hidden characters; no more than its first 37 characters where it has over 40."""
    return repr(text.strip() if len(text) <= 40 else f"{text[:37]}...")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The end of a message about an unknown word: the choice that is like it, or nothing."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f"; did you mean {close[0]}?" if close else ""
