"""The report's figures, tables and page, held against the lists its run files were made of; test_browser.py uses the page."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import altair
import numpy as np
import pytest
from PIL import Image
from support.command import onnxnoise, refused
from support.runfiles import HOSTILE, RunFile

from onnxnoise.cli.commands import report as command
from onnxnoise.reports import FIGURES, chartdata, report
from onnxnoise.reports import layout as figures
from onnxnoise.reports import style as charts
from onnxnoise.reports.page import page
from onnxnoise.reports.views import View, depths, differences, falls, views
from onnxnoise.results.reading import open_run_file
from onnxnoise.results.rows import KINDS
from onnxnoise.statistics import estimates
from onnxnoise.statistics.correlation import spearman


def seen(*runs: RunFile) -> list[View]:
    return views([open_run_file(run.path) for run in runs])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFile:
    return RunFile(tmp_path_factory.mktemp("report") / "net.sqlite", names=("conv1", "bn1", "fc", "bn2"), draws=4)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> RunFile:
    return RunFile(tmp_path_factory.mktemp("report") / "other.sqlite", model="other", seed=1, snrs=(100.0, 2.5))


class Parsed(HTMLParser):
    """Every element with its attributes, the text of elements, and the cells of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.said: dict[str, list[str]] = {}
        self.tables: list[list[list[str]]] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self.inside = tag
        self.said.setdefault(tag, []).append("")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_data(self, data: str) -> None:
        if self.inside in self.said:
            self.said[self.inside][-1] += data
        if (
            self.tables
            and self.tables[-1]
            and self.tables[-1][-1]
            and self.inside in ("td", "th", "div", "button", "span", "small")
        ):
            self.tables[-1][-1][-1] += data if self.inside != "small" else f" {data}"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("tr", "table"):
            self.inside = ""


def html(*runs: RunFile) -> tuple[str, Parsed]:
    text = page(seen(*runs), "/* the bundle */")
    return text, Parsed(text)


def named_table(parsed: Parsed, caption: str) -> list[list[str]]:
    labels = [attributes.get("aria-label") or "" for tag, attributes in parsed.elements if tag == "table"]
    (found,) = [table for table, label in zip(parsed.tables, labels, strict=True) if label.startswith(caption)]
    return found


def ratio(run: RunFile, *key: Any) -> Any:
    hits = np.array([run.top1[*key, draw] for draw in range(run.draws)])
    return estimates.ratio(hits, np.array(run.top1["clean", None, math.inf, 0]))


def test_every_figure_is_valid_vega_lite(run: RunFile) -> None:
    made = figures.figures(seen(run), selectable=True)
    assert {figure.name for figure in made} == {*FIGURES, "curve"}
    for figure in made:
        altair.LayerChart.from_dict(figure.panels[0])


def test_every_axis_has_a_title(run: RunFile) -> None:
    for figure in figures.figures(seen(run), selectable=True):
        for panel in figure.panels:
            for layer in panel["layer"]:
                for channel in ("x", "y"):
                    if "field" in layer["encoding"].get(channel, {}):
                        assert layer["encoding"][channel]["title"], (figure.name, channel)


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
    whole = {row["noise"]: row for row in chartdata.whole([view])}
    assert (whole[0.0]["accuracy"], whole[0.0]["normalized"]) == (100 * clean, 1.0)
    for snr in run.snrs:
        estimate = ratio(run, "all", None, snr)
        row = whole[100 / snr]
        assert row["normalized"] == pytest.approx(estimate.mean)
        assert row["accuracy"] == pytest.approx(100 * clean * estimate.mean)
    for row in chartdata.averages([view]):
        values = [ratio(run, "single", layer, 100 / row["noise"]).mean for layer in range(1, 5)]
        assert row["a_avr"] == pytest.approx(100 * sum(values) / 4)
        assert row["loss"] == pytest.approx(100 - 100 * sum(values) / 4)
        assert row["loss_low"] == pytest.approx(100 - row["high"])


@pytest.mark.parametrize(("value", "level"), [(0.0, 0), (0.2, 1), (0.8999, 3), (0.9, 4), (0.99, 6), (1.3, 6)])
def test_classes_of_the_heat_map_have_their_lower_bound(value: float, level: int) -> None:
    assert chartdata.level(value) == chartdata.LEVELS[level]


