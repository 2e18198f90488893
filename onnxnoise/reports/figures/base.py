"""The parts of a figure: title, note, the rows it draws, its charts, and its slot in a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

import altair as alt

from onnxnoise.reports.chartdata import Datum
from onnxnoise.reports.views import View

Shown = TypeVar("Shown")
Slot = Literal["row", "column", "wide"]
"""The slot of a figure in an image. `row`: its charts side by side. `column`: its charts one above the other, beside the
columns of the other runs. `wide`: its charts one above the other, over the image's whole width."""


@dataclass(frozen=True)
class Canvas:
    """A place in a report in which a figure is drawn; `run` is the position of the run that it shows, None for all runs.

    On a page the reader can choose a layer (`selectable`), in an image they can't.
    """

    run: int | None
    selectable: bool

    def chart(self, rows: str) -> alt.Chart:
        """An empty chart of the figure's rows of this name, to be given marks."""
        return alt.Chart(alt.NamedData(dataset(rows, self.run)))


def dataset(rows: str, run: int | None) -> str:
    """The name of a data set in a report: rows that are made for each run bear the run's position."""
    return rows if run is None else f"{rows}-{run}"


@dataclass(frozen=True)
class Figure(Generic[Shown]):
    """A figure of a report, which shows one run or all of them.

    `title` stands above it, and `note` below says what its marks mean; its parts are separated by "; ". `rows` makes each of
    its data sets, by name; figures that draw the same rows name them alike. `charts` gives its charts, none where there is
    nothing to draw. `slot` says where it stands in an image, and `table` is HTML that stands below it on the page.
    """

    title: str
    note: str
    rows: Mapping[str, Callable[[Shown], list[Datum]]]
    charts: Callable[[Shown, Canvas], Sequence[alt.LayerChart]]
    slot: Slot
    table: Callable[[Shown], str] | None = None


@dataclass(frozen=True)
class OfAllRuns(Figure[Sequence[View]]):
    """A figure of all runs together; on the page it stands in the section "At a glance".

    `any_noise` says that it also shows runs whose levels are of several kinds, which have no axis of noise in common.
    """

    any_noise: bool = False


@dataclass(frozen=True)
class OfOneRun(Figure[View]):
    """A figure that each run has; on the page it stands in the run's own section.

    `curve` is a figure of the layer that the reader chooses on this one; only the page has it, beside this one.
    """

    curve: OfOneRun | None = None


AnyFigure: TypeAlias = OfAllRuns | OfOneRun
