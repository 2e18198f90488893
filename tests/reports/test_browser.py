"""The report's page used in a real browser, headless and offline: hover, click, sort, narrow and dark.

Runs where a Chromium is found (Debian's package `chromium`, or a Chrome); it is driven by Playwright, which brings no browser.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from support.runfiles import HOSTILE, RunFile

from onnxnoise.reports import chartdata
from onnxnoise.reports.views import views
from onnxnoise.reports.writing import report
from onnxnoise.results.reading import open_run_file

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; `apt-get install chromium` brings one")

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 400, "height": 800}
NAMES = tuple(f"layer{i // 40}.{i % 40}.conv{i}" for i in range(131)) + HOSTILE
"""139 layers, the last ones with names that a page could stumble over."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=30_000)  # of a busy machine
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=[*sandbox, "--disable-dev-shm-usage"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFile:
    return RunFile(
        tmp_path_factory.mktemp("page") / "net.sqlite", names=("conv1", "bn1", "fc", "bn2"), snrs=(10.0, 5.0, 1.67)
    )


@pytest.fixture(scope="module")
def small(run: RunFile) -> Path:
    other = RunFile(run.path.parent / "other.sqlite", model="other", seed=1, snrs=(10.0, 5.0, 1.67))
    report([run.path, other.path], run.path.parent / "small.html")
    return run.path.parent / "small.html"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    made = RunFile(
        folder / "run.sqlite", names=NAMES, model=HOSTILE[0], snrs=(100.0, 10.0, 5.0, 2.5, 1.67, 1.0), chunks=(40,)
    )
    report([made.path], folder / "large.html")
    return folder / "large.html"


class Opened:
    """A page in a window of its own, with what it asked for and complained about."""

    def __init__(self, browser: Browser, path: Path, size: Any, scheme: Any) -> None:
        self.context = browser.new_context(viewport=size, color_scheme=scheme, offline=True)
        self.page: Page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto(path.as_uri())
        self.path = path

    def drawn(self, charts: str = ".chart") -> None:
        """Scroll to each of these charts until it is drawn."""
        for chart in self.page.locator(charts).all():
            chart.scroll_into_view_if_needed()
            expect(chart).to_have_attribute("data-state", "done")


@pytest.fixture
def opened(browser: Browser, small: Path) -> Iterator[Opened]:
    window = Opened(browser, small, WIDE, "light")
    yield window
    assert window.requests == [small.as_uri()], "nothing but the page itself is asked for"
    assert window.complaints == []
    window.context.close()


def test_hover_shows_the_cell(opened: Opened, run: RunFile) -> None:
    opened.drawn("#run-0 .chart[data-name=heatmap]")
    (view,) = views([open_run_file(run.path)])
    rows = {(row["layer"], round(row["noise"])): row for row in chartdata.single(view)}
    for layer, noise in ((1, 10), (2, 20), (4, 60)):
        cell(opened, layer, noise).hover()
        tip = opened.page.locator("#vg-tooltip-element")
        expect(tip).to_be_visible()
        row = rows[layer, noise]
        for said in (
            row["name"],
            row["kind"],
            row["parameters"],
            row["at"],
            row["said"],
            row["said_accuracy"],
            row["broken"],
        ):
            expect(tip).to_contain_text(said)
        assert "[" in row["said"]


def cell(opened: Opened, layer: int, noise: float) -> Locator:
    """The heat map's rectangle of a layer and a noise in whole percent, of the first run."""
    rects = opened.page.locator("#run-0 .chart[data-name=heatmap] .mark-rect.role-mark path")
    found = [i for i, datum in enumerate(rects.evaluate_all(DATA)) if datum == [layer, round(noise)]]
    return rects.nth(found[0])


DATA = "paths => paths.map(path => [path.__data__.datum.layer, Math.round(path.__data__.datum.noise)])"


def test_click_shows_the_layers_curve(opened: Opened, run: RunFile) -> None:
    opened.drawn("#run-0 .chart:is([data-name=heatmap], [data-name=curve])")
    heading = opened.page.locator("#run-0 h3.chosen")
    points = opened.page.locator("#run-0 .chart[data-name=curve] .mark-symbol.role-mark path")
    for layer, click in ((3, lambda: cell(opened, 3, 10).click()), (4, lambda: by_keyboard(opened, "bn2"))):
        click()
        expect(heading).to_have_text(f"Layer {layer} {run.names[layer - 1]}")
        expect(opened.page.locator("#run-0 tr.chosen")).to_contain_text(run.names[layer - 1])
        shown = f"paths => paths.every(path => path.__data__.datum.layer === {layer})"
        opened.page.wait_for_function(
            f"({shown})([...document.querySelectorAll('#run-0 .chart[data-name=curve] .mark-symbol path')])"
        )
        assert points.count() == 3 + 3 * run.draws, "a dot a noise, and one a draw"
    expect(opened.page.locator("#run-1 h3.chosen")).not_to_have_text("Layer 4 bn2")


def by_keyboard(opened: Opened, name: str) -> None:
    opened.page.locator("#run-0 button.show", has_text=name).focus()
    opened.page.keyboard.press("Enter")


def test_a_click_on_a_layers_name_shows_its_curve_too(opened: Opened) -> None:
    opened.drawn("#run-0 .chart[data-name=heatmap]")
    opened.page.locator("#run-0 .chart[data-name=heatmap] text", has_text="3 fc").click()
    expect(opened.page.locator("#run-0 h3.chosen")).to_have_text("Layer 3 fc")


def test_headers_sort_the_table(opened: Opened) -> None:
    opened.drawn()  # nothing moves any more under the pointer
    table = opened.page.locator("#run-0 details table")
    head = table.locator("th")

    def column(i: int) -> list[str]:
        return table.locator(f"tbody td:nth-child({i + 1})").evaluate_all("cells => cells.map(cell => cell.dataset.v)")

    numbers = ["1", "2", "3", "4"]
    assert column(0) == numbers
    head.last.click()
    expect(head.last).to_have_attribute("aria-sort", "ascending")
    means = [float(value) for value in column(head.count() - 1)]
    assert means == sorted(means)
    head.last.locator("button").focus()
    opened.page.keyboard.press("Enter")
    expect(head.last).to_have_attribute("aria-sort", "descending")
    assert [float(value) for value in column(head.count() - 1)] == means[::-1]
    head.nth(1).click()
    assert column(1) == ["bn1", "bn2", "conv1", "fc"]
    expect(table.locator("th[aria-sort]")).to_have_count(1)
    head.nth(0).click()
    assert column(0) == numbers
    rows = table.locator("tbody tr").evaluate_all("rows => rows.map(row => row.innerText.replace(/\\s+/g, ' '))")
    assert rows[3].startswith("4 bn2 batchnorm 48 "), "a row moves as a whole"


@pytest.mark.parametrize("width", [400, 760])
def test_nothing_is_cut_off(width: int, browser: Browser, small: Path) -> None:
    window = Opened(browser, small, {"width": width, "height": 900}, "light")
    window.drawn()
    inside(window.page)
    assert window.page.evaluate("document.documentElement.scrollWidth") <= width
    assert window.complaints == []
    window.context.close()


def test_a_change_of_theme_is_followed(opened: Opened) -> None:
    opened.drawn("#run-0 .chart[data-name=heatmap]")
    rects = opened.page.locator("#run-0 .chart[data-name=heatmap] .mark-rect.role-mark path")
    light = rects.first.get_attribute("fill")
    opened.page.emulate_media(color_scheme="dark")
    expect(rects.first).not_to_have_attribute("fill", light or "")


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (NARROW, "dark")], ids=["1280 light", "400 dark"])
def test_139_layers_and_hostile_names(size: dict[str, int], scheme: str, browser: Browser, large: Path) -> None:
    window = Opened(browser, large, size, scheme)
    page = window.page
    window.drawn()
    assert page.title().startswith("Weight noise: </script>")
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], "nothing sticks out sideways"
    assert page.locator("main img, main script, [onmouseover], [onerror]").count() == 0
    by_keyboard(window, HOSTILE[3])
    expect(page.locator("h3.chosen")).to_contain_text("Layer 135 aaaa")
    legible(page, size["width"])
    inside(page)
    readable(page)
    page.locator(".chart[data-name=heatmap] .mark-rect.role-mark path").nth(131).hover(force=True)
    tip = page.locator("#vg-tooltip-element")
    expect(tip).to_contain_text("</script><script>")
    box = tip.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= size["width"]
    page.emulate_media(media="print")
    box = page.locator("figure.heatmap").bounding_box()
    assert box is not None
    assert box["height"] < (210 - 2 * 12) / 25.4 * 96, "on paper the map and its heading stand on one page"
    assert page.title().startswith("Weight noise: </script>")
    assert window.complaints == []
    assert window.requests == [large.as_uri()]
    window.context.close()


