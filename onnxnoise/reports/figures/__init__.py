"""The figures of a report, one file each. This list is the only one: its order is that of every image, page and help text."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from onnxnoise.reports.figures.base import AnyFigure


class Entry(NamedTuple):
    """A figure's name, as `--figure` takes it, and its file here; an `asked` one is in an image only if asked for by name."""

    name: str
    file: str
    asked: bool = False


FIGURES = (
    Entry("all", "all_layers"),
    Entry("average", "average"),
    Entry("realized", "realized"),
    Entry("heatmap", "heatmap"),
    Entry("profile", "profile", asked=True),
    Entry("cumulative", "cumulative"),
)
NAMES = tuple(entry.name for entry in FIGURES)
IN_IMAGE = tuple(entry.name for entry in FIGURES if not entry.asked)
"""The figures of an image where `--figure` isn't given."""


def figure(name: str) -> AnyFigure:
    """The figure of this name. Its file is imported now, and Altair with it, so that the list of names costs nothing."""
    (file,) = (entry.file for entry in FIGURES if entry.name == name)
    found: AnyFigure = import_module(f"{__name__}.{file}").FIGURE
    return found
