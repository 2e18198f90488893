"""The training example on a handful of random images: it counts, goes on after a kill, and refuses what is no network."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
MISSING = [module for module in ("torch", "onnx", "PIL") if find_spec(module) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not in the test extra: it is gigabytes")
QUICK = ("--model", "resnet18-slim-cifar10", "--epochs", "3", "--batch", "16")
KILLED = """
import os, sys
import train_cifar10 as example
saved = example.Training.save
def save(training, path):
    saved(training, path)
    if training.epoch == 2:
        os._exit(9)
example.Training.save = save
example.main()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("cifar"), np.random.default_rng(40)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        records = rng.integers(0, 256, (8, 3073), np.uint8)
        records[:, 0] %= 10
        records.tofile(folder / f"{name}.bin")
    return folder


def python(*argv: object, where: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=where,
        env={"PYTHONPATH": str(EXAMPLES), "OMP_NUM_THREADS": "1"},
    )


def trained(data: Path, out: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return python(EXAMPLES / "train_cifar10.py", *QUICK, "--data", data, "--out", out, *more, where=out.parent)


def test_every_network_has_the_layers_and_parameters_of_its_card(tmp_path: Path) -> None:
    code = "import train_cifar10 as t\nfor n in t.NETWORKS.values(): t.counted(n.make(), n)\nprint(len(t.NETWORKS))"
    done = python("-c", code, where=tmp_path)
    assert (done.stdout, done.returncode) == ("10\n", 0), done.stderr


def test_a_killed_training_goes_on_to_the_same_file(data: Path, tmp_path: Path) -> None:
    straight = trained(data, tmp_path / "straight.onnx", "--target", 0)
    assert straight.returncode == 0, straight.stderr
    flags = (*QUICK, "--data", data, "--out", tmp_path / "killed.onnx", "--target", 0)
    assert python("-c", KILLED, *flags, where=tmp_path).returncode == 9
    assert not (tmp_path / "killed.onnx").exists()
    resumed = trained(data, tmp_path / "killed.onnx", "--target", 0)
    assert "2 of 3 epochs are done" in resumed.stdout
    assert (tmp_path / "killed.onnx").read_bytes() == (tmp_path / "straight.onnx").read_bytes()


def test_what_falls_short_of_its_target_is_refused_and_no_file_is_left(data: Path, tmp_path: Path) -> None:
    for _ in range(2):  # the second finds all epochs done
        done = trained(data, tmp_path / "net.onnx")
        assert done.returncode == 1
        assert "of 8 test images right" in done.stderr
        assert "the target is 84%: no file is written" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["net.checkpoint"]


def test_a_checkpoint_of_other_settings_or_damaged_is_refused(data: Path, tmp_path: Path) -> None:
    trained(data, tmp_path / "net.onnx")
    done = trained(data, tmp_path / "net.onnx", "--seed", 41)
    assert (done.returncode, "is of other settings" in done.stderr) == (1, True), done.stderr
    checkpoint = tmp_path / "net.checkpoint"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    done = trained(data, tmp_path / "net.onnx")
    assert (done.returncode, "can't be read as a checkpoint" in done.stderr) == (1, True), done.stderr


def test_a_training_that_diverged_says_in_which_epoch(data: Path, tmp_path: Path) -> None:
    code = (
        "import dataclasses, math, train_cifar10 as t\n"
        "t.NETWORKS['resnet18-slim-cifar10'] = dataclasses.replace(t.NETWORKS['resnet18-slim-cifar10'], rate=math.inf)\n"
        "t.main()"
    )
    done = python("-c", code, *QUICK, "--data", data, "--out", tmp_path / "net.onnx", where=tmp_path)
    assert (done.returncode, "diverged in epoch" in done.stderr) == (1, True), done.stderr


def test_data_that_is_not_cifar10(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tgz").write_text("no archive")
    for name in ("empty", "text.tgz", "missing"):
        done = trained(tmp_path / name, tmp_path / "net.onnx")
        assert (done.returncode, f"{name} can't be read as CIFAR-10" in done.stderr) == (1, True), done.stderr
