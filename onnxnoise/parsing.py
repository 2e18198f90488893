"""Parses the text of TOML files, refusing texts of a kind that Python's own reader takes minutes for."""

from __future__ import annotations

import re
import tomllib

from onnxnoise.text import shortened

MOST_KEYS, MOST_DOTS = 20_000, 32
"""Keys and tables of a file, and dots of a key; keys that mean something have 2."""

_STRING_OR_COMMENT = re.compile(
    r'''"""(?:[^"\\]++|\\.|"(?!""))*+"{0,5}|'{3}(?:[^']++|'(?!''))*+'{0,5}'''
    r"""|"(?:[^"\\\n]++|\\.)*+"?|'[^'\n]*+'?|\#[^\n]*+""",
    re.DOTALL,
)
_BETWEEN = re.compile(r"[=,\[\]{}\n]")
"""The characters between keys and values."""


def parsed(content: bytes) -> dict[str, object]:
    """The document in the bytes of a TOML file.

    Raises OverflowError, which tells what there is too much of, for too many keys or one of too many parts; ValueError or
    RecursionError for what is not UTF-8, not TOML, or has a number of more digits than Python reads.
    """
    text = content.decode("utf-8-sig")
    _check_keys(text)
    return tomllib.loads(text)


def _check_keys(text: str) -> None:
    """Raise OverflowError for too many keys, or one of too many parts, which Python's reader would take minutes for."""
    bare = _STRING_OR_COMMENT.sub("k", text)
    if sum(map(bare.count, "=[{")) > MOST_KEYS:
        raise OverflowError(f"over {MOST_KEYS:,} keys and tables")
    for piece in _BETWEEN.split(bare):
        if piece.count(".") > MOST_DOTS:
            raise OverflowError(f"a key of {piece.count('.'):,} dots, {shortened(piece.strip(), 40)}")
