"""A report as Markdown, with tables as GitHub and most other readers take them."""

from __future__ import annotations

import re

from onnxnoise.reports.plain import Document, PlainTable
from onnxnoise.text import safe

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&!])")


def markdown(made: Document) -> str:
    """The document as Markdown; names, which are untrusted, can end no cell and make no link or HTML."""
    parts = [f"# {_text(made.title)}", *map(_text, made.policies), *map(_text, made.answer)]
    parts += map(_table, made.tables)
    return "\n\n".join([*parts, "\n".join(f"- {_text(note)}" for note in made.notes)]) + "\n"


def _table(table: PlainTable) -> str:
    marks = [":--" if i < table.left else "--:" for i in range(len(table.headings))]
    rows = [table.headings, tuple(marks), *table.rows]
    lines = [f"| {' | '.join(cells if i == 1 else map(_text, cells))} |" for i, cells in enumerate(rows)]
    return "\n".join((f"**{_text(table.title)}**\n", *lines))


def _text(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", safe(text))
