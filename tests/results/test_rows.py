from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas
import pytest
from support.command import onnxnoise, refused, strict_json
from support.runfiles import HOSTILE, RunFile

from onnxnoise.errors import RunFileError, UsageError
from onnxnoise.reports.writing import report
from onnxnoise.results.reading import open_run_file, results_of
from onnxnoise.results.rows import KINDS, AverageRow, CellRow, DrawRow, RowKind, load
from onnxnoise.statistics import estimates


def bits(run: RunFile, hits: dict[Any, list[bool]], *keys: Any) -> Any:
    import numpy as np

    return np.array([hits[key] for key in keys])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFile:
    return RunFile(tmp_path_factory.mktemp("rows") / "run.sqlite")


def test_cells_are_those_of_the_lists(run: RunFile) -> None:
    rows = load(run.path)
    keys = {(sweep, layer, snr) for sweep, layer, snr, _ in run.top1 if sweep != "clean"}
    assert {(row.sweep, row.layer, row.snr) for row in rows} == keys
    assert len(rows) == len(keys)
    clean = {"top1": run.top1["clean", None, math.inf, 0], "top5": run.top5["clean", None, math.inf, 0]}
    for row in rows:
        own = [(row.sweep, row.layer, row.snr, draw) for draw in range(run.draws)]
        assert (row.draws, row.images, row.noise_percent) == (run.draws, run.images, pytest.approx(100 / row.snr))
        assert row.nonfinite == sum(sum(run.nonfinite[key]) for key in own)
        assert row.negative_variances == max(run.negative[key] for key in own)
        assert row.negative_variance_draws == sum(run.negative[key] > 0 for key in own)
        for name, hits in (("top1", run.top1), ("top5", run.top5)):
            stacked, reference = bits(run, hits, *own), bits(run, {0: clean[name]}, 0)[0]
            normalized, accuracy = estimates.ratio(stacked, reference), estimates.accuracy(stacked)
            ratios = [sum(hits[key]) / sum(clean[name]) for key in own]
            found = {field.name: getattr(row, field.name) for field in fields(row)}
            assert found[name] == pytest.approx(sum(map(sum, (hits[key] for key in own))) / run.draws / run.images)
            assert (found[f"{name}_low"], found[f"{name}_high"]) == accuracy.sampled
            assert found[f"clean_{name}"] == sum(clean[name]) / run.images
            assert found[f"normalized_{name}"] == pytest.approx(sum(ratios) / run.draws)
            assert (found[f"normalized_{name}_low"], found[f"normalized_{name}_high"]) == normalized.sampled
            assert (found[f"normalized_{name}_fixed_low"], found[f"normalized_{name}_fixed_high"]) == normalized.fixed
            assert found[f"normalized_{name}_worst"] == pytest.approx(min(ratios))
            assert found[f"normalized_{name}_sd"] == pytest.approx(pandas.Series(ratios).std())
        if row.layer is None:
            assert (row.name, row.kind, row.parameters, row.sigma_w) == (None, None, None, None)
        else:
            assert (row.name, row.parameters) == (run.names[row.layer - 1], 12 * row.layer)


def test_draws_are_those_of_the_lists(run: RunFile) -> None:
    rows = load(run.path, rows="draws")
    assert {(row.sweep, row.layer, row.snr, row.draw) for row in rows} == run.top1.keys() - {
        ("clean", None, math.inf, 0)
    }
    for row in rows:
        key = (row.sweep, row.layer, row.snr, row.draw)
        assert (row.top1_hits, row.top5_hits) == (sum(run.top1[key]), sum(run.top5[key]))
        assert (row.nonfinite, row.negative_variances) == (sum(run.nonfinite[key]), run.negative[key])
        assert row.top1 == row.top1_hits / run.images
        assert row.normalized_top1 == row.top1_hits / row.clean_top1_hits


def test_averages_are_means_over_layers(run: RunFile) -> None:
    rows = load(run.path, rows="averages")
    assert [(row.sweep, row.snr, row.layers) for row in rows] == [("single", snr, 3) for snr in run.snrs]
    cells = pandas.DataFrame(load(run.path)).query("sweep == 'single'").groupby("snr").normalized_top1.mean()
    for row in rows:
        assert row.a_avr_top1 == pytest.approx(cells[row.snr])