def test_colors_of_the_heat_map_differ_in_lightness_alone() -> None:
    """So that any colour vision, and a grey print, tells their order."""
    for colors in (charts.HEAT_COLORS, charts.HEAT_COLORS_DARK):
        assert len(colors) == len(chartdata.LEVELS)
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


class TestChance:
    """Cumulative curves whose accuracies are laid down by hand."""

    def falls(
        self, path: Path, right: list[list[int]], dataset: str = "cifar10"
    ) -> list[tuple[int | None, int | None, int | None]]:
        """`right`: hits of 100 images by draw and L. Of each SNR: the L from which chance is reached, the last one surely above,
        the first from which on all are surely below twice chance.
        """
        made = RunFile(
            path / "run.sqlite",
            names="abcdef"[: len(right[0])],
            chunks=(100,),
            draws=len(right),
            snrs=(5.0,),
            sweeps=("cumulative",),
            dataset=dataset,
        )
        made.path.unlink()
        for draw, hits in enumerate(right):
            for layer, count in enumerate(hits, 1):
                made.top1["cumulative", layer, 5.0, draw] = [i < count for i in range(100)]
        made.top1["clean", None, math.inf, 0] = [True] * 100
        made.write()
        (view,) = seen(made)
        return [(fall.cell and fall.cell.layer, fall.above, fall.below) for fall in falls(view)]

    def test_where_the_interval_reaches_it_for_good(self, tmp_path: Path) -> None:
        assert self.falls(tmp_path, [[90, 50, 10, 40, 9, 11], [91, 51, 12, 41, 10, 9], [90, 50, 11, 42, 11, 10]]) == [
            (5, 4, 5)
        ]

    def test_never(self, tmp_path: Path) -> None:
        assert self.falls(tmp_path, [[90, 80], [91, 81], [90, 79]]) == [(None, 2, None)]

    def test_at_once(self, tmp_path: Path) -> None:
        assert self.falls(tmp_path, [[9, 11], [10, 10], [11, 9]]) == [(1, None, 1)]

    def test_few_draws_that_differ_can_not_tell(self, tmp_path: Path) -> None:
        assert self.falls(tmp_path, [[90, 90], [90, 10]]) == [(2, 1, None)]

    def test_one_draw_has_no_interval(self, tmp_path: Path) -> None:
        assert self.falls(tmp_path, [[90, 11, 10, 9]]) == [(3, 2, 2)]

    def test_of_more_classes(self, tmp_path: Path) -> None:
        assert self.falls(tmp_path, [[90, 11, 2, 1]], dataset="cifar100") == [(4, 3, 4)]

    def test_no_chance_without_the_classes(self, tmp_path: Path) -> None:
        assert self.falls(tmp_path, [[90, 11]], dataset="own") == []


def test_depth_is_the_rank_correlation_of_the_table(run: RunFile) -> None:
    (view,) = seen(run)
    found = list(depths(view))
    assert [each.snr for each in found] == [10.0, 2.5]
    for each in found:
        layers = [1.0, 2.0, 3.0, 4.0]
        assert each.correlation == spearman(layers, [ratio(run, "single", i, each.snr).mean for i in (1, 2, 3, 4)])
        for draw, rho in enumerate(each.draws):
            alone = spearman(layers, [float(sum(run.top1["single", i, each.snr, draw])) for i in (1, 2, 3, 4)])
            assert alone is not None
            assert rho == alone.rho


def test_tables_of_the_page(run: RunFile, other: RunFile) -> None:
    _, parsed = html(run, other)
    absolute = named_table(parsed, "All layers noisy: accuracy, %")
    assert absolute[0] == ["run", "clean 0 %", "SNR 100 1 %", "SNR 10 10 %", "SNR 2.5 40 %"]
    clean = sum(run.top1["clean", None, math.inf, 0]) / run.images
    assert absolute[1][:3] == ["net", f"{100 * clean:.1f}", "–"]
    estimate = ratio(run, "all", None, 10.0)
    assert absolute[1][3].startswith(f"{100 * clean * estimate.mean:.1f} [")
    normalized = named_table(parsed, "All layers noisy: accuracy / clean")
    low, high = estimate.sampled
    assert normalized[1][2] == f"{estimate.mean:.3f} [{low:.3f}, {high:.3f}]"
    structure = named_table(parsed, "Noise layers and parameters")
    assert structure[1] == ["net", "4", "120", "2 48 parameters", "2 72 parameters"]
    every = parsed.tables[labels(parsed).index("Accuracy / clean with noise in one layer [95 % interval]")]
    assert [row[:4] for row in every[1:]] == [
        [str(i), name, "conv" if i % 2 else "batchnorm", str(12 * i)] for i, name in enumerate(run.names, 1)
    ]


