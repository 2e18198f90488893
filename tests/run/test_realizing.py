"""Realized noise against its definition, value by value, on a run's own file; older files are read and go on."""

from __future__ import annotations

import json
import math
import sqlite3
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median

import pytest
from support import nets
from support.command import onnxnoise

from onnxnoise.engine import realized
from onnxnoise.records import Result
from onnxnoise.results.as_json import to_json
from onnxnoise.results.reading import results_of
from onnxnoise.results.rows import load
from onnxnoise.run import runner
from onnxnoise.spec import BenchSpec

SPEC = BenchSpec("", snrs=(20.0, 2.0), draws=2, sweeps=("all",))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("realizing"), count=8)


def bench(files: nets.Files, out: Path, spec: BenchSpec = SPEC) -> Result:
    return runner.bench(replace(spec, model=str(files.model), data=str(files.data), out=str(out)))


def by_hand(clean: list[float], noisy: list[float]) -> tuple[float, float, float]:
    """(snr, gain, offset) of one layer in one draw."""

    def sd(values: list[float]) -> float:
        mean = math.fsum(values) / len(values)
        return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))

    errors = [b - a for a, b in zip(clean, noisy, strict=True)]
    gain = math.fsum(a * b for a, b in zip(clean, noisy, strict=True)) / math.fsum(a * a for a in clean)
    return sd(clean) / sd(errors), gain, fmean(errors) / sd(clean)


def test_snr_gain_and_offset_are_the_definition_s(files: nets.Files, tmp_path: Path) -> None:
    result = bench(files, tmp_path / "run.sqlite")
    assert len(result.realized) == 2 * len(nets.LAYERS)
    for each in result.realized:
        names = list(nets.LAYERS.values())[each.layer - 1]
        found = []
        for draw in range(2):
            noisy = nets.noisy(files.weights, each.level, draw, {each.layer: names})
            noisy |= {name: noisy[name].clip(min=0) for name in names if name.endswith("var")}
            clean, other = ([float(v) for name in names for v in of[name].ravel()] for of in (files.weights, noisy))
            found.append(by_hand(clean, other))
        assert each.draws == 2
        for value, mean in zip((each.snr, each.gain, each.offset), map(fmean, zip(*found, strict=True)), strict=True):
            assert value == pytest.approx(mean, rel=1e-6, abs=1e-7)
    for ranged in result.realized_layers:
        here = [each.snr for each in result.realized if each.level == ranged.level and each.snr is not None]
        assert ranged.layers == 5
        assert ranged.snr == (min(here), median(here), max(here))


def test_it_is_in_the_file_the_json_and_the_table(files: nets.Files, tmp_path: Path) -> None:
    out = tmp_path / "run.sqlite"
    result = bench(files, out)
    assert results_of(out).realized == result.realized
    found = json.loads(to_json(result))
    assert set(found["realized"][0]) == {"layer", "level", "snr", "gain", "offset", "draws"}
    assert found["realized_layers"][0]["snr"] == list(result.realized_layers[0].snr or ())
    shown = onnxnoise(
        "bench", files.model, "--data", files.data, "--snr", "20,2", "--draws", 2, "--sweep", "all", "--out", out
    )
    assert "What the weights really got: lowest, median and highest of 5 layers" in shown.out, shown.err


def test_a_file_without_it_is_read_and_gets_it_when_its_run_goes_on(files: nets.Files, tmp_path: Path) -> None:
    out = tmp_path / "run.sqlite"
    result = bench(files, out)
    with sqlite3.connect(out) as database:
        database.execute("DELETE FROM record WHERE name = 'realized'")
    database.close()
    assert results_of(out).realized == ()
    assert bench(files, out).realized == result.realized
    more = bench(files, out, replace(SPEC, draws=3, snrs=(20.0, 2.0, math.inf)))
    assert {each.draws for each in more.realized} == {3}
    assert {each.snr for each in more.realized if each.level == math.inf} == {math.inf}


def test_a_damaged_one_is_an_error(files: nets.Files, tmp_path: Path) -> None:
    out = tmp_path / "run.sqlite"
    bench(files, out)
    with sqlite3.connect(out) as database:
        database.execute("UPDATE record SET json = replace(json, '20.0', '-3.0') WHERE name = 'realized'")
    database.close()
    shown = onnxnoise("report", out, "-o", tmp_path / "rows.csv")
    assert shown.code == 3
    assert "the row of realized" in shown.err


def test_large_networks_take_fewer_draws(files: nets.Files, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxnoise.run.loading import open_model

    layers = open_model(str(files.model)).layers
    assert realized.realized_draws(layers, 3) == 3
    assert realized.realized_draws(layers, 64) == realized.MOST_DRAWS
    values = sum(layer.parameters for layer in layers)
    monkeypatch.setattr(realized, "_MOST_VALUES", 2 * values + 1)
    assert realized.realized_draws(layers, 64) == 2
    monkeypatch.setattr(realized, "_MOST_VALUES", 1)
    assert realized.realized_draws(layers, 64) == 1


def test_rows_have_each_layer_s_and_the_median(files: nets.Files, tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    result = bench(files, path, replace(SPEC, sweeps=("single", "all")))
    rows = load(path)
    assert {row.layer for row in rows} == {None, *range(1, len(nets.LAYERS) + 1)}
    for row in rows:
        there = [each for each in result.realized if each.level == row.level and row.layer in (None, each.layer)]
        for name in ("snr", "gain", "offset"):
            assert getattr(row, f"realized_{name}") == pytest.approx(median(getattr(each, name) for each in there))
