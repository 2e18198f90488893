"""The report as files: its page and tables, images, and what is refused; test_browser.py uses the page."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.command import onnxnoise, refused
from support.reports import html, labels, named_table, ratio, seen
from support.runfiles import HOSTILE, RunFile

from onnxnoise.cli.commands import report as command
from onnxnoise.reports.figures import NAMES
from onnxnoise.reports.views import differences
from onnxnoise.reports.writing import report
from onnxnoise.results.rows import KINDS


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
    report([made.path], tmp_path / "a.svg", figure=",".join(NAMES))
    assert "NaN" not in (tmp_path / "a.svg").read_text(encoding="utf-8")