def labels(parsed: Parsed) -> list[str]:
    return [attributes.get("aria-label") or "" for tag, attributes in parsed.elements if tag == "table"]


def test_provenance_and_policy_are_said(run: RunFile) -> None:
    text, parsed = html(run)
    assert "weight noise, SNR = sigma_w / sigma_noise, sigma per tensor; batch norms: group" in text
    said = " ".join(parsed.said["dd"])
    for fact in (str(run.path), "net, SHA-256 " + "0" * 64, "SHA-256 " + "b" * 64, "seed 40", "CPUExecutionProvider"):
        assert fact in said


def test_an_unfinished_run_says_how_far_it_is(tmp_path: Path) -> None:
    asked = {"snrs": [10.0, 2.5], "sweeps": ["single", "all"], "draws": 3}
    made = RunFile(tmp_path / "run.sqlite", sweeps=("single", "all"), asked=asked)
    assert "is unfinished" not in html(made)[0]
    made.forget("sweep = 'single' AND layer = 3 AND start = 21")
    text, _ = html(made)
    measured, planned = 30 * 25 - 9 * 6, 30 * 25
    assert f"net is unfinished: {measured} of {planned} passes are measured ({measured / planned:.1%})" in text
    outcome = onnxnoise("report", made.path, "-o", tmp_path / "rows.csv")
    assert outcome.code == 0
    assert f"unfinished: {made.path} has {measured} of {planned} passes" in outcome.err
    made.forget("sweep != 'clean'")
    text, parsed = html(made)
    assert "net is unfinished: 30 of 750 passes" in text
    assert [tag for tag, attributes in parsed.elements if "data-spec" in attributes] == []
    refused(
        onnxnoise("report", made.path, "-o", tmp_path / "x.png"), 2, "nothing to draw", "nothing of them is complete"
    )


def test_runs_that_can_not_be_compared_are_marked(run: RunFile, tmp_path: Path) -> None:
    raw = RunFile(tmp_path / "raw.sqlite", bn="raw", chunks=(30,), sweeps=("all",))
    found = seen(run, raw)
    assert [view.label for view in found] == ["net (bn group)", "net (bn raw)"]
    assert differences(found) == [("batch-norm policy", ["group", "raw"])]
    text, _ = html(run, raw)
    assert "These runs differ in batch-norm policy, so don&#x27;t rank them" in text


def test_labels_are_distinct(run: RunFile, tmp_path: Path) -> None:
    twin = tmp_path / "twin.sqlite"
    twin.write_bytes(run.path.read_bytes())
    found = views([open_run_file(path) for path in (run.path, twin)])
    assert [view.label for view in found] == ["net [1: net.sqlite]", "net [2: twin.sqlite]"]


def test_one_draw_has_no_interval(tmp_path: Path) -> None:
    made = RunFile(tmp_path / "run.sqlite", draws=1)
    _, parsed = html(made)
    assert "[" not in "".join(
        cell for row in named_table(parsed, "All layers noisy: accuracy / clean")[1:] for cell in row
    )
    report([made.path], tmp_path / "a.svg")


def test_a_model_without_a_clean_hit(tmp_path: Path) -> None:
    made = RunFile(tmp_path / "run.sqlite")
    made.path.unlink()
    for hits in made.top1.values():
        hits[:] = [False] * len(hits)
    made.write()
    text, _ = html(made)
    assert "none of 30 images is classified correctly" in text
    report([made.path], tmp_path / "a.svg")


