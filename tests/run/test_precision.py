"""Runs that decide how many draws they need, runs that end with their time, and what a dry run says of both."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
from support import nets, processes
from support.command import onnxnoise, refused

from onnxnoise.errors import RunFileError
from onnxnoise.records import Tally
from onnxnoise.run import forecast, runner
from onnxnoise.run.watching import Silent
from onnxnoise.spec import BenchSpec
from onnxnoise.statistics import stopping


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("precision"), count=640)


def spec(files: nets.Files, out: Path, **changed: Any) -> BenchSpec:
    asked = {"snrs": (50.0, 5.0), "sweeps": ("single", "all"), "layers": "1-2", "precision": 0.02, **changed}
    return BenchSpec(str(files.model), data=str(files.data), out=str(out), **asked)


class Until(Silent):
    """Stops a run as Ctrl-C does, after so many noisy passes."""

    def __init__(self, most: float = inf) -> None:
        self.most, self.tallies = most, list[Tally]()

    def measured(self, tally: Tally) -> None:
        self.tallies.append(tally)
        if len(self.tallies) > self.most:
            raise KeyboardInterrupt


def test_each_chunk_meets_draws_of_its_own_until_a_cell_is_precise(files: nets.Files, tmp_path: Path) -> None:
    result = runner.bench(spec(files, tmp_path / "run"))
    assert result.design == "nested"
    sizes = {tally[5] for tally in processes.tallies(tmp_path / "run")}
    (size,) = sizes
    assert size in (16, 32), "640 images make at least 16 chunks"
    chunks = 640 // size
    met: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
    for sweep, layer, snr, draw, start, *_ in processes.tallies(tmp_path / "run"):
        if sweep != "clean":
            met.setdefault((sweep, layer, snr), []).append((draw, start))
    for places in met.values():
        assert [draw for draw, _ in places] == list(range(len(places)))
        assert all(start == size * (draw % chunks) for draw, start in places)
    assert len(met) == 6
    seen = set()
    for cell in result.cells:
        assert cell.normalized_top1 is not None
        half = stopping.half_width(cell.normalized_top1)
        seen.add(cell.precise)
        assert cell.precise == (half <= 0.02)
        assert len(cell.draws) == len(met[cell.sweep, cell.layer or 0, cell.snr])
        assert (32 <= len(cell.draws) <= 3 * chunks) if cell.precise else (len(cell.draws) == 3 * chunks)
    assert seen == {True, False}, "one that gets there and one that does not, or this shows nothing"
    assert "imprecise" in " ".join(notice.code for notice in result.warnings) or any(
        "+-0.02" in notice.message for notice in result.warnings
    )


def test_an_interrupted_run_decides_as_it_would_have(files: nets.Files, tmp_path: Path) -> None:
    """Of so few images that chunks have 16 of them, whatever a clock says."""
    runner.bench(spec(files, tmp_path / "whole", limit=256))
    for most in (5, 40, 90):
        with pytest.raises(KeyboardInterrupt):
            runner.bench(spec(files, tmp_path / "parts", limit=256), Until(most))
    runner.bench(spec(files, tmp_path / "parts", limit=256))
    assert processes.tallies(tmp_path / "parts") == processes.tallies(tmp_path / "whole")
    again = Until()
    runner.bench(spec(files, tmp_path / "parts", limit=256), again)
    assert again.tallies == []


def test_a_file_holds_one_design(files: nets.Files, tmp_path: Path) -> None:
    runner.bench(spec(files, tmp_path / "run", precision=None, draws=1, sweeps=("all",)))
    with pytest.raises(RunFileError, match="design"):
        runner.bench(spec(files, tmp_path / "run"))


def test_a_budget_ends_a_run_and_the_next_one_goes_on(files: nets.Files, tmp_path: Path) -> None:
    short = spec(files, tmp_path / "run", precision=None, budget=0.001, max_draws=8)
    first = runner.bench(short)
    assert first.measured < first.planned
    last = runner.bench(replace(short, budget=60.0))
    assert last.measured == last.planned == 6 * 8
    assert {len(cell.draws) for cell in last.cells} == {8}


def test_a_dry_run_tells_what_is_measured(files: nets.Files, tmp_path: Path) -> None:
    asked = spec(files, tmp_path / "run", precision=None, draws=2, sweeps=("single", "cumulative", "all"))
    told = forecast.forecast(asked)
    assert not (tmp_path / "run").exists()
    counted = Until()
    runner.bench(asked, counted)
    assert told.cells == 2 * (2 + 2 + 1)
    assert told.least == told.most
    assert told.most.passes == sum(tally.images for tally in counted.tallies) == 640 * (1 + 2 * told.cells)
    assert told.most.sessions >= len(counted.tallies)
    assert told.most.seconds > 0
    assert forecast.forecast(asked).most.passes == 0, "nothing is left"
    nested = forecast.forecast(replace(asked, draws=None, precision=0.05, out=str(tmp_path / "other")))
    size = 640 // nested.chunks
    assert nested.draws == 3 * nested.chunks
    later = min(96, nested.draws)  # all layers' cells, some of whose chips may collapse
    assert nested.least.passes == size * (nested.chunks + 32 * (told.cells - 2) + later * 2)
    assert nested.most.passes == 640 * (1 + 3 * told.cells)


def test_the_command(files: nets.Files, tmp_path: Path) -> None:
    flags = (files.model, "--data", files.data, "--snr", "50", "--sweep", "all", "--out", tmp_path / "run")
    dry = onnxnoise("bench", *flags, "--precision", "0.1", "--dry-run")
    assert dry.out.startswith("weight noise, SNR = sigma_w / sigma_noise, sigma per tensor; batch norms: group\n")
    assert "draws a cell: until +-0.1, at most " in dry.out
    assert onnxnoise("bench", *flags, "--dry-run", "--json", "-").json["schema"] == "onnxnoise/forecast/1"
    assert not (tmp_path / "run").exists()
    outcome = onnxnoise("bench", *flags, "--precision", "0.1")
    assert outcome.code == 0, outcome.err
    assert "each chunk of images met draws of its own; half-widths of the 95 % intervals: median" in outcome.out
    assert "draws until +-0.1, at most " in outcome.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--precision", "1"], ["--precision", "0.01"]),
        (["--precision", "x"], ["--precision", "'x'"]),
        (["--precision", "0.1", "--draws", "3"], ["--draws", "--max-draws"]),
        (["--max-draws", "9", "--draws", "3"], ["--max-draws", "--draws"]),
        (["--precision", "0.1", "--max-draws", "1"], ["--max-draws", "2"]),
        (["--budget", "9s", "--shard", "1/2"], ["--shard", "--budget"]),
        (["--budget", "soon"], ["--budget", "10m"]),
        (["--budget", "0s"], ["--budget"]),
        (["--memory", "much"], ["--memory", "4GB"]),
        (["--target", "0"], ["--target", "above 0"]),
    ],
)
def test_bad_flags(flags: list[str], words: list[str]) -> None:
    refused(onnxnoise("bench", "resnet20-cifar10", *flags), 2, *words)
