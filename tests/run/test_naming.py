"""The usual names of run files: what one file can't hold has different names, what it can has one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import nets
from support.command import onnxnoise

from onnxnoise.run.experiment import Experiment
from onnxnoise.run.naming import run_path, usual_name
from onnxnoise.spec import BenchSpec


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    nets.bench_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def named(**changed: object) -> str:
    return usual_name(Experiment.opened(replace(BenchSpec("tiny.onnx", data="test_batch.bin", draws=3), **changed)))


def test_names_differ_where_files_must(folder: Path) -> None:
    Path("other.bin").write_bytes(Path("test_batch.bin").read_bytes()[3073:])
    Path("other.toml").write_text(nets.CARD + "mean = [0.5, 0.5, 0.4]\n")
    usual = named()
    assert re.fullmatch(r"tiny-cifar10-test-[0-9a-f]{8}\.sqlite", usual)
    others = {
        "affine": named(bn="affine"),
        "sigma-layer": named(sigma_scope="layer"),
        "seed-7": named(seed=7),
        "layers-1-3": named(layers="1-3"),
        "relative": named(noise="relative"),
        "relative-channel-all": named(noise="relative", scale="channel", analog="all"),
        "kernels": named(analog="kernels"),
        "chunks": named(draws=None),
    }
    for part, name in others.items():
        assert re.fullmatch(rf"tiny-cifar10-test-{part}-[0-9a-f]{{8}}\.sqlite", name), name
    others |= {"images": named(draws=None, limit=8), "data": named(data="other.bin"), "card": named(card="other.toml")}
    assert len({usual, *others.values()}) == len(others) + 1
    assert named(draws=9, snrs=(3.0,), sweeps=("all",), limit=8, metric="top5", target=0.5) == usual
    assert named(draws=None, precision=0.1, max_draws=9, snrs=(3.0,), sweeps=("all",)) == others["chunks"]
    assert len(named(layers="1,3,5", seed=10**30, noise="relative", bn="clean", sigma_scope="layer").encode()) < 120


def test_a_folder_is_for_the_usual_name_alone(folder: Path) -> None:
    experiment = Experiment.opened(BenchSpec("tiny.onnx", data="test_batch.bin"))
    assert run_path(experiment, Path("there")) == Path("there") / usual_name(experiment)
    out = replace(experiment, spec=replace(experiment.spec, out="x/own.sqlite"))
    assert run_path(out, Path("there")) == Path("x/own.sqlite")


def test_what_the_tool_advises_can_be_typed_after_the_run_that_advises_it(folder: Path) -> None:
    command = ("bench", "tiny.onnx", "--data", "test_batch.bin", "--snr", "1", "--draws", "2", "--sweep", "all")
    for more in ((), ("--bn", "affine"), ("--seed", "7"), ("--layers", "dense"), ("--precision", "0.5")):
        outcome = onnxnoise(*(command if "--precision" not in more else command[:6] + command[8:]), *more)
        assert outcome.code == 0, outcome.err
    assert len(list(folder.glob("tiny-*.sqlite"))) == 5
    again = onnxnoise(*command)
    assert "complete: nothing is left" in again.err


def test_folders_of_run_files_are_made(folder: Path) -> None:
    command = ("tiny.onnx", "--data", "test_batch.bin", "--snr", "10", "--draws", "2", "--sweep", "all")
    assert onnxnoise("bench", *command, "--out", "new/deeper/run.sqlite").code == 0
    assert Path("new/deeper/run.sqlite").is_file()
    Path("rival.onnx").write_bytes(nets.residual(nets.weights()).SerializeToString())
    Path("rival.toml").write_text(Path("tiny.toml").read_text())
    outcome = onnxnoise("compare", "rival.onnx", *command, "--out", "runs/all")
    assert outcome.code == 0, outcome.err
    assert sorted(path.name.split("-")[0] for path in Path("runs/all").iterdir()) == ["rival", "tiny"]