def test_top5(run: RunFile, tmp_path: Path) -> None:
    (view,) = views([open_run_file(run.path)], "top5")
    assert view.clean == sum(run.top5["clean", None, math.inf, 0]) / run.images
    assert view.chance == 0.5
    few = RunFile(tmp_path / "run.sqlite", classes=5)
    assert views([open_run_file(few.path)], "top5")[0].metric == "top1"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> RunFile:
    return RunFile(tmp_path_factory.mktemp("hostile") / "<b>.sqlite", names=HOSTILE, model=HOSTILE[0])


def test_hostile_names_are_only_text(hostile: RunFile, run: RunFile) -> None:
    plain, parsed = html(run)[1], html(hostile)[1]
    known = {tag for tag, _ in plain.elements}
    assert {tag for tag, _ in parsed.elements} <= known
    assert sum(tag == "script" for tag, _ in parsed.elements) == 3
    assert {name for _, attributes in parsed.elements for name in attributes} <= {
        name for _, attributes in plain.elements for name in attributes
    }
    shown = [cell for table in parsed.tables for row in table for cell in row]
    for name in HOSTILE[:4]:
        assert name in shown
    text = html(hostile)[0]
    assert text.isprintable() or not set(text) & set("\x00\x1b\u202e\udcff")
    data = json.loads(parsed.said["script"][0])
    assert len(data["layers"]["0"]) == len(HOSTILE)
    assert max(map(len, data["layers"]["0"].values())) < 40


def test_nothing_is_fetched(hostile: RunFile) -> None:
    text, parsed = html(hostile)
    for tag, attributes in parsed.elements:
        for name in ("src", "href", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,")), (tag, attributes)
    (policy,) = [attributes["content"] for tag, attributes in parsed.elements if attributes.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline" not in policy.split("style-src")[0]
    assert "@import" not in text
    assert "url(" not in text


def test_svg_is_xml_whatever_the_names(hostile: RunFile, tmp_path: Path) -> None:
    report([hostile.path], tmp_path / "a.svg")
    root = ET.fromstring((tmp_path / "a.svg").read_text(encoding="utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {
        "svg",
        "g",
        "path",
        "text",
        "tspan",
        "rect",
        "line",
        "defs",
        "clipPath",
        "style",
        "title",
    }
    words = "".join(root.itertext())
    assert "1 </script><sc" in words
    assert "4 aaaaaaaaaaaaaa…" in words


@pytest.mark.parametrize("figure", [None, "heatmap,cumulative"])
def test_png(figure: str | None, run: RunFile, other: RunFile, tmp_path: Path) -> None:
    report([run.path, other.path], tmp_path / "a.png", figure=figure)
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 600
        colors = image.convert("RGB").getcolors(1 << 24) or []
        assert len(colors) > 20
        assert max(colors)[1] == (255, 255, 255)


def test_the_choices_of_the_command_are_those_of_the_library() -> None:
    assert command.FIGURES == FIGURES
    assert command.ROWS == KINDS


def test_without_altair_rows_are_still_written(run: RunFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", None)
    refused(onnxnoise("report", run.path, "-o", tmp_path / "a.html"), 2, "onnxnoise[report]", ".csv")
    assert onnxnoise("report", run.path, "-o", tmp_path / "a.csv").code == 0


@pytest.mark.parametrize(
    "odd",
    [
        {"snrs": (math.inf,)},
        {"names": ("only",), "draws": 1, "chunks": (1,), "snrs": (1000.0, 0.5)},
        {"sweeps": ("all",)},
        {"sweeps": ("cumulative",), "dataset": "own"},
        {"sweeps": ("single",), "draws": 2},
    ],
    ids=", ".join,
)
def test_odd_runs_have_a_report(odd: dict[str, Any], tmp_path: Path) -> None:
    made = RunFile(tmp_path / "run.sqlite", **odd)
    _, parsed = html(made)
    data = json.loads(parsed.said["script"][0])
    divs = [attributes["data-spec"] for _, attributes in parsed.elements if "data-spec" in attributes]
    assert sorted(data["specs"]) == sorted(name for name in divs if name)
    assert divs
    report([made.path], tmp_path / "a.svg", figure=",".join(FIGURES))
    assert "NaN" not in (tmp_path / "a.svg").read_text(encoding="utf-8")
