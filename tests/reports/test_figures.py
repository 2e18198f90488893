"""The registry of figures, and each figure's rows and charts held against the lists that run files were made of."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import altair
import numpy as np
import pytest
from support import nets
from support.command import onnxnoise
from support.reports import html, ratio, seen
from support.runfiles import RunFile

from onnxnoise.cli.options import completing
from onnxnoise.reports import chartdata, layout, style
from onnxnoise.reports.figures import IN_IMAGE, NAMES, all_layers, average, figure, realized
from onnxnoise.reports.figures.base import OfAllRuns, OfOneRun
from onnxnoise.reports.layout import drawings
from onnxnoise.reports.views import views
from onnxnoise.reports.writing import report
from onnxnoise.results.reading import open_run_file
from onnxnoise.run.runner import bench
from onnxnoise.spec import BenchSpec


@pytest.mark.parametrize("name", NAMES)
def test_the_registry_alone_brings_a_figure_to_page_image_flag_and_help(
    name: str, run: RunFile, tmp_path: Path
) -> None:
    of = figure(name)
    _, parsed = html(run)
    assert parsed.said["figcaption"].count(of.title) == 1
    assert ("figure", {"class": name}) in parsed.elements
    assert any(said.startswith(of.note[:1].upper() + of.note[1:]) for said in parsed.said["p"])

    report([run.path], tmp_path / "usual.svg")
    assert (of.title in words(tmp_path / "usual.svg")) is (name in IN_IMAGE)
    report([run.path], tmp_path / "one.svg", figure=name)
    said = words(tmp_path / "one.svg")
    assert [other for other in NAMES if figure(other).title in said] == [name]
    assert set(of.note.split("; ")) <= set(said)

    assert ", ".join(NAMES) in " ".join(onnxnoise("report", "--help").out.split())
    assert completing(NAMES)(f"all,{name[:-1]}") == [f"all,{name}"]


def words(svg: Path) -> list[str]:
    """The lines of text of an image."""
    return list(ET.fromstring(svg.read_text(encoding="utf-8")).itertext())


def test_figures_stand_in_the_order_of_the_registry(run: RunFile, other: RunFile) -> None:
    _, parsed = html(run, other)
    figures = [figure(name) for name in NAMES]
    shared = [each.title for each in figures if isinstance(each, OfAllRuns)]
    own = [each.title for each in figures if isinstance(each, OfOneRun)]
    assert parsed.said["figcaption"] == [*shared, *own, *own]


def test_the_list_of_figures_loads_no_library() -> None:
    """So that `--help` and completion, which name them, take no time."""
    program = "import sys, onnxnoise.reports.figures; print([name for name in ('altair', 'numpy', 'sqlite3') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_figure_is_valid_vega_lite(run: RunFile) -> None:
    made = every_drawing(run)
    assert {drawing.name for drawing in made} == {*NAMES, "curve"}
    for drawing in made:
        altair.LayerChart.from_dict(drawing.panels[0])


def every_drawing(run: RunFile) -> list[layout.Drawing]:
    """The drawings of a page, curves too."""
    made = layout.drawings(seen(run), selectable=True)
    return [each for drawing in made for each in (drawing, drawing.curve) if each is not None]


def test_every_axis_has_a_title(run: RunFile) -> None:
    for drawing in every_drawing(run):
        for panel in drawing.panels:
            for layer in panel["layer"]:
                for channel in ("x", "y"):
                    if "field" in layer["encoding"].get(channel, {}):
                        assert layer["encoding"][channel]["title"], (drawing.name, channel)


def test_an_image_is_headed_by_its_runs_where_they_fit_on_a_line(run: RunFile) -> None:
    (view,) = seen(run)
    made = layout.drawings([view], selectable=False)
    for count, named in ((2, f"{view.label}, {view.label}"), (40, "40 runs")):
        assert layout.image([view] * count, made)["title"]["text"] == f"Accuracy under weight noise: {named}"


def test_the_rows_of_figures_are_those_of_the_lists(run: RunFile) -> None:
    (view,) = seen(run)
    clean = sum(run.top1["clean", None, math.inf, 0]) / run.images
    single = {(row["layer"], row["noise"]): row for row in chartdata.single(view)}
    assert single.keys() == {(layer, 100 / snr) for layer in range(1, 5) for snr in run.snrs}
    for (layer, noise), row in single.items():
        estimate = ratio(run, "single", layer, 100 / noise)
        assert row["value"] == pytest.approx(estimate.mean)
        assert (row["low"], row["high"]) == estimate.sampled
        low, high = estimate.sampled
        assert row["said"] == f"{estimate.mean:.3f} [{low:.3f}, {high:.3f}]"
        bounds = [float(part) for part in re.findall(r"[\d.]+", row["level"])]
        worst, best = row["level"].startswith("<"), row["level"].endswith("more")
        assert (0 if worst else bounds[0]) <= row["value"] < (math.inf if best else bounds[-1])
        assert row["negative"] == (run.draws - 1 if layer % 2 == 0 else 0)
        assert row["nonfinite"] == sum(sum(run.nonfinite["single", layer, 100 / noise, d]) for d in range(run.draws))
    for row in chartdata.draws(view):
        hits = sum(run.top1["single", row["layer"], 100 / row["noise"], row["draw"]])
        assert row["value"] == pytest.approx(hits / run.images / clean, abs=1e-6)
    whole = {row["noise"]: row for row in all_layers.means([view])}
    assert (whole[0.0]["accuracy"], whole[0.0]["normalized"]) == (100 * clean, 1.0)
    for snr in run.snrs:
        estimate = ratio(run, "all", None, snr)
        row = whole[100 / snr]
        assert row["normalized"] == pytest.approx(estimate.mean)
        assert row["accuracy"] == pytest.approx(100 * clean * estimate.mean)
    for row in average.averages([view]):
        values = [ratio(run, "single", layer, 100 / row["noise"]).mean for layer in range(1, 5)]
        assert row["a_avr"] == pytest.approx(100 * sum(values) / 4)
        assert row["loss"] == pytest.approx(100 - 100 * sum(values) / 4)
        assert row["loss_low"] == pytest.approx(100 - row["high"])


@pytest.mark.parametrize(("value", "level"), [(0.0, 0), (0.2, 1), (0.8999, 3), (0.9, 4), (0.99, 6), (1.3, 6)])
def test_bands_of_the_heat_map_have_their_lower_bound(value: float, level: int) -> None:
    assert chartdata.band(value) == chartdata.BANDS[level]


def test_colors_of_the_heat_map_differ_in_lightness_alone() -> None:
    """So that any colour vision, and a grey print, tells their order."""
    for colors in (style.HEAT_COLORS, style.HEAT_COLORS_DARK):
        assert len(colors) == len(chartdata.BANDS)
        lightness = [lightness_of(color) for color in colors]
        steps = np.diff(lightness)
        assert np.all(steps > 5) or np.all(steps < -5), lightness


def lightness_of(color: str) -> float:
    """CIE L* of an sRGB color."""
    linear = [
        (c / 12.92) if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    ]
    y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def test_runs_of_other_noise_share_the_axis_of_realized_snr_alone(tmp_path: Path) -> None:
    files = nets.bench_files(tmp_path, count=8)
    runs = []
    for name, noise, levels in (("a", "pcm", (1.0, 86400.0)), ("b", "gaussian", (10.0, 3.0))):
        out = tmp_path / f"{name}.sqlite"
        asked = BenchSpec(
            str(files.model), data=str(files.data), noise=noise, levels=levels, sweeps=("all",), draws=2, out=str(out)
        )
        bench(asked)
        runs.append(open_run_file(out))
    found = views(runs)
    made = drawings(found)
    assert [drawing.name for drawing in made if drawing.run is None] == ["realized"]
    rows = realized.points(found)
    assert [row["level"] for row in rows] == ["1s", "1d", "10", "3"]
    for row, each in zip(rows, [each for view in found for each in view.result.realized_layers], strict=True):
        assert (row["snr_low"], row["snr"], row["snr_high"]) == each.snr
    report([tmp_path / "a.sqlite", tmp_path / "b.sqlite"], tmp_path / "both.html")
    assert "Realized noise of the layers" in (tmp_path / "both.html").read_text()
    alone = json.dumps([drawing.panels for drawing in drawings(found[:1]) if drawing.name == "all"])
    assert '"type": "symlog"' in alone
    assert "'d'" in alone
