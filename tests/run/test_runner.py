"""Whole runs: the counts are the slow way's, however a run is grown, cut into chunks or interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support import graphs, nets
from support.command import onnxnoise
from support.processes import tallies
from support.stores import opened, tally

from onnxnoise.errors import DataError, ModelError
from onnxnoise.records import Result, Tally
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.run import runner
from onnxnoise.run.loading import open_model
from onnxnoise.run.watching import Silent, Watcher
from onnxnoise.runtime.base import Provider
from onnxnoise.spec import BenchSpec

SPEC = BenchSpec("", snrs=(20.0, 2.0), draws=2)


class Counting(Silent):
    """How many tallies were measured; `until` may raise."""

    def __init__(self, until: Callable[[int], None] = lambda _: None) -> None:
        self.count, self.until = 0, until

    def measured(self, tally: Tally) -> None:
        self.count += 1
        self.until(self.count)


def bench(files: nets.Files, out: Path, watcher: Watcher | None = None, **changed: Any) -> Result:
    spec = replace(SPEC, model=str(files.model), data=str(files.data), out=str(out), **changed)
    return runner.bench(spec, watcher)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("runner"))


@pytest.fixture(scope="module")
def reference(files: nets.Files, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return bench(files, tmp_path_factory.mktemp("reference") / "run.sqlite")


def test_counts_are_the_slow_way_s(files: nets.Files, reference: Result) -> None:
    layers = dict(enumerate(nets.LAYERS.values(), 1))

    def slow(values: nets.Weights) -> tuple[int, int, int]:
        """(top-1 hits, top-5 hits, images whose own score is too near another's to say)."""
        scores = graphs.run(nets.residual(values), files.inputs)
        own = scores[np.arange(len(scores)), files.labels][:, None]
        near = (np.sort(np.abs(scores - own), axis=1)[:, 1] < 1e-4 * np.abs(scores).max(axis=1)).sum()
        return sum(nets.hits(scores, files.labels, 1)), sum(nets.hits(scores, files.labels, 5)), int(near)

    top1, top5, _ = slow(files.weights)
    assert (reference.clean.top1_hits, reference.clean.top5_hits) == (top1, top5)
    assert len(reference.cells) == 2 * (1 + len(layers))
    for cell in reference.cells:
        for draw in cell.draws:
            chosen = {i: names for i, names in layers.items() if cell.layer in (None, i)}
            noisy = nets.noisy(files.weights, cell.snr, draw.draw, chosen)
            negative = {name: value < 0 for name, value in noisy.items() if name.endswith("var")}
            noisy |= {name: np.where(below, np.float32(0), noisy[name]) for name, below in negative.items()}
            top1, top5, near = slow(noisy)
            assert abs(draw.top1_hits - top1) <= near
            assert draw.top5_hits is not None
            assert abs(draw.top5_hits - top5) <= near
            assert draw.negative_variances == sum(int(below.sum()) for below in negative.values())


@pytest.mark.parametrize(
    "options", [{"batch": 16}, {"softmax": True}, {"nhwc_uint8": True}], ids=["fixed batch", "softmax", "uint8 NHWC"]
)
def test_other_forms_of_the_network_count_the_same(options: dict[str, Any], reference: Result, tmp_path: Path) -> None:
    files = nets.bench_files(tmp_path, **options)
    if "nhwc_uint8" in options:
        (tmp_path / "tiny.toml").write_text('[input]\ndataset = "cifar10"\n')
    result = bench(files, tmp_path / "run.sqlite")
    assert result.clean == reference.clean
    assert [cell.draws for cell in result.cells] == [cell.draws for cell in reference.cells]


def test_a_class_before_the_data_s(files: nets.Files, reference: Result, tmp_path: Path) -> None:
    head = {
        "head_weight": np.concatenate([np.zeros((1, 6), np.float32), files.weights["head_weight"]]),
        "head_bias": np.concatenate([np.float32([-1e6]), files.weights["head_bias"]]),
    }
    model = graphs.saved(nets.residual({**files.weights, **head}), tmp_path, "tiny.onnx")
    (tmp_path / "tiny.toml").write_text(nets.CARD + "label_offset = 1\n")
    result = bench(replace(files, model=model), tmp_path / "run.sqlite", layers="1-4", sweeps=("single",))
    assert result.clean == reference.clean
    assert [c.draws for c in result.cells] == [c.draws for c in reference.cells if c.layer is not None and c.layer < 5]


def test_a_model_of_fewer_classes_is_benched_where_no_label_lies_beyond_them(tmp_path: Path) -> None:
    files = nets.bench_files(tmp_path)
    five = {
        **files.weights,
        "head_weight": files.weights["head_weight"][:5],
        "head_bias": files.weights["head_bias"][:5],
    }
    model = graphs.saved(nets.residual(five), tmp_path, "tiny.onnx")
    with pytest.raises(DataError, match="tells 5 classes apart, but cifar10-test has 10"):
        bench(replace(files, model=model), tmp_path / "run.sqlite")
    kept = files.labels < 5
    pixels = nets.pictures(len(files.labels))[kept]
    files.data.write_bytes(nets.records(pixels, files.labels[kept]))
    result = bench(replace(files, model=model), tmp_path / "run.sqlite", layers="dense")
    assert result.clean.images == kept.sum()
    assert result.clean.top5_hits is None
    assert {cell.normalized_top5 for cell in result.cells} == {None}


def test_a_card_of_another_network_is_named(files: nets.Files, tmp_path: Path) -> None:
    card = tmp_path / "other.toml"
    card.write_text(nets.CARD + "[structure]\nlayers = 9\nparameters = 10\n")
    result = bench(files, tmp_path / "run.sqlite", card=str(card), layers="1", sweeps=("single",))
    (notice,) = [each for each in result.warnings if each.code == "card_structure"]
    assert "9 layers and 10 parameters" in notice.message
    assert "has 5 and" in notice.message
    kernels = bench(files, tmp_path / "kernels.sqlite", card=str(card), analog="kernels", sweeps=("all",))
    assert "card_structure" not in {each.code for each in kernels.warnings}, "which leaves out layers by itself"


def test_only_what_is_missing_is_measured(files: nets.Files, reference: Result, tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    chunk = {"limit": 16, "sweeps": ("single",), "snrs": (20.0,), "draws": 1}
    steps: list[tuple[dict[str, Any], int]] = [
        (chunk, 1 + 5),
        ({**chunk, "draws": 2}, 5),
        ({**chunk, "draws": 2, "snrs": (20.0, 2.0)}, 2 * 5),
        ({**chunk, "draws": 2, "snrs": (2.0,)}, 0),
        ({**chunk, "draws": 2, "snrs": (20.0, 2.0), "sweeps": ("single", "all")}, 4),
        ({}, 1 + 4 * 6),
        ({}, 0),
        ({"limit": 20}, 0),
        ({"draws": 1, "snrs": (2.0,), "sweeps": ("all",)}, 0),
    ]
    for number, (changed, expected) in enumerate(steps):
        watcher = Counting()
        grown = bench(files, path, watcher, **changed)
        assert watcher.count == expected, changed
        fresh = bench(files, tmp_path / f"{number}.sqlite", **changed)
        assert (grown.clean, grown.cells, grown.a_avr, grown.measured) == (
            fresh.clean,
            fresh.cells,
            fresh.a_avr,
            fresh.planned,
        )
    assert bench(files, path).cells == reference.cells


@pytest.mark.parametrize("most", [3, 7, 39])
def test_chunks_change_nothing(
    most: int, files: nets.Files, reference: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Provider, "largest_chunk", most)
    watcher = Counting()
    result = bench(files, tmp_path / "run.sqlite", watcher)
    assert watcher.count == -(-40 // most) * (1 + 4 * 6)
    assert (result.clean, result.cells, result.a_avr) == (reference.clean, reference.cells, reference.a_avr)


@pytest.mark.parametrize("at", [1, 3, 5, 6, 17, 25, 26])
def test_an_interrupted_run_goes_on(
    at: int, files: nets.Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Provider, "largest_chunk", 24)
    bench(files, tmp_path / "whole.sqlite")

    def interrupt(count: int) -> None:
        if count == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench(files, tmp_path / "run.sqlite", Counting(interrupt))
    assert not list(tmp_path.glob("*-wal"))
    kept = tallies(tmp_path / "run.sqlite")
    whole = tallies(tmp_path / "whole.sqlite")
    assert len(kept) < len(whole)
    assert set(kept) <= set(whole)
    watcher = Counting()
    bench(files, tmp_path / "run.sqlite", watcher)
    assert watcher.count == len(whole) - len(kept)
    assert tallies(tmp_path / "run.sqlite") == whole


LONG = ("--snr", "20,10,5,3,2", "--draws", "30", "--layers", "1-2")


def command(files: nets.Files, out: Path) -> list[str]:
    flags = ["--data", files.data, "--out", out, *LONG]
    return [sys.executable, "-m", "onnxnoise", "bench", *map(str, [files.model, *flags])]


@pytest.fixture(scope="module")
def whole(files: nets.Files, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """The tallies of `command`, uninterrupted."""
    path = tmp_path_factory.mktemp("whole") / "run.sqlite"
    assert onnxnoise(*command(files, path)[3:]).code == 0
    return tallies(path)


def stopped(files: nets.Files, out: Path, how: signal.Signals, after: float) -> tuple[int, str]:
    """(exit code, standard error) of a run that gets a signal so many seconds after its run file has begun."""
    run = subprocess.Popen(command(files, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not out.exists() and run.poll() is None:
        time.sleep(0.005)
    time.sleep(after)
    run.send_signal(how)
    _, errors = run.communicate(timeout=60)
    return run.returncode, errors


def test_ctrl_c_keeps_what_is_done(files: nets.Files, whole: list[tuple[Any, ...]], tmp_path: Path) -> None:
    out = tmp_path / "run.sqlite"
    code, errors = stopped(files, out, signal.SIGINT, 0.1)
    assert code == 130, errors
    assert errors.splitlines()[-1].startswith("error: interrupted; ")
    assert "Traceback" not in errors
    assert [file.name for file in tmp_path.iterdir()] == ["run.sqlite"]
    assert set(tallies(out)) < set(whole)
    assert onnxnoise(*command(files, out)[3:]).code == 0
    assert tallies(out) == whole


def test_an_impossible_clean_accuracy_stops_the_run(files: nets.Files, reference: Result, tmp_path: Path) -> None:
    clean = reference.clean.top1_hits / 40
    model = tmp_path / "net.onnx"
    model.write_bytes(files.model.read_bytes())
    card = tmp_path / "net.toml"
    other, out = replace(files, model=model), tmp_path / "run.sqlite"
    card.write_text(f'{nets.CARD}[measured]\nmetric = "top1"\nclean = 0.05\n')
    with pytest.raises(DataError, match=r"87\.5% on 40 images.*5\.0%.*net\.toml.*--no-clean-check"):
        bench(other, out)
    assert not out.exists(), "a mistake in the card leaves nothing in the way of the corrected one"
    assert bench(other, out, clean_check=False).clean == reference.clean
    card.write_text(f'{nets.CARD}[measured]\nmetric = "top1"\nclean = {clean - 0.05}\n')
    assert bench(other, out).clean == reference.clean


def test_a_model_that_is_never_right_is_said(files: nets.Files, tmp_path: Path) -> None:
    data = tmp_path / "wrong.bin"
    data.write_bytes(
        nets.records(
            nets.pictures(40), (graphs.run(nets.residual(files.weights), files.inputs).argmax(axis=1) + 1) % 10
        )
    )
    result = bench(replace(files, data=data), tmp_path / "run.sqlite")
    assert result.clean.top1_hits == 0
    assert {cell.normalized_top1 for cell in result.cells} == {None}
    assert result.a_avr == ()
    assert "no_clean_hits" in [notice.code for notice in result.warnings]


def test_names_of_one_provider_are_one_provider(files: nets.Files, tmp_path: Path) -> None:
    bench(files, tmp_path / "run.sqlite", provider="cpu")
    watcher = Counting()
    assert (
        bench(files, tmp_path / "run.sqlite", watcher, provider="CPUExecutionProvider").provider
        == "CPUExecutionProvider"
    )
    assert watcher.count == 0


def test_the_card_tells_which_of_two_outputs_are_the_logits(files: nets.Files, tmp_path: Path) -> None:
    proto = onnx.load(files.model)
    wide = onnx.numpy_helper.from_array(np.ones((10, 7), np.float32), "wide")
    proto.graph.initializer.append(wide)
    proto.graph.node.append(onnx.helper.make_node("MatMul", [proto.graph.output[0].name, "wide"], ["features"]))
    proto.graph.output.insert(0, onnx.helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ["N", 7]))
    model = tmp_path / "two.onnx"
    onnx.save(proto, model)
    with pytest.raises(ModelError, match=r"several outputs could be the logits.*--output NAME"):
        open_model(str(model))
    (tmp_path / "two.toml").write_text(nets.CARD)
    assert bench(replace(files, model=model), tmp_path / "run.sqlite").clean.images == 40
    assert open_model(str(model)).network.classes == 10


def test_every_run_that_measured_a_part_is_on_record(files: nets.Files, tmp_path: Path) -> None:
    out = tmp_path / "run.sqlite"
    assert len(bench(files, out, snrs=(10.0,)).runs) == 1
    assert len(bench(files, out, snrs=(10.0,)).runs) == 1, "nothing was measured"
    grown = bench(files, out, snrs=(10.0, 5.0)).runs
    assert [run["spec"]["snrs"] for run in grown] == [[10.0], [10.0, 5.0]]  # type: ignore[index]
    assert {"command", "started", "versions", "machine"} <= set(grown[1])


def test_tallies_of_long_passes_are_kept_at_once(tmp_path: Path) -> None:
    """Workers that took minutes may end within a tenth of a second: a kill then loses none of them."""
    with opened(tmp_path / "run.sqlite") as store, runner._Keeper(store) as keeper:
        keeper._began -= 3600.0
        for draw in range(3):
            keeper.add([tally(draw=draw)])
            assert len(store.done()) == draw + 1


def test_tallies_of_quick_passes_are_kept_together_and_all_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    with opened(path) as store, runner._Keeper(store) as keeper:
        keeper._spent = 3600.0
        keeper.add([tally(draw=0)])
        keeper.add([tally(draw=1)])
        assert len(store.done()) == 1
    with RunStore.existing(path) as store:
        assert len(store.done()) == 2
