"""The terminal itself: untrusted text made safe, tables that fit, warnings and errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnxnoise.noise.models import headline
from onnxnoise.records import MeasuredModel, Notice
from onnxnoise.text import safe
from onnxnoise.words import Metric

_SHORTEST_NAME, _LONGEST_NAME = 12, 60
_GAP = 2
_T = TypeVar("_T")

METRIC_TITLES: dict[Metric, str] = {"top1": "top-1", "top5": "top-5"}


def fitted(text: str, cells: int) -> str:
    """Untrusted text in at most `cells` terminal cells; a longer text loses its middle."""
    text = safe(text)
    if cell_len(text) <= cells:
        return text
    head, tail = text[: cells // 2], text[-cells // 2 :]
    while cell_len(head) + 1 + cell_len(tail) > cells:
        if len(head) > len(tail):
            head = head[:-1]
        else:
            tail = tail[1:]
    return f"{head}…{tail}"


class _Terminal(Console):
    """A console that reads no markup or emoji codes in texts; a terminal wraps a line at words, a file gets it whole."""

    def __init__(self, *, stderr: bool, quiet: bool) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)
        self.soft_wrap = not self.is_terminal


def consoles(*, quiet: bool) -> tuple[Console, Console]:
    """Two consoles: standard output for results, standard error for progress and warnings."""
    return _Terminal(stderr=False, quiet=False), _Terminal(stderr=True, quiet=quiet)


def error_message(console: Console, message: str) -> None:
    """Print one error, on one line, for the person who must act."""
    console.print(Text.assemble(("error: ", "bold red"), safe(" ".join(message.split("\n")))))


_ADVICE = frozenset(
    (
        "few_draws",
        "one_draw",
        "no_batchnorm",
        "tied_kernels",
        "fixed_batch",
        "gpu_unused",
        "cpu_nodes",
        "summary",
        "probed",
    )
)
"""Codes of warnings that say how to get more out of a run, and change nothing in what its figures mean."""


def warnings(console: Console, notices: Sequence[Notice]) -> None:
    """Print each warning on one line; on a quiet console only those that change a meaning."""
    hushed, console.quiet = console.quiet, False
    for notice in notices:
        if not (hushed and notice.code in _ADVICE):
            console.print(Text.assemble(("warning: ", "yellow"), safe(notice.message)))
    console.quiet = hushed


def title_lines(console: Console, record: MeasuredModel, more: str = "", images: int | None = None) -> None:
    """Print the first two lines of every output about one model: its noise, then the model and its images (as `about`).

    `more` is what else stands on the second line.
    """
    console.print(headline(record.noise))
    console.print(record.about(safe, images) + more)


def chance_line(console: Console, accuracy: float | None, normalized: float | None) -> None:
    """Print the foot of a table of accuracies: chance, as an accuracy and over the clean one; nothing where neither is known."""
    said = [] if accuracy is None else [f"{accuracy:.2%}"]
    said += [] if normalized is None else [f"{normalized:.3f} of clean"]
    if said:
        console.print(Text(f"chance: {', '.join(said)}, by always naming the most frequent class", "dim"))


def colored(value: float | None) -> Text:
    """An accuracy / clean with two decimals, in red below 0.5 and in yellow below 0.95; a dash for None."""
    if value is None:
        return Text("-")
    return Text(f"{value:.2f}", "red" if value < 0.5 else "yellow" if value < 0.95 else "")


def few(values: Sequence[_T], most: int) -> list[_T]:
    """Some of the values, at most `most` (2 or more), the first and the last among them, at about equal distances."""
    steps = min(most, len(values)) - 1
    return [values[round(i * (len(values) - 1) / steps)] for i in range(steps + 1)] if steps else list(values)


def named_table(
    console: Console, headings: list[str], rows: list[list[str | Text]], last: list[str | Text] | None = None
) -> None:
    """Print a table of index, untrusted name, kind and more. The name gets the space that the other columns leave; where that
    is little, the column of kinds gives way. `last` is a row set apart.
    """
    every: list[Sequence[str | Text]] = [headings, *rows, *([last] if last else [])]
    widths = [max(cell_len(str(row[i])) + _GAP for row in every) for i in range(len(headings))]
    room = console.width - sum(widths) + widths[1] - _GAP
    if room < _SHORTEST_NAME:
        room += widths.pop(2)
        every = [[*row[:2], *row[3:]] for row in every]
    widths[1] = max(_SHORTEST_NAME, min(_LONGEST_NAME, room)) + _GAP
    table = plain_table()
    for heading in every[0]:
        table.add_column(
            str(heading), justify="left" if heading in ("layer", "kind", "shape") else "right", no_wrap=True
        )
    for i, row in enumerate(every[1:]):
        if i == len(rows):
            table.add_section()
        table.add_row(row[0], fitted(str(row[1]), widths[1] - _GAP), *row[2:])
    print_table(console, table, sum(widths) - _GAP)


def columns_table(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    give_way: Sequence[str] = (),
) -> None:
    """Print rows of untrusted texts, each on one line. Where they are too wide, columns of `give_way` are left out in turn.

    Columns named in `right` are set to the right.
    """
    shown = list(range(len(headings)))
    widths = [max(cell_len(safe(line[i])) for line in (headings, *rows)) + _GAP for i in shown]
    for name in give_way:
        if sum(widths[i] for i in shown) - _GAP > console.width:
            shown.remove(headings.index(name))
    table = plain_table()
    for i in shown:
        table.add_column(headings[i], justify="right" if headings[i] in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(safe(row[i]) for i in shown))
    print_table(console, table, sum(widths[i] for i in shown) - _GAP)


def plain_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, _GAP - 1, 0, 0), pad_edge=False)


def print_table(console: Console, table: Table, cells: int) -> None:
    """Print a table at least `cells` wide, wider than the terminal rather than with its numbers cut."""
    console.print()
    console.print(table, width=max(console.width, cells), crop=False, soft_wrap=False)


def lines(console: Console, text: str) -> None:
    """Print untrusted text line by line, each as it is but for invisible characters."""
    for line in text.splitlines():
        console.print(Text("".join(c if c == "\t" else safe(c) for c in line)), soft_wrap=True)


def pairs(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    """Print keys and values, one a line; a value of several lines stands below its key, indented."""
    for key, value in rows:
        lines = value.rstrip("\n").split("\n")
        if len(lines) == 1:
            console.print(Text.assemble((f"{safe(key)}: ", "bold"), safe(value)))
            continue
        console.print(Text(f"{safe(key)}:", "bold"))
        for line in lines:
            console.print(Text(f"    {safe(line)}"), soft_wrap=True)