def legible(page: Page, width: int) -> None:
    """All 139 names of the heat map are there, 10 pixels high or more, none over another, none outside."""
    boxes = page.locator(".chart[data-name=heatmap] .role-axis-label text").evaluate_all(
        "texts => texts.filter(t => !t.textContent.endsWith(' %')).map(t => { const b = t.getBoundingClientRect();"
        " return [b.left, b.right, b.top + scrollY, parseFloat(getComputedStyle(t).fontSize), t.textContent]; })"
    )
    assert [int(text.split()[0]) for *_, text in boxes] == list(range(1, 140))
    assert min(left for left, *_ in boxes) >= 0
    assert max(right for _, right, *_ in boxes) < width
    for (*_, top, size, _), (*_, below, _, _) in pairwise(boxes):
        assert size >= 10
        assert below - top >= size


def inside(page: Page) -> None:
    """No word of a figure or its legend is cut off at its edge."""
    words = page.locator(".chart svg text").evaluate_all(
        "texts => texts.filter(t => t.textContent).map(t => { const b = t.getBoundingClientRect(), s = t.ownerSVGElement.getBoundingClientRect();"
        " return [b.left - s.left, s.right - b.right, t.textContent]; })"
    )
    assert len(words) > 200
    assert [word for left, right, word in words if left < -1 or right < -1] == []


def readable(page: Page) -> None:
    """Text stands out from the page by WCAG's 4.5 to 1 or more."""
    colors = page.evaluate(
        "() => [getComputedStyle(document.body).backgroundColor, ...['p.policy', 'td', 'td small', 'h2', '.hint']"
        ".map(one => getComputedStyle(document.querySelector(one)).color),"
        " ...[...document.querySelectorAll('.role-axis-label text, .role-axis-title text, .role-legend-label text')]"
        ".map(text => getComputedStyle(text).fill)]"
    )
    paper, *inks = (luminance(color) for color in colors)
    assert len(inks) > 150
    for ink in inks:
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5


def luminance(color: str) -> float:
    """Of rgb(r, g, b), as WCAG has it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
