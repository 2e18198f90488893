"""A device of one's own, as a table of what its conductances become: their mean and standard deviation, by time if they drift."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from onnxnoise.errors import NoiseFileError
from onnxnoise.noise.ages import DAY, HOUR, YEAR, age
from onnxnoise.noise.base import Doubles, Level
from onnxnoise.noise.fixed import ONE
from onnxnoise.noise.pairs import Conductances, OnPairs
from onnxnoise.noise.times import time_text
from onnxnoise.noise.userfiles import unchanged
from onnxnoise.text import counted, shortened

_HEADERS = (["g", "mean", "sd"], ["g", "mean", "sd", "t"], ["states", "mean", "std"])
_MOST = 2.0
"""The largest mean and sd, as shares of G: more is in another unit."""


@dataclass(frozen=True)
class Curve:
    """The conductances at the time `t`, in seconds, of devices that were to hold `g`: their `mean` and `sd`; all shares of G."""

    t: float
    g: Doubles
    mean: Doubles
    sd: Doubles

    def at(self, target: Conductances) -> tuple[Any, Any]:
        """(mean, sd) of devices that were to hold `target`."""
        return np.interp(target, self.g, self.mean), np.interp(target, self.g, self.sd)


class Table(OnPairs):
    """Pairs of devices that a table describes, whose times go from `first` to `last` in seconds; it has none where both are 0."""

    name = "table"
    formula = (
        "g' = max(mean(g) + sd(g) z, 0) of g+ = max(w, 0)/a and g- = max(-w, 0)/a, a = max|w|; mean and sd from the table, "
        "linear in g (beyond its first and last g as there) and in ln t; w' = (g+ - g-) a. Normals: z1 of +, z2 of -. The table: "
        "CSV with the header g,mean,sd or g,mean,sd,t (also states,mean,std), g, mean and sd as shares of G, t in seconds, "
        "all sorted"
    )
    source = "the file"
    omits = "all that is not in the table; what was programmed is not known apart from what is read"
    normals = 2
    level = age()

    def __init__(self, file: str, sha256: str, first: float = 0.0, last: float = 0.0) -> None:
        super().__init__(1.0)
        self._file, self._sha256 = file, sha256
        self.level = _span(first, last) if last else ONE

    def device(self, target: Conductances, normals: Sequence[Any], level: float) -> Doubles:
        """Conductances as the table has them at the time `level`."""
        found = curves(self._file, self._sha256)
        after = next((i for i, curve in enumerate(found) if curve.t >= level), len(found) - 1)
        late, early = found[after], found[max(after - 1, 0)]
        mean, sd = late.at(target)
        if early.t < level < late.t:
            share = math.log(level / early.t) / math.log(late.t / early.t)
            mean, sd = (
                (1 - share) * one + share * other for one, other in zip(early.at(target), (mean, sd), strict=True)
            )
        stored: Doubles = sd * normals[0]
        stored += mean
        return np.maximum(stored, 0.0, out=stored)


def _span(first: float, last: float) -> Level:
    usual = [t for t in (1.0, HOUR, DAY, YEAR) if first < t < last]
    times = (first, *usual, last) if first < last else (first,)
    return age(
        first,
        last,
        defaults=times,
        limits=f"a time from {time_text(first)} to {time_text(last)}, the table's first and last",
    )


@lru_cache(maxsize=16)
def curves(file: str, sha256: str) -> tuple[Curve, ...]:
    """The curves of a table, one for each of its times in order; one at the time 0 where it has none.

    Raises NoiseFileError, which names file and row, for a file that is no such table or is not the one with this digest.
    """
    try:
        text = unchanged(file, sha256).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NoiseFileError(f"{file}: is no text in UTF-8; write the table as CSV: {','.join(_HEADERS[1])}") from error
    rows = csv.reader(io.StringIO(text, newline=""))
    names: list[str] = []
    by_time: dict[float, list[tuple[float, ...]]] = {}
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if not names:
                names = _header(file, cells)
                continue
            t, *numbers = _row(file, rows.line_num, names, cells)
            if t not in by_time and by_time and t < max(by_time):
                raise _refused(
                    file, rows.line_num, f"the time {t:g} comes after {max(by_time):g}; sort the rows by time"
                )
            there = by_time.setdefault(t, [])
            if there and numbers[0] <= there[-1][0]:
                raise _refused(
                    file,
                    rows.line_num,
                    f"g = {numbers[0]:g} comes after {there[-1][0]:g}; sort the rows by g, each once",
                )
            there.append(tuple(numbers))
    except csv.Error as error:
        raise _refused(file, rows.line_num, f"is no CSV: {error}") from error
    for t, there in by_time.items():
        if len(there) < 2:
            raise NoiseFileError(
                f"{file}: has one row" + (f" at the time {t:g}" if t else "") + "; a curve needs two or more"
            )
    if not by_time:
        raise NoiseFileError(
            f"{file}: has no rows; write the header {','.join(_HEADERS[0])} and two rows or more below it"
        )
    return tuple(Curve(t, *(np.array(column) for column in zip(*there, strict=True))) for t, there in by_time.items())


def _header(file: str, cells: list[str]) -> list[str]:
    names = [cell.lower() for cell in cells]
    if names not in _HEADERS:
        wanted = " or ".join(",".join(each) for each in _HEADERS)
        raise NoiseFileError(
            f"{file}: its first row is {shortened(','.join(cells), 60)!r}; a table begins with {wanted}"
        )
    return names


def _row(file: str, line: int, names: list[str], cells: list[str]) -> tuple[float, float, float, float]:
    """(t, g, mean, sd) of a row; t is 0 in a table without times."""
    if len(cells) != len(names):
        raise _refused(file, line, f"it has {counted(len(cells), 'value')}, the header {len(names)}")
    numbers = []
    for name, cell in zip(names, cells, strict=True):
        try:
            number = float(cell)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise _refused(file, line, f"{name} is {shortened(cell, 30)!r}, which is no number")
        numbers.append(number)
    g, mean, sd, *rest = numbers
    for name, value, most in ((names[0], g, 1.0), (names[1], mean, _MOST), (names[2], sd, _MOST)):
        if not 0 <= value <= most:
            raise _refused(file, line, f"{name} is {value:g}; it is a share of G, from 0 to {most:g}")
    if rest and not rest[0] > 0:
        raise _refused(file, line, f"t is {rest[0]:g}; a time is above 0, in seconds")
    return rest[0] if rest else 0.0, g, mean, sd


def _refused(file: str, line: int, what: str) -> NoiseFileError:
    return NoiseFileError(f"{file}: row {line}: {what}")


MODEL = Table