@pytest.mark.parametrize("kind", KINDS)
def test_pandas_takes_them_as_they_are(kind: RowKind, run: RunFile, tmp_path: Path) -> None:
    rows: Any = load(run.path, rows=kind)  # type: ignore[call-overload]
    frame = pandas.DataFrame(rows)
    assert frame.columns.tolist() == [field.name for field in fields(rows[0])]
    assert len(frame) == len(rows)
    for name in ("rows.csv", "rows.json"):
        report([run.path], tmp_path / name, rows=kind)
        read = pandas.read_csv(tmp_path / name) if name.endswith("csv") else pandas.read_json(tmp_path / name)
        expected = frame.astype(read.dtypes.to_dict())
        pandas.testing.assert_frame_equal(read, expected, check_exact=False, rtol=1e-9)


@pytest.mark.parametrize("row", [CellRow, DrawRow, AverageRow])
def test_every_column_is_documented(row: type) -> None:
    text = " ".join(base.__doc__ or "" for base in row.__mro__[:-1])
    for field in fields(row):
        name = field.name.replace("top5", "top1")
        short = re.sub(r".*?((_fixed)?_(low|high)|_sd|_worst)$", r"\1", name)
        assert re.search(rf"\b{name}\b", text) or re.search(rf"(?<!\w){short}\b", text), field.name


def test_a_run_of_few_classes_has_no_top5(tmp_path: Path) -> None:
    made = RunFile(tmp_path / "run.sqlite", classes=5)
    assert {(row.clean_top5, row.top5, row.normalized_top5) for row in load(made.path)} == {(None, None, None)}
    assert {row.top5_hits for row in load(made.path, rows="draws")} == {None}


def test_csv_and_json_of_hostile_names_and_no_noise(tmp_path: Path) -> None:
    made = RunFile(tmp_path / "run.sqlite", names=HOSTILE, snrs=(math.inf, 5.0), sweeps=("single",), model=HOSTILE[0])
    report([made.path], tmp_path / "rows.csv")
    report([made.path], tmp_path / "rows.json")
    text = (tmp_path / "rows.csv").read_bytes().decode()
    table = list(csv.DictReader(io.StringIO(text, newline="")))
    inert = [f"'{name}" if name[0] in "=+-@\t\r" else name for name in HOSTILE]
    written = [name.encode("utf-8", "backslashreplace").decode() for name in inert]
    assert sorted({row["name"] for row in table}) == sorted(written)
    assert {row["snr"] for row in table} == {"inf", "5.0"}
    read = strict_json((tmp_path / "rows.json").read_text(encoding="ascii"))
    assert sorted({row["name"] for row in read}) == sorted(HOSTILE)
    assert {row["snr"] for row in read} == {math.inf, 5.0}
    assert {row["noise_percent"] for row in read} == {0.0, 20.0}


def test_several_runs_are_in_one_table(tmp_path: Path) -> None:
    one, other = (RunFile(tmp_path / f"{name}.sqlite", model=name, seed=i) for i, name in enumerate(("one", "other")))
    report([one.path, other.path, one.path], tmp_path / "rows.csv", rows="averages")
    assert pandas.read_csv(tmp_path / "rows.csv").model.tolist() == ["one", "one", "other", "other"]


CLEAN = ("clean", None, math.inf, 0)


ASKED = {"snrs": [10.0, 2.5], "sweeps": ["single", "all"], "draws": 4, "limit": None, "metric": None}


