"""Noise margins: where the accuracy crosses the target, against measuring on the way there."""

from __future__ import annotations

import re
from contextlib import nullcontext
from math import inf
from pathlib import Path

import pytest
from support import nets
from support.command import onnxnoise, refused
from support.stores import edited

from onnxnoise.decisions.design import margins
from onnxnoise.records import Estimate
from onnxnoise.results.reading import open_run_file
from onnxnoise.run import runner
from onnxnoise.run.watching import Silent
from onnxnoise.spec import BenchSpec


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("margins"), count=80)


def spec(files: nets.Files, out: Path, **changed: object) -> BenchSpec:
    asked = {"sweeps": ("all",), "draws": 4, "bn": "affine", "target": 0.9, **changed}
    return BenchSpec(str(files.model), data=str(files.data), out=str(out), **asked)  # type: ignore[arg-type]


def measured(files: nets.Files, folder: Path, snr: float, layer: int | None, **changed: object) -> Estimate:
    """The accuracy at one SNR, from a run of its own."""
    sweeps = ("all",) if layer is None else ("single",)
    result = runner.bench(spec(files, folder / f"{snr}-{layer}", snrs=(snr,), sweeps=sweeps, **changed))
    (cell,) = [cell for cell in result.cells if cell.layer == layer]
    assert cell.normalized_top1 is not None
    return cell.normalized_top1


@pytest.mark.parametrize("sweep", ["all", "single"])
def test_a_margin_is_where_the_accuracy_crosses_the_target(files: nets.Files, tmp_path: Path, sweep: str) -> None:
    found = margins.margin(spec(files, tmp_path / "run", sweeps=(sweep,)), tolerance=0.1)
    assert [margin.layer for margin in found.margins] == ([None] if sweep == "all" else [1, 2, 3, 4, 5])
    for margin in found.margins:
        assert margin.interval is not None
        below, above = margin.interval
        assert below <= margin.level <= above
        ways = {  # what is looked for, the SNR that meets the target (None: none does), one of its evaluations
            "mean": (margin.level, lambda e: e.mean),
            "lower end": (above, lambda e: e.sampled[0]),
        }
        for what, (snr, figure) in ways.items():
            if snr == inf:
                assert figure(measured(files, tmp_path, 1000.0, margin.layer)) < 0.9, what
                continue
            assert figure(measured(files, tmp_path, snr, margin.layer)) >= 0.9, what
            lower = [tried for tried in margin.tried if tried < snr]
            if lower:
                assert figure(measured(files, tmp_path, lower[-1], margin.layer)) < 0.9 or what != "mean"
                assert snr / lower[-1] <= 1.1 or what != "mean"
        if below:
            upper = measured(files, tmp_path, below, margin.layer).sampled
            assert upper is not None
            assert upper[1] < 0.9
        if margin.level < inf:
            assert margin.accuracy == measured(files, tmp_path, margin.level, margin.layer)


def test_levels_far_from_the_target_get_few_draws(files: nets.Files, tmp_path: Path) -> None:
    """The side of every level is that of a run with all its draws, and those of the margin itself are all there."""
    asked = spec(files, tmp_path / "run", draws=None, precision=0.02, max_draws=64)
    (found,) = margins.margin(asked, tolerance=0.5).margins
    counts = {cell.level: len(cell.draws) for cell in open_run_file(tmp_path / "run").result.cells}
    assert counts[0.1] == 32
    assert counts[found.level] > 32
    for level in (0.1, max(tried for tried in found.tried if tried < found.level), found.level):
        whole = measured(files, tmp_path, level, None, draws=None, precision=0.02, max_draws=64)
        assert (whole.mean >= 0.9) == (level == found.level), level
        assert found.accuracy == whole or level != found.level


def test_a_killed_run_goes_on_to_where_it_would_have_looked(files: nets.Files, tmp_path: Path) -> None:
    asked = spec(files, tmp_path / "run", draws=None, bn="group", precision=0.02, max_draws=120)
    whole = margins.margin(asked, tolerance=0.5)
    counts = {cell.level: len(cell.draws) for cell in open_run_file(tmp_path / "run").result.cells}
    assert counts[0.1] == 96
    edited(tmp_path / "run", "DELETE FROM tally WHERE level = 0.1 AND start >= 40")
    assert margins.margin(asked, tolerance=0.5) == whole
    assert {cell.level: len(cell.draws) for cell in open_run_file(tmp_path / "run").result.cells} == counts


def test_the_ends_of_the_range(files: nets.Files, tmp_path: Path) -> None:
    (easy,) = margins.margin(spec(files, tmp_path / "a", draws=2), range_=(500.0, 600.0)).margins
    assert (easy.level, easy.tried) == (500.0, (500.0, 600.0))
    (hard,) = margins.margin(spec(files, tmp_path / "b", draws=2), range_=(0.1, 0.2)).margins
    assert (hard.level, hard.accuracy) == (inf, None)
    assert (hard.tried[0], hard.tried[-1]) == (0.1, 0.2)
    (one,) = margins.margin(spec(files, tmp_path / "c", draws=1), range_=(1.0, 30.0)).margins
    assert one.interval is None


def test_what_a_run_file_has_is_not_measured_again(files: nets.Files, tmp_path: Path) -> None:
    first = margins.margin(spec(files, tmp_path / "run", draws=2))
    counted: list[object] = []

    class Counting(Silent):
        def measured(self, tally: object) -> None:
            counted.append(tally)

    assert margins.margin(spec(files, tmp_path / "run", draws=2), watching=lambda: nullcontext(Counting())) == first
    assert counted == []
    runner.bench(spec(files, tmp_path / "run", draws=2, snrs=(first.margins[0].level,)), Counting())
    assert counted == [], "bench and margin share their run file"


