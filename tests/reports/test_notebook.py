"""A result in Python and in a notebook: one short line, a table with the curve, and progress on standard error."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support import nets
from support.reports import ratio
from support.runfiles import HOSTILE, RunFile

from onnxnoise import BenchSpec, bench
from onnxnoise.results.reading import results_of


def test_a_result_is_one_short_line_and_a_table_with_a_curve(tmp_path: Path) -> None:
    run = RunFile(tmp_path / "run.sqlite", snrs=(100.0, 5.0, 1.0), draws=10, model=HOSTILE[0])
    result = results_of(run.path)
    assert len(repr(result)) < 300
    assert "\n" not in repr(result)
    html = result._repr_html_()
    assert "<script" not in html
    rows = re.findall(r"<tr><td>(.*?)</td><td>([\d.]+) .*?</td>", html)
    assert rows == [(f"SNR {snr:g}", f"{ratio(run, 'all', None, snr).mean:.3f}") for snr in (100.0, 5.0, 1.0)]
    (drawing,) = re.findall(r"<svg.*</svg>", html)
    assert len(ElementTree.fromstring(drawing).findall("circle")) == 3
    one = RunFile(tmp_path / "one.sqlite", snrs=(10.0,), sweeps=("single",), draws=1)
    assert "<svg" not in results_of(one.path)._repr_html_()


def test_progress_is_a_few_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = nets.bench_files(tmp_path)
    spec = BenchSpec(str(files.model), data=str(files.data), snrs=(10.0,), draws=2, out=str(tmp_path / "run.sqlite"))
    bench(spec, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"tiny: measuring, kept in {tmp_path / 'run.sqlite'}"
    assert lines[-1].startswith("100 % of ")
    assert len(lines) <= 11
    bench(spec)
    assert capsys.readouterr().err == ""