class TestUnfinished:
    """The last command asked for 4 draws on 30 images; the file holds a part."""

    def made(self, path: Path, **changed: Any) -> RunFile:
        return RunFile(path / "run.sqlite", sweeps=("single", "all"), draws=4, asked={**ASKED, **changed})

    def test_a_finished_one_is(self, tmp_path: Path) -> None:
        run = open_run_file(self.made(tmp_path).path)
        assert run.measured == run.planned == 30 * (1 + 2 * 4 * 4)
        assert run.result.measured == run.result.planned == 2 * 4 * 4
        assert run.classes == 10

    def test_stopped_in_the_second_chunk(self, tmp_path: Path) -> None:
        made = self.made(tmp_path)
        made.forget("start = 21 OR (start = 13 AND sweep = 'single' AND layer > 1)")
        run = open_run_file(made.path)
        assert run.result.clean.images == 13, "13 images with all 32 passes, 21 with 16"
        assert {len(cell.draws) for cell in run.result.cells} == {4}
        assert len(run.result.cells) == 8
        assert (run.measured, run.planned) == (13 * 33 + 8 * 17, 30 * 33)

    def test_stopped_while_draws_grew(self, tmp_path: Path) -> None:
        made = self.made(tmp_path)
        made.forget("draw > 1 AND NOT (start = 0 AND draw = 2)")
        run = open_run_file(made.path)
        assert run.result.clean.images == 30
        assert {len(cell.draws) for cell in run.result.cells} == {2}

    def test_one_snr_has_more_draws(self, tmp_path: Path) -> None:
        made = self.made(tmp_path, snrs=[2.5], draws=2)
        made.forget("level = 2.5 AND draw > 1")
        run = open_run_file(made.path)
        assert run.measured == run.planned == 30 * (1 + 4 * 2)
        assert {(cell.snr, len(cell.draws)) for cell in run.result.cells} == {(10.0, 4), (2.5, 2)}
        assert [cell.layer for cell in run.result.cells] == [1, 1, 2, 2, 3, 3, None, None]
        assert [average.snr for average in run.result.a_avr] == [10.0, 2.5]

    def test_some_layers_are_lacking(self, tmp_path: Path) -> None:
        made = RunFile(tmp_path / "run.sqlite", sweeps=("single", "all"), draws=4, chunks=(30,), asked=ASKED)
        made.forget("layer = 3")
        run = open_run_file(made.path)
        assert len(run.result.cells) == 2 * 3
        assert run.result.a_avr == ()
        assert (run.measured, run.planned) == (30 * 25, 30 * 33)

    def test_only_clean(self, tmp_path: Path) -> None:
        made = self.made(tmp_path)
        made.forget("sweep != 'clean'")
        run = open_run_file(made.path)
        assert (run.result.cells, run.measured, run.planned) == ((), 30, 30 * 33)
        assert load(made.path) == []

    def test_no_clean_pass(self, tmp_path: Path) -> None:
        made = self.made(tmp_path)
        made.forget("sweep = 'clean'")
        with pytest.raises(
            RunFileError, match=r"no pass over the first chunk of images is complete.*the same `onnxnoise bench`"
        ):
            results_of(made.path)

    def test_a_shard_without_the_first_chunk(self, tmp_path: Path) -> None:
        made = self.made(tmp_path, shard=[2, 2])
        made.forget("start = 0")
        with pytest.raises(RunFileError, match="merge it with the other shards"):
            results_of(made.path)

    def test_a_nested_one(self, tmp_path: Path) -> None:
        """Each chunk meets draws of its own: draw k meets chunk k."""
        asked = {"snrs": [10.0], "sweeps": ["all"], "draws": 3, "max_draws": 4}
        made = RunFile(tmp_path / "run.sqlite", sweeps=("all",), snrs=(10.0,), asked=asked, design="nested")
        made.forget(
            "sweep != 'clean' AND NOT (draw = 0 AND start = 0 OR draw = 1 AND start = 13 OR draw = 2 AND start = 21)"
        )
        run = open_run_file(made.path)
        (row,) = load(made.path)
        assert run.result.design == "nested"
        assert (row.draws, row.normalized_top1_sd) == (3, None)
        assert run.measured == 3
        assert run.planned == 4
        hits = [sum(made.top1["all", None, 10.0, k][chunk.start : chunk.stop]) for k, chunk in enumerate(made.ranges)]
        assert [draw.top1_hits for draw in load(made.path, rows="draws")] == hits
        assert row.top1 == pytest.approx(sum(hits) / 30)
        report([made.path], tmp_path / "page.html")
        assert "net is unfinished: 3 of 4 passes" in (tmp_path / "page.html").read_text(encoding="utf-8")

    def test_a_nested_one_of_two_commands_is_finished_where_both_are(self, tmp_path: Path) -> None:
        """Single layers at SNR 10 and all layers at 2.5: nobody asked for single layers at 2.5, or for all at 10."""
        asked = {"snrs": [2.5], "sweeps": ["all"], "draws": 1, "max_draws": 1}
        made = RunFile(tmp_path / "run.sqlite", sweeps=("single", "all"), draws=1, asked=asked, design="nested")
        made.forget(
            "sweep = 'single' AND level != 10 OR sweep = 'all' AND level != 2.5 OR sweep != 'clean' AND start > 0"
        )
        run = open_run_file(made.path)
        cells = {(cell.sweep, cell.level) for cell in run.result.cells}
        assert cells == {("single", 10.0), ("all", 2.5)}
        assert run.measured == run.planned == len(run.result.cells)

    def test_a_file_that_does_not_say_what_was_asked(self, tmp_path: Path) -> None:
        made = RunFile(tmp_path / "run.sqlite", sweeps=("all",), draws=2)
        made.forget("draw = 1 AND start = 21 AND level = 10")
        run = open_run_file(made.path)
        assert (run.measured, run.planned) == (30 * 5 - 9, 30 * 5)

    def test_a_limit_that_was_lowered(self, tmp_path: Path) -> None:
        made = self.made(tmp_path, limit=20)
        made.forget("start = 21 AND sweep != 'clean'")
        run = open_run_file(made.path)
        assert (run.measured, run.planned, run.result.clean.images) == (21 * 33, 21 * 33, 21)