def test_the_command(files: nets.Files, tmp_path: Path) -> None:
    flags = ("--data", files.data, "--bn", "affine", "--draws", "2", "--out", tmp_path / "run", "--target", "0.9")
    outcome = onnxnoise("margin", files.model, *flags, columns=200)
    assert outcome.code == 0, outcome.err
    assert "accuracy of at least 0.9 of the clean one from SNR" in outcome.out
    table = onnxnoise("margin", files.model, *flags, "--sweep", "single", "--tolerance", "0.5", columns=60)
    assert all(f" {name} " in table.out for name in nets.LAYERS)
    written = onnxnoise("margin", files.model, *flags, "--json", "-", "-q").json
    assert written["schema"] == "onnxnoise/margin/1"
    assert written["margins"][0]["layer"] is None


def test_whole_levels_are_bisected_as_such(files: nets.Files, tmp_path: Path) -> None:
    asked = spec(files, tmp_path / "run", noise="quantize", target=0.95)
    (found,) = margins.margin(asked).margins
    bits = {b: measured_at(files, tmp_path, b) for b in range(2, 17)}
    assert found.level == min(b for b in bits if all(bits[more] >= 0.95 for more in range(b, 17)))
    assert all(level == int(level) for level in found.tried)
    assert len(found.tried) < 8
    assert found.readable == f"{found.level:g} bits"
    assert found.interval is None
    outcome = onnxnoise(*command(files, tmp_path / "run"), "--noise", "quantize", columns=200)
    assert f"keeps 95 % of the clean top-1 accuracy down to {found.level:g} bits" in outcome.out, outcome.err


def measured_at(files: nets.Files, folder: Path, bits: float) -> float:
    result = runner.bench(spec(files, folder / f"{bits}-bits", noise="quantize", levels=(float(bits),)))
    (cell,) = result.cells
    assert cell.normalized_top1 is not None
    return cell.normalized_top1.mean


def command(files: nets.Files, out: Path) -> tuple[object, ...]:
    return ("margin", files.model, "--data", files.data, "--bn", "affine", "--draws", "2", "--out", out)


def test_a_margin_is_told_in_the_level_s_own_unit(files: nets.Files, tmp_path: Path) -> None:
    flags = ("--tolerance", "1")
    stuck = onnxnoise(*command(files, tmp_path / "a"), *flags, "--noise", "stuck", columns=200)
    assert re.search(r"keeps 95 % of the clean top-1 accuracy up to [\d.e-]+ % stuck cells", stuck.out), stuck
    drifting = onnxnoise(*command(files, tmp_path / "b"), *flags, "--noise", "pcm", "--target", "0.05", columns=200)
    assert re.search(r"keeps 5 % of the clean .* up to [\d.]+ (second|minute|hour|day|year)s?", drifting.out), drifting
    narrow = onnxnoise(
        *command(files, tmp_path / "b"), *flags, "--noise", "pcm", "--range", "1h,1d", "--json", "-", "-q"
    )
    assert narrow.json["range"] == [86400.0, 3600.0]
    refused(onnxnoise(*command(files, tmp_path / "c"), "--noise", "afm"), 2, "afm", "one level")
    refused(onnxnoise(*command(files, tmp_path / "c"), "--noise", "pcm:1h"), 2, "pcm:1h", "one level")
    refused(onnxnoise(*command(files, tmp_path / "c"), "--noise", "quantize", "--range", "1,8"), 2, "--range", "bits")


def test_bad_input(files: nets.Files, tmp_path: Path) -> None:
    flags = (files.model, "--data", files.data, "--out", tmp_path / "run")
    refused(onnxnoise("margin", *flags, "--target", "1.1"), 2, "--target", "1.1")
    refused(onnxnoise("margin", *flags, "--target", "0"), 2, "--target")
    refused(onnxnoise("margin", *flags, "--sweep", "cumulative"), 2, "--sweep")
    refused(onnxnoise("margin", *flags, "--sweep", "single,all"), 2, "--sweep")
    refused(onnxnoise("margin", *flags, "--range", "5"), 2, "--range")
    refused(onnxnoise("margin", *flags, "--range", "5,1"), 2, "--range")
    refused(onnxnoise("margin", *flags, "--tolerance", "0"), 2, "--tolerance")
    assert not (tmp_path / "run").exists()


def test_what_a_margin_tried_is_no_level_that_was_asked_for(
    files: nets.Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ("--data", files.data, "--sweep", "all", "--bn", "affine", "--out", "run.sqlite")
    assert onnxnoise("margin", files.model, *asked, "--tolerance", 0.5).code == 0
    tried = sorted(cell.level for cell in open_run_file(tmp_path / "run.sqlite").result.cells)
    shown = onnxnoise("show", "run.sqlite").err
    assert f"{len(tried)} levels, from SNR 1000 to SNR 0.1, were tried by `margin`" in shown
    assert "not known to" not in shown, "a search asks for no precision of the levels that it tries"
    onnxnoise("report", "run.sqlite", "-o", "run.md")
    assert "looked for the most noise at which" in Path("run.md").read_text()
    onnxnoise("bench", files.model, *asked, "--snr", f"{tried[1]!r},0.1", "--precision", 0.001)
    shown = onnxnoise("show", "run.sqlite").err
    assert f"{len(tried) - 2} levels, from SNR 1000 to" in shown
    assert re.search(r"of 2 cells (is|are) not known to \+-0\.001", shown)
    assert "tried by" not in onnxnoise("show", "run.sqlite", "-q").err
