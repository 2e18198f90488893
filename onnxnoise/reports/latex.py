"""A report as LaTeX: tables of the package booktabs, to be put into a paper."""

from __future__ import annotations

import re

from onnxnoise.reports.plain import Document, PlainTable
from onnxnoise.text import safe

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_ANY = re.compile("[" + re.escape("".join(_SPECIAL)) + "]")


def latex(made: Document) -> str:
    """The document as LaTeX without a preamble; the rest of what it says stands in comments."""
    said = [made.title, *made.policies, *made.answer, *made.notes]
    head = [*(f"% {_ascii(line)}" for line in said), r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}"]
    return "\n".join(head) + "\n\n" + "\n".join(map(_table, made.tables))


def _table(table: PlainTable) -> str:
    columns = "".join("l" if i < table.left else "r" for i in range(len(table.headings)))
    lines = [
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{_text(table.title)}}}",
        f"  \\begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        f"    {_row(table.headings)}",
        r"    \midrule",
        *(f"    {_row(row)}" for row in table.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: tuple[str, ...]) -> str:
    # A row that begins with a bracket would be taken for the length after \\.
    return " & ".join(f"{{}}{text}" if text.startswith("[") else text for text in map(_text, cells)) + r" \\"


def _text(text: str) -> str:
    return _ANY.sub(lambda found: _SPECIAL[found[0]], _ascii(text))


def _ascii(text: str) -> str:
    """The text with a question mark for what not every LaTeX can set."""
    return safe(text).encode("ascii", "replace").decode()