def test_the_metric_is_what_was_asked(tmp_path: Path) -> None:
    made = RunFile(
        tmp_path / "run.sqlite", asked={"snrs": [10.0, 2.5], "sweeps": ["all"], "draws": 3, "metric": "top5"}
    )
    assert results_of(made.path).metric == "top5"
    assert results_of(made.path, "top1").metric == "top1"


@pytest.mark.parametrize("content", [b"", b"not a database", b"{}" * 5000])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    path.write_bytes(content)
    with pytest.raises(RunFileError, match=r"run\.sqlite: not an onnxnoise run file"):
        load(path)


def test_a_damaged_run_file_is_refused(tmp_path: Path) -> None:
    made = RunFile(tmp_path / "run.sqlite", asked={"snrs": 5, "sweeps": ["all"]})
    with pytest.raises(RunFileError, match=r"run\.sqlite: damaged"):
        load(made.path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="no such run file"):
        load(tmp_path / "none.sqlite")


def test_no_such_rows(run: RunFile) -> None:
    with pytest.raises(UsageError, match="there are cells, draws, averages"):
        load(run.path, rows="layers")  # type: ignore[call-overload]


def test_the_command(run: RunFile, tmp_path: Path) -> None:
    outcome = onnxnoise("report", run.path, "-o", tmp_path / "draws.csv", "--rows", "draws")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", f"wrote {tmp_path / 'draws.csv'}\n")
    assert len(pandas.read_csv(tmp_path / "draws.csv")) == len(load(run.path, rows="draws"))


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["-o", "rows.xlsx"], 2, ["rows.xlsx", ".html", ".csv"]),
        (["-o", "rows"], 2, ["'rows'"]),
        (["-o", "rows.csv", "--rows", "layers"], 2, ["--rows", "layers", "averages"]),
        (["-o", "rows.csv", "--figure", "all"], 2, ["--figure", ".png"]),
        (["-o", "page.html", "--rows", "draws"], 2, ["--rows", ".csv"]),
        (["-o", "page.png", "--figure", "pie"], 2, ["--figure", "heatmap"]),
        (["-o", "rows.csv", "--metric", "top3"], 2, ["--metric", "top5"]),
        (["-o", "taken/rows.csv"], 3, ["taken", "-o"]),
    ],
)
def test_what_can_not_be_written(
    flags: list[str], code: int, words: list[str], run: RunFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").touch()
    refused(onnxnoise("report", run.path, *flags), code, *words)
    assert list(tmp_path.iterdir()) == [tmp_path / "taken"]


def test_a_run_file_is_never_overwritten(run: RunFile, tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_bytes(run.path.read_bytes())
    before = path.read_bytes()
    refused(onnxnoise("report", path, "-o", path), 2, "run.csv", "one of the run files")
    assert path.read_bytes() == before
