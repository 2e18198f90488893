"""Reports as Markdown, LaTeX and PDF, and what stands first: the ranking of several runs, the answer of one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from support.command import onnxnoise, refused
from support.reports import Parsed, html, named_table, ratio, seen
from support.runfiles import HOSTILE, RunFile

from onnxnoise.decisions.reporting import ranked, report
from onnxnoise.reports.page import page
from onnxnoise.reports.printing import BROWSERS

SNRS = (100.0, 5.0, 1.0)


@pytest.fixture
def runs(tmp_path: Path) -> list[RunFile]:
    names = tuple(f"layer{i}" for i in range(1, 7))
    return [
        RunFile(tmp_path / f"{name}.sqlite", model=name, seed=seed, names=names, snrs=SNRS, draws=10, chunks=(30, 30))
        for seed, name in enumerate(("one", "two"))
    ]


def test_markdown_says_what_the_hits_say(runs: list[RunFile], tmp_path: Path) -> None:
    report([run.path for run in runs], tmp_path / "made" / "all.md")
    lines = (tmp_path / "made" / "all.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    for run in runs:
        for snr in SNRS:
            mean = ratio(run, "all", None, snr).mean
            (row,) = [row for row in rows if row[:2] == [run.model, f"{snr:g}"] and len(row) == 5 and "%" in row[3]]
            assert row[4].startswith(f"{mean:.3f} ")
    compared = onnxnoise("compare", *(run.path for run in runs), "--json", "-").json
    for placing in (each for each in compared["figures"] if each["quantity"] == "all"):
        (row,) = [
            row for row in rows if row[:2] == [f"SNR {placing['level']:g}", placing["model"]] and "%" not in row[3]
        ][:1]
        assert row[2].rstrip("=") == str(placing["absolute"]["rank"])
        assert row[2].endswith("=") is bool(placing["absolute"]["tied"])
    assert next(i for i, line in enumerate(lines) if "noisy together, by accuracy" in line) < lines.index("**Runs**")


def test_names_break_neither_markdown_nor_latex(tmp_path: Path) -> None:
    run = RunFile(tmp_path / "run.sqlite", names=HOSTILE, model=HOSTILE[0], snrs=SNRS)
    for ending in (".md", ".tex"):
        report([run.path], tmp_path / f"run{ending}")
    text = (tmp_path / "run.md").read_text(encoding="utf-8")
    assert not re.search(r"(?<!\\)[<>`$]", text)
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) in (6, 7, 8, 9) for line in tables)
    source = (tmp_path / "run.tex").read_text(encoding="ascii")
    body = [line for line in source.splitlines() if not line.startswith("%")]
    assert not [line for line in body if re.search(r"(?<!\\)[%$#]", line)]
    assert source.count(r"\toprule") == source.count(r"\bottomrule") == source.count(r"\end{table}") > 2
    for table in re.findall(r"\\begin{tabular}{(\w+)}(.*?)\\end{tabular}", source, re.DOTALL):
        rows = [line for line in table[1].splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(table[0]) - 1}


def test_a_page_begins_with_the_ranking_or_the_answer(runs: list[RunFile]) -> None:
    text = page(seen(*runs), "", ranked([(run.model, run.path) for run in runs], "top1"))
    ranking = named_table(Parsed(text), "All layers noisy together, by accuracy")
    assert [row[0] for row in ranking[1:]][::2] == ["SNR 100", "SNR 5", "SNR 1"]
    assert text.index("The ranking") < text.index("At a glance") < text.index("Spearman")
    text, _ = html(runs[0])
    means = {snr: ratio(runs[0], "all", None, snr).mean for snr in SNRS}
    lost = next(snr for snr in SNRS if means[snr] < 0.95)
    assert re.search(
        rf"<p class=answer>With noise in all layers one keeps .*{means[lost]:.1%} .*at SNR {lost:g}\.", text
    )
    assert text.index("The answer") < text.index("At a glance")


def test_runs_that_can_t_be_ranked_say_why(runs: list[RunFile], tmp_path: Path) -> None:
    other = RunFile(tmp_path / "other.sqlite", model="other", bn="affine", names=runs[0].names, snrs=SNRS)
    report([runs[0].path, other.path], tmp_path / "two.md")
    assert "Not ranked: " in (tmp_path / "two.md").read_text()
    text = page(seen(runs[0], other), "", ranked([(run.model, run.path) for run in (runs[0], other)], "top1"))
    assert text.index("<h2>The answer</h2>") < text.index("Not ranked: ")
    assert "The ranking" not in text


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no Chromium here")
def test_a_pdf_has_all_of_the_page(runs: list[RunFile], tmp_path: Path) -> None:
    outcome = onnxnoise("report", runs[0].path, "-o", tmp_path / "run.pdf")
    assert outcome.code == 0, outcome.err
    content = (tmp_path / "run.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 3


def test_a_pdf_without_a_browser(runs: list[RunFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    refused(onnxnoise("report", runs[0].path, "-o", tmp_path / "run.pdf"), 2, "Chromium", "install", ".html")
    assert not (tmp_path / "run.pdf").exists()
