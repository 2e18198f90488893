"""The first pass over a model: a node that never ends is named, Ctrl-C is heard meanwhile, and a fixed batch has to fit."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from threading import Thread

import numpy as np
import onnx
import pytest
from support import nets
from support.command import onnxnoise, refused

from onnxnoise.engine.sweep import ChunkSweep
from onnxnoise.errors import UsageError
from onnxnoise.records import NoiseSetting
from onnxnoise.run import probing
from onnxnoise.run.loading import open_model
from onnxnoise.runtime.attended import is_running
from onnxnoise.runtime.providers import find_provider
from onnxnoise.spec import BenchSpec

SMALL = ("--snr", "10", "--sweep", "all", "--draws", "1", "--no-clean-check", "--out", "run.sqlite")
BODY = "b (int64 i, bool on, float[N, 6, 4, 4] v) => (bool go, float[N, 6, 4, 4] w) { w = Relu(v)  go = Identity(on) }"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probing, "_passed", set())
    return tmp_path


def looping(steps: int | None) -> nets.Files:
    """The bench of a network with a Loop for its first Relu, of so many steps; None: none for a black image, else 2^60 or so."""
    files = nets.bench_files(Path.cwd())
    model = onnx.load(files.model)
    at, relu = next((i, node) for i, node in enumerate(model.graph.node) if node.op_type == "Relu")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "on"))
    if steps is None:
        counting = "g (float[N, 3, 32, 32] image) => (int64 trips) { top = ReduceMax<keepdims = 0>(image)  far = Constant<value_float = 1e18>()  f = Mul(top, far)  trips = Cast<to = 7>(f) }"
        for node in reversed(onnx.parser.parse_graph(counting).node):
            model.graph.node.insert(at, node)
    else:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(steps), "trips"))
    body = onnx.parser.parse_graph(BODY)
    relu.CopyFrom(
        onnx.helper.make_node("Loop", ["trips", "on", relu.input[0]], list(relu.output), name="/on/and/on", body=body)
    )
    files.model.write_bytes(model.SerializeToString())
    return files


def interrupted_inside(seconds: float = 0.3) -> Thread:
    """Sends Ctrl-C so many seconds after ONNX Runtime was first seen at work."""

    def send() -> None:
        while not is_running():
            time.sleep(0.01)
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGINT)

    thread = Thread(target=send, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("steps", [2**62, None])
def test_a_node_that_never_ends_is_named(steps: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only a real image, not a black one, keeps it going."""
    monkeypatch.setattr("onnxnoise.model.classifier.refuse_mixing", lambda _: None)
    files = looping(steps)
    began = time.monotonic()
    outcome = onnxnoise("bench", files.model, "--data", files.data, *SMALL, "--timeout", "1s")
    refused(outcome, 3, "not done after 1 s", "/on/and/on (Loop)", "--timeout")
    assert time.monotonic() - began < 30
    assert not Path("run.sqlite").exists()


def test_ctrl_c_is_heard_meanwhile() -> None:
    files = looping(2**62)
    thread = interrupted_inside()
    began = time.monotonic()
    assert onnxnoise("bench", files.model, "--data", files.data, *SMALL).code == 130
    assert time.monotonic() - began < 30
    thread.join()
    assert not is_running()


def test_a_sweep_that_is_broken_off_ends_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxnoise.model.classifier.refuse_mixing", lambda _: None)
    files = looping(None)
    network = open_model(str(files.model)).network
    batches = [files.inputs[:8], files.inputs[8:16]]
    sweep = ChunkSweep(network, NoiseSetting(), find_provider("cpu"), batches, files.labels[:16], 0)
    thread = interrupted_inside()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), sweep:
        sweep.clean()
    assert time.monotonic() - began < 30
    thread.join()
    assert not is_running()


@pytest.mark.parametrize(("batch", "more"), [(10**6, ()), (2**31, ()), (5000, ("--memory", "100MB"))])
def test_a_fixed_batch_that_does_not_fit_is_refused_before_it_is_made(batch: int, more: tuple[str, ...]) -> None:
    files = nets.bench_files(Path.cwd())
    model = onnx.load(files.model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    files.model.write_bytes(model.SerializeToString())
    outcome = onnxnoise("bench", files.model, "--data", files.data, *SMALL, *more)
    refused(outcome, 3, "tiny.onnx", f"fixed at {batch:,} images", "GiB", "--memory")
    assert not Path("run.sqlite").exists()


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_limit_on_time_is_positive(seconds: float) -> None:
    with pytest.raises(UsageError, match="--timeout"):
        BenchSpec("m", timeout=seconds)
