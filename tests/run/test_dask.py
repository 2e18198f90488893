"""A run on a Dask cluster of real processes counts the same, whatever happens to its workers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import nets, processes
from support.command import onnxnoise, refused

from onnxnoise.errors import ModelError, ProviderError
from onnxnoise.records import Tally
from onnxnoise.run import runner
from onnxnoise.run.opening import Run
from onnxnoise.run.watching import Silent
from onnxnoise.run.workers import dask
from onnxnoise.spec import BenchSpec

LIMITS = {"memory": 2_000_000, "snrs": (20.0, 2.0)}
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


class Cluster:
    """A scheduler on this machine and its workers, by name."""

    def __init__(self, folder: Path) -> None:
        self.file, self.folder = folder / "scheduler.json", folder
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.scheduler = self._dask("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        processes.until(lambda: self.file.exists() and self.file.read_text().endswith("}"))
        self.address = __import__("json").loads(self.file.read_text())["address"]

    def _dask(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *arguments, "--scheduler-file", str(self.file)]
        return subprocess.Popen(command, cwd=self.folder, **QUIET)  # type: ignore[call-overload, no-any-return]

    def hire(self, name: str) -> None:
        """Start a worker of one thread with one thing called CHIP, a single process."""
        own = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0", "--name", name)
        self.workers[name] = self._dask("worker", *own, "--resources", "CHIP=1", "--host", "127.0.0.1")

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.workers.values(), self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as own:
        own.hire("first")
        own.hire("second")
        yield own


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("files"))


def spec(files: nets.Files, out: Path, address: str | None = None, **changed: Any) -> BenchSpec:
    asked = BenchSpec(str(files.model), data=str(files.data), out=str(out), draws=20, cluster=address, **LIMITS)  # type: ignore[arg-type]
    return replace(asked, **changed)


@pytest.fixture(scope="module")
def whole(files: nets.Files, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    path = tmp_path_factory.mktemp("whole") / "run.sqlite"
    runner.bench(spec(files, path))
    return processes.tallies(path)


class At(Silent):
    """Does something once so many tallies are measured."""

    def __init__(self, count: int, action: Any) -> None:
        self.left, self.action = count, action

    def measured(self, tally: Tally) -> None:
        self.left -= 1
        if self.left == 0:
            self.action()


def test_workers_elsewhere_count_the_same(
    cluster: Cluster, files: nets.Files, whole: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths that are relative here, a resource, an interruption, and a worker that dies on the way."""
    monkeypatch.chdir(files.model.parent)
    out = tmp_path / "run.sqlite"
    asked = spec(files, out, cluster.address, model="tiny.onnx", data="test_batch.bin", resources=(("CHIP", 1.0),))

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.bench(asked, At(100, interrupt))
    assert 0 < len(processes.tallies(out)) < len(whole)
    cluster.hire("third")
    killing = At(200, cluster.workers["first"].kill)
    result = runner.bench(asked, killing)
    assert killing.left < 0
    assert processes.tallies(out) == whole
    assert "Dask workers" in str(result.runs[-1]["measured_by"])
    assert result.provider == "CPUExecutionProvider"


def test_the_command_line_s_way(
    cluster: Cluster, files: nets.Files, whole: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    out = tmp_path / "run.sqlite"
    flags = ("--snr", "20,2", "--draws", "20", "--cluster", cluster.address, "--cluster-resources", "CHIP=1")
    code, printed, errors = processes.ended(processes.started(processes.arguments(files, out, *flags)))
    assert (code, "accuracy / clean" in printed) == (0, True), errors
    assert [line for line in errors.splitlines() if "distributed" in line or "Traceback" in line] == []
    assert processes.tallies(out) == whole


def test_a_worker_with_other_files_says_so(cluster: Cluster, tmp_path: Path) -> None:
    here = nets.bench_files(tmp_path)
    spoiled = nets.residual({**here.weights, "head_bias": here.weights["head_bias"] + 1}).SerializeToString()

    class Spoiling(Silent):
        def started(self, run: Run) -> None:
            here.model.write_bytes(spoiled)

    with pytest.raises(ModelError, match="the model of this worker is not the run's"):
        runner.bench(spec(here, tmp_path / "run.sqlite", cluster.address), Spoiling())


def test_a_cluster_soon_forgets_who_has_gone(cluster: Cluster, files: nets.Files, tmp_path: Path) -> None:
    """A run that was killed leaves no work behind that nobody waits for."""
    out = tmp_path / "run.sqlite"
    flags = ("--snr", "20,2", "--draws", "300", "--cluster", cluster.address)
    run = processes.started(processes.arguments(files, out, *flags))
    processes.until(lambda: processes.count(out) > 1)
    processes.kill(run.pid)
    processes.ended(run)
    import distributed

    with distributed.Client(cluster.address, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        processes.until(lambda: not any(client.processing().values()))


def test_nobody_there_is_said(
    cluster: Cluster, files: nets.Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask, "_CONNECT", 0.5)
    monkeypatch.setattr(dask, "_NOBODY", 0.5)
    arguments = processes.arguments(files, tmp_path / "run.sqlite", "--cluster")
    refused(onnxnoise(*arguments, "tcp://127.0.0.1:9"), 4, "--cluster", "no Dask scheduler", "dask worker")
    refused(onnxnoise(*arguments, "nonsense://x"), 4, "--cluster", "no Dask scheduler", "nonsense://x")
    wanting = spec(files, tmp_path / "run.sqlite", cluster.address, resources=(("GPU", 1.0),))
    with pytest.raises(ProviderError, match=r"takes a task with GPU=1; start workers with `--resources 'GPU=1'`"):
        runner.bench(wanting)
    with Cluster(tmp_path) as empty:
        refused(onnxnoise(*arguments, empty.address), 4, "has no workers", "start some")
    assert not (tmp_path / "run.sqlite").exists()
