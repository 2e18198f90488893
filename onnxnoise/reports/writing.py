"""Writes a report of runs: a page, an image or rows, as the file's name ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from onnxnoise.errors import RunFileError, UsageError
from onnxnoise.fields import one_of
from onnxnoise.files import check_output, make_place
from onnxnoise.reports.figures import IN_IMAGE, NAMES
from onnxnoise.reports.printing import pdf
from onnxnoise.reports.ranked import Ranker, Ranking
from onnxnoise.reports.views import View, views
from onnxnoise.results.reading import OpenedRun, open_run_file
from onnxnoise.results.rows import KINDS, Row, RowKind, rows_of, to_csv, to_json_rows
from onnxnoise.words import METRICS, Metric

_IMAGES, _TABLES, _TEXTS = (".png", ".svg"), (".csv", ".json"), (".md", ".tex")
ENDINGS = (".html", ".pdf", *_TEXTS, *_IMAGES, *_TABLES)
_SCALE = 2
"""Pixels of a PNG for each pixel of the page, in both directions."""


def report(
    runs: Sequence[Path | str],
    output: Path | str,
    *,
    metric: str | None = None,
    figure: str | None = None,
    rows: str | None = None,
    ranker: Ranker | None = None,
) -> list[OpenedRun]:
    """Write a report of runs to `output`, and return the runs.

    Its ending says what: .html (a page) or .pdf (the page printed), .md or .tex (text and tables), .png or .svg (the page's
    figures), .csv or .json (rows). `ranker` ranks several runs.

    `metric` is top1 or top5, by default what the runs were asked for. `figure` chooses an image's figures by their names
    (figures.NAMES), as "heatmap,all". `rows` is one of rows.KINDS, cells by default. Raises UsageError for an unknown ending,
    figure or kind of rows, and where Altair or, for a .pdf, a browser is not installed; RunFileError for a file that can't be
    read or written.
    """
    output = Path(output)
    ending = output.suffix.lower()
    if ending not in ENDINGS:
        raise UsageError(f"-o: {output.name!r} ends in no format that a report has; name it *{', *'.join(ENDINGS)}")
    for flag, value, endings in (("--figure", figure, _IMAGES), ("--rows", rows, _TABLES)):
        if value is not None and ending not in endings:
            raise UsageError(f"{flag} is for {' and '.join(endings)}, not for {ending}; leave it out")
    wanted = IN_IMAGE if figure is None else tuple(one_of("--figure", name, NAMES) for name in figure.split(","))
    shown: Metric | None = None if metric is None else one_of("--metric", metric, METRICS)
    kind: RowKind = one_of("--rows", rows or KINDS[0], KINDS)
    check_output(output, "-o")
    opened = [open_run_file(run, shown) for run in dict.fromkeys(map(Path, runs))]
    if any(run.path.resolve() == output.resolve() for run in opened):
        raise UsageError(f"-o: {output} is one of the run files; name another file")
    if ending in _TABLES:
        table: list[Row] = [row for run in opened for row in rows_of(run.result, kind)]
        content = (to_csv(table, kind) if ending == ".csv" else to_json_rows(table)).encode("utf-8", "backslashreplace")
    else:
        found = views(opened, shown)
        ranking = None
        if ranker is not None and len(found) > 1 and ending not in _IMAGES:
            ranking = ranker([(view.label, run.path) for view, run in zip(found, opened, strict=True)], found[0].metric)
        content = _text(found, ending, ranking) if ending in _TEXTS else _drawn(found, ending, wanted, ranking)
    try:
        make_place(output)
        output.write_bytes(content)
    except OSError as error:
        raise RunFileError(
            f"{output}: can't be written: {error.strerror or error}; name another file with -o"
        ) from error
    return opened


def _text(found: Sequence[View], ending: str, ranking: Ranking | None) -> bytes:
    """The report as Markdown or LaTeX."""
    from onnxnoise.reports.latex import latex
    from onnxnoise.reports.markdown import markdown
    from onnxnoise.reports.plain import document

    made = document(found, ranking)
    return (latex(made) if ending == ".tex" else markdown(made)).encode("utf-8", "backslashreplace")


def _drawn(found: Sequence[View], ending: str, wanted: Sequence[str], ranking: Ranking | None) -> bytes:
    """The page, on paper too, or an image of the wanted figures.

    Raises UsageError without Altair, or where there is nothing to draw.
    """
    try:
        import altair  # noqa: F401
        import vl_convert
    except ImportError as error:
        raise UsageError(
            f"-o: a {ending} report needs Altair and vl-convert ({error}); `pip install 'onnxnoise[report]'` brings them (in a "
            f"checkout: `pip install '.[report]'`), and {', '.join((*_TEXTS, *_TABLES))} reports need neither"
        ) from error
    from onnxnoise.reports import layout
    from onnxnoise.reports.page import page

    if ending in (".html", ".pdf"):
        html = page(found, _bundle(), ranking)
        return pdf(html) if ending == ".pdf" else html.encode()
    made = layout.drawings(found, wanted)
    if not made:
        there = ", ".join(dict.fromkeys(drawing.name for drawing in layout.drawings(found)))
        have = f"they have {there}" if there else "nothing of them is complete"
        raise UsageError(f"--figure: the runs have nothing to draw for {', '.join(wanted)}; {have}")
    text = json.dumps(layout.image(found, made), allow_nan=False)
    if ending == ".png":
        return vl_convert.vegalite_to_png(text, scale=_SCALE)
    return vl_convert.vegalite_to_svg(text).encode()


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that defines vegaEmbed; making it takes three seconds the first time."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
