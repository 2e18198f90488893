"""Docstrings begin with the thing that they are about: a stranger can't parse "What ...", "Those ..." or "By ..." as a noun."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import onnxnoise

PACKAGE = Path(onnxnoise.__file__).parent

CLAUSE = "What|Whatever|Where|Who|Whoever|Whose|Which|When|How"
ELIDED = "Those|That|Such|The same|Is|Are|As|Of|By|With|Without|In|On|At|From|To|For"

OPENING = re.compile(rf"({CLAUSE}|{ELIDED})\b")


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of each docstring of a module, of its classes, functions and constants."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def test_docstrings_name_their_thing_first() -> None:
    found = [
        f"{path.relative_to(PACKAGE.parent)}:{line}: {text.splitlines()[0]}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in docstrings(path.read_text(encoding="utf-8"))
        if OPENING.match(text)
    ]
    assert not found, "name the thing, then say it:\n" + "\n".join(found)


def test_the_opening_is_recognized() -> None:
    source = '"""What it prints."""\nLIMIT = 1\n"""Of bytes."""\ndef f():\n    """The thing."""\n'
    assert [bool(OPENING.match(text)) for _, text in docstrings(source)] == [True, True, False]
    assert not OPENING.match("Whether a file is there.")
    assert not OPENING.match("Isolated from others.")
