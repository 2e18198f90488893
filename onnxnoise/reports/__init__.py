"""Writes a report of runs: a page, an image or rows, as the file's name ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from onnxnoise.errors import RunFileError, UsageError
from onnxnoise.fields import one_of
from onnxnoise.records import Metric
from onnxnoise.results.reading import OpenedRun, open_run_file
from onnxnoise.results.rows import KINDS, Row, RowKind, rows_of, to_csv, to_json_rows
from onnxnoise.words import METRICS

if TYPE_CHECKING:
    from onnxnoise.reports.views import View

FIGURES = ("all", "average", "heatmap", "profile", "cumulative")
_MAIN = ("all", "average", "heatmap", "cumulative")
_IMAGES, _TABLES = (".png", ".svg"), (".csv", ".json")
ENDINGS = (".html", *_IMAGES, *_TABLES)
_SCALE = 2
"""Pixels of a PNG for one of the page's."""


def report(
    runs: Sequence[Path | str],
    output: Path | str,
    *,
    metric: str | None = None,
    figure: str | None = None,
    rows: str | None = None,
) -> list[OpenedRun]:
    """Write what run files hold to `output`: .html (a page), .png or .svg (its figures), .csv or .json (rows); returns the runs.

    `metric` is top1 or top5, by default what the runs were asked for; `figure` chooses some of FIGURES for an image, as
    "heatmap,all"; `rows` one of rows.KINDS, cells by default. Raises UsageError for an ending, figure
    or kind of rows that there is not, or where Altair is not installed; RunFileError for a file that can't be read or written.
    """
    output = Path(output)
    ending = output.suffix.lower()
    if ending not in ENDINGS:
        raise UsageError(f"-o: {output.name!r} ends in no format that a report has; name it *{', *'.join(ENDINGS)}")
    for flag, value, endings in (("--figure", figure, _IMAGES), ("--rows", rows, _TABLES)):
        if value is not None and ending not in endings:
            raise UsageError(f"{flag} is for {' and '.join(endings)}, not for {ending}; leave it out")
    wanted = None if figure is None else tuple(one_of("--figure", name, FIGURES) for name in figure.split(","))
    shown: Metric | None = None if metric is None else one_of("--metric", metric, METRICS)
    kind: RowKind = one_of("--rows", rows or KINDS[0], KINDS)
    _check_place(output)
    opened = [open_run_file(run, shown) for run in dict.fromkeys(map(Path, runs))]
    if any(run.path.resolve() == output.resolve() for run in opened):
        raise UsageError(f"-o: {output} is one of the run files; name another file")
    if ending in _TABLES:
        table: list[Row] = [row for run in opened for row in rows_of(run.result, kind)]
        content = (to_csv(table, kind) if ending == ".csv" else to_json_rows(table)).encode("utf-8", "backslashreplace")
    else:
        content = _drawn(opened, ending, shown, wanted)
    try:
        output.write_bytes(content)
    except OSError as error:
        raise RunFileError(
            f"{output}: can't be written: {error.strerror or error}; name another file with -o"
        ) from error
    return opened


def _check_place(output: Path) -> None:
    """Before any work; a file that is there is replaced, as other tools' reports are, but never a run file."""
    if output.is_dir() or not output.parent.is_dir():
        what = "is a folder" if output.is_dir() else f"can't be written: there is no folder {str(output.parent)!r}"
        raise RunFileError(f"{output}: {what}; name another file with -o")


def _drawn(opened: Sequence[OpenedRun], ending: str, metric: Metric | None, wanted: tuple[str, ...] | None) -> bytes:
    try:
        import altair  # noqa: F401, PLC0415
        import vl_convert  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            f"-o: a {ending} report needs Altair and vl-convert ({error}); `pip install 'onnxnoise[report]'` brings them, "
            "and .csv and .json reports need neither"
        ) from error
    from onnxnoise.reports import layout as figures  # noqa: PLC0415
    from onnxnoise.reports.page import page  # noqa: PLC0415
    from onnxnoise.reports.views import views  # noqa: PLC0415

    found = views(opened, metric)
    if ending == ".html":
        return page(found, _bundle()).encode()
    spec = figures.image(found, _names(found, wanted))
    text = json.dumps(spec, allow_nan=False)
    if ending == ".png":
        return vl_convert.vegalite_to_png(text, scale=_SCALE)
    return vl_convert.vegalite_to_svg(text).encode()


def _names(found: Sequence[View], wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """The figures of an image: those asked for, else the main ones; raises UsageError where the runs have none of them."""
    from onnxnoise.reports import layout as figures  # noqa: PLC0415

    names = wanted or _MAIN
    there = {each.name for each in figures.figures(found)}
    if not there.intersection(names):
        have = (
            f"they have {', '.join(name for name in FIGURES if name in there)}"
            if there
            else "nothing of them is complete"
        )
        raise UsageError(f"--figure: the runs have nothing to draw for {', '.join(names)}; {have}")
    return names


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that defines vegaEmbed; three seconds the first time."""
    import vl_convert  # noqa: PLC0415

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
