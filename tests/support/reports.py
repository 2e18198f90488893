"""What tests of reports share: runs as a report sees them, and its page taken apart into elements, words and tables."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from typing import Any

import numpy as np

from onnxnoise.reports.page import page
from onnxnoise.reports.views import View, views
from onnxnoise.results.reading import open_run_file
from onnxnoise.statistics import estimates
from support.runfiles import RunFile


def seen(*runs: RunFile) -> list[View]:
    return views([open_run_file(run.path) for run in runs])


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


def ratio(run: RunFile, *key: Any) -> Any:
    """The estimate of accuracy / clean of one (sweep, layer, level), from the run's lists of hits."""
    hits = np.array([run.top1[*key, draw] for draw in range(run.draws)])
    return estimates.ratio(hits, np.array(run.top1["clean", None, math.inf, 0]))


def html(*runs: RunFile) -> tuple[str, Parsed]:
    text = page(seen(*runs), "/* the bundle */")
    return text, Parsed(text)


def named_table(parsed: Parsed, caption: str) -> list[list[str]]:
    labels = [attributes.get("aria-label") or "" for tag, attributes in parsed.elements if tag == "table"]
    (found,) = [table for table, label in zip(parsed.tables, labels, strict=True) if label.startswith(caption)]
    return found


def labels(parsed: Parsed) -> list[str]:
    return [attributes.get("aria-label") or "" for tag, attributes in parsed.elements if tag == "table"]
