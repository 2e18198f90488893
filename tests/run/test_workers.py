"""Whoever measures, the tallies are the same; workers that die cost nothing but time."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import nets, processes
from support.command import onnxnoise, refused

from onnxnoise.errors import DataError, ModelError, ProviderError, UsageError
from onnxnoise.machine import cores
from onnxnoise.noise.gaussian import SNR
from onnxnoise.records import Tally, TallyKey
from onnxnoise.run import runner
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.jobs import Job, measure
from onnxnoise.run.watching import Silent
from onnxnoise.run.workers import worker
from onnxnoise.run.workers.base import ExecutorWorkers, divided
from onnxnoise.run.workers.processes import _devices, worker_processes
from onnxnoise.run.workers.worker import Order, perform
from onnxnoise.runtime import cuda
from onnxnoise.runtime.base import CudaProvider
from onnxnoise.spec import BenchSpec

SPEC = BenchSpec("", snrs=(20.0, 2.0), draws=3, sweeps=("single", "cumulative", "all"), memory=2_000_000)
FLAGS = ("--snr", "20,2", "--draws", "3")
INF = float("inf")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("workers"))


def spec(files: nets.Files, out: Path, **changed: Any) -> BenchSpec:
    return replace(SPEC, model=str(files.model), data=str(files.data), out=str(out), **changed)


@pytest.fixture(scope="module")
def whole(files: nets.Files, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """The tallies that this process measures alone: 5 chunks of 8 images."""
    path = tmp_path_factory.mktemp("whole") / "run.sqlite"
    runner.bench(spec(files, path))
    tallies = processes.tallies(path)
    assert len(tallies) == 5 * (1 + 6 * (5 + 5 + 1))
    return tallies


def keys(start: int, layers: int, draws: int) -> tuple[TallyKey, ...]:
    variants = [(snr, draw) for draw in range(draws) for snr in (10.0, 5.0)]
    made: list[TallyKey] = [("clean", None, INF, 0, start)]
    made += [("all", None, *variant, start) for variant in variants]
    made += [("single", layer, *variant, start) for layer in range(1, layers + 1) for variant in variants]
    return (*made, *(("cumulative", layer, *variant, start) for layer in range(1, layers + 1) for variant in variants))


@pytest.mark.parametrize("workers", [1, 2, 8, 1000])
@pytest.mark.parametrize(("chunks", "layers", "draws"), [(1, 1, 1), (1, 40, 3), (7, 3, 2), (3, 113, 10)])
def test_jobs_are_divided_without_loss(chunks: int, layers: int, draws: int, workers: int) -> None:
    jobs = [Job(range(8 * i, 8 * i + 8), keys(8 * i, layers, draws)) for i in range(chunks)]
    pieces = divided(jobs, layers, workers, SNR.order)
    assert pieces[0] == Job(jobs[0].chunk, (jobs[0].keys[0],)), "the clean pass comes first, alone"
    assert sorted(str(key) for piece in pieces for key in piece.keys) == sorted(
        str(key) for job in jobs for key in job.keys
    )
    assert all(key[4] == piece.chunk.start for piece in pieces for key in piece.keys)

    def passes(piece: Job) -> float:
        return sum(1.0 if layer is None else (layers + 1 - layer) / layers for _, layer, *_ in piece.keys)

    costs = [passes(piece) for piece in pieces]
    assert max(costs) < 66
    assert max(costs) <= max(2.0, sum(costs) / (4 * workers) + 1)
    if sum(costs) > 4 * workers * 2:
        assert len(pieces) >= 4 * workers
    assert min(costs[1:], default=9) > 0.2 * max(costs) or chunks > 1 or max(costs) <= 2


def test_a_cumulative_sweep_is_divided_between_variants() -> None:
    job = Job(range(8), tuple(key for key in keys(0, 50, 4) if key[0] == "cumulative"))
    pieces = divided([job], 50, 2, SNR.order)
    assert len(pieces) == 8
    assert {len(piece.keys) for piece in pieces} == {50}
    assert all(len({key[2:4] for key in piece.keys}) == 1 for piece in pieces)


def test_any_executor_will_do(files: nets.Files, whole: list[tuple[Any, ...]], tmp_path: Path) -> None:
    spawned = multiprocessing.get_context("forkserver")
    executors: list[Executor] = [ThreadPoolExecutor(3), ProcessPoolExecutor(2, spawned)]
    for number, executor in enumerate(executors):
        seen: list[Tally] = []

        class Watching(Silent):
            def measured(self, tally: Tally) -> None:
                seen.append(tally)  # noqa: B023

        out = tmp_path / f"{number}.sqlite"
        with executor:
            result = runner.bench(spec(files, out), Watching(), executor=executor)
            assert executor.submit(abs, -1).result() == 1, "it stays open"
        assert processes.tallies(out) == whole
        assert len(seen) == len(whole)
        assert "measured_by" in result.runs[0]
        assert type(executor).__name__ in str(result.runs[0]["measured_by"])


def test_images_are_decoded_ahead_and_jobs_taken_one_ahead(files: nets.Files, tmp_path: Path) -> None:
    experiment = Experiment.opened(spec(files, tmp_path / "run.sqlite"))
    taken: list[int] = []

    def jobs() -> Any:
        for start in range(0, 40, 8):
            taken.append(start)
            yield Job(range(start, start + 8), (("clean", None, INF, 0, start),))

    for number, part in enumerate(measure(experiment, jobs(), lambda _: None)):
        assert part.start == 8 * number
        assert len(taken) == min(number + 2, 5)


def test_workers_share_a_run(files: nets.Files, tmp_path: Path) -> None:
    """Two processes, of which one is killed on the way; each has half of the memory, so the chunks are the same."""
    out = tmp_path / "run.sqlite"
    long = (*FLAGS, "--draws", "20", "--layers", "1-4")
    run = processes.started(processes.arguments(files, out, *long, "--workers", "2", "--memory", "4MB"))
    processes.until(lambda: processes.count(out) > 5)
    before = processes.children(run.pid)
    assert len(before) == 2
    processes.kill(before[0])
    code, printed, errors = processes.ended(run)
    assert code == 0, errors
    assert "Traceback" not in errors
    assert not any(processes.alive(pid) for pid in before)
    alone = onnxnoise(*processes.arguments(files, tmp_path / "alone.sqlite", *long))
    assert (alone.code, alone.out) == (0, printed)
    assert processes.tallies(out) == processes.tallies(tmp_path / "alone.sqlite")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_run(how: signal.Signals, files: nets.Files, tmp_path: Path) -> None:
    out = tmp_path / "run.sqlite"
    arguments = processes.arguments(files, out, *FLAGS, "--draws", "200", "--workers", "2")
    run = processes.started(arguments, start_new_session=True)
    processes.until(lambda: processes.count(out) > 1)
    workers = processes.children(run.pid)
    if how == signal.SIGINT:
        os.killpg(run.pid, how)  # as a terminal does: to all of them
    else:
        run.send_signal(how)
    code, printed, errors = processes.ended(run)
    if how == signal.SIGINT:
        assert (code, printed) == (130, ""), errors
        assert errors.splitlines()[-1].startswith("error: interrupted; what was measured is kept in ")
        assert "Traceback" not in errors
    processes.until(lambda: not any(processes.alive(pid) for pid in workers))
    assert processes.count(out) > 1


def die(*_: object) -> Any:
    os._exit(1)


def test_workers_that_always_die_are_given_up(files: nets.Files, tmp_path: Path) -> None:
    experiment = Experiment.opened(spec(files, tmp_path / "run.sqlite"))
    started: list[Executor] = []

    def start() -> Executor:
        started.append(ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")))
        return started[-1]

    workers = ExecutorWorkers(experiment, start, lambda: 1, "mortals", perform=die)
    with pytest.raises(ProviderError, match=r"died 3 times.*is kept: try fewer --workers"):
        list(workers.measure(workers.divided([Job(range(8), keys(0, 2, 1))]), lambda _: None))
    assert len(started) == 3


def test_a_clean_accuracy_that_can_t_be_stops_all_workers(files: nets.Files, tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    model.write_bytes(files.model.read_bytes())
    (tmp_path / "net.toml").write_text(f'{nets.CARD}[measured]\nmetric = "top1"\nclean = 0.05\n')
    out, seen = tmp_path / "run.sqlite", []

    class Watching(Silent):
        def measured(self, tally: Tally) -> None:
            seen.append(tally.sweep)

    with ThreadPoolExecutor(4) as executor, pytest.raises(DataError, match=r"net\.toml"):
        runner.bench(replace(spec(files, out), model=str(model)), Watching(), executor=executor)
    assert seen == ["clean"], "no noise was measured for nothing"
    assert not out.exists()


def test_a_worker_opens_a_run_once_and_checks_that_it_is_the_same(files: nets.Files, tmp_path: Path) -> None:
    here = nets.bench_files(tmp_path)
    order = Order.of(Experiment.opened(spec(here, tmp_path / "run.sqlite")))
    assert order == Order.of(Experiment.opened(spec(here, tmp_path / "other.sqlite"))), (
        "the run file is the parent's alone"
    )
    assert worker.opened(order) is worker.opened(order)
    job = Job(range(8), (("clean", None, INF, 0, 0),))
    (part,) = perform(order, job)
    assert part.start == 0
    here.data.write_bytes(nets.records(nets.pictures(40, seed=9), here.labels))
    assert perform(order, job) == [part], "it has opened the old ones"
    worker._opened.clear()
    with pytest.raises(DataError, match=rf"{here.data}: the data of this worker is not the run's.*same files"):
        perform(order, job)
    other = nets.residual({**here.weights, "head_bias": here.weights["head_bias"] + 1})
    here.model.write_bytes(other.SerializeToString())
    with pytest.raises(ModelError, match=f"{here.model}: the model of this worker is not the run's"):
        perform(order, job)
    here.model.unlink()
    with pytest.raises(ModelError, match=r"on .*: .*tiny\.onnx: no such file"):
        perform(replace(order, host="another"), job)
    with pytest.raises(UsageError, match=r"0\.0\.1 hands out the work; install the same"):
        perform(replace(order, release="0.0.1"), job)


def test_a_worker_with_another_card_says_so(files: nets.Files, tmp_path: Path) -> None:
    order = Order.of(Experiment.opened(spec(files, tmp_path / "run.sqlite")))
    asked = json.loads(order.identity)
    asked["preprocessing"]["scale"] = 127.5
    with pytest.raises(DataError, match=r"the preprocessing scale of this worker.*255.* there, 127\.5 wanted"):
        perform(replace(order, identity=json.dumps(asked)), Job(range(8), keys(0, 1, 1)))


def test_cores_and_memory_are_shared(files: nets.Files, tmp_path: Path) -> None:
    experiment = Experiment.opened(spec(files, tmp_path / "run.sqlite", memory=8_000_000))
    with worker_processes(experiment, 4) as workers:
        assert (
            workers.chunk_size()
            == replace(experiment, spec=replace(experiment.spec, memory=2_000_000)).chunk_size()
            < 40
        )
        assert workers._perform.keywords == {"threads": max(1, cores().threads // 4)}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("visible", "devices"),
    [(None, ["0", "1", "2"]), ("3,1,0", ["3", "1", "0"]), ("GPU-a, GPU-b,GPU-c", ["GPU-a", "GPU-b", "GPU-c"])],
)
def test_each_worker_has_a_device_of_its_own(
    visible: str | None, devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = tuple(cuda.Gpu(f"gpu {i}", 1 << 30, "9.0") for i in range(3))
    monkeypatch.setattr(cuda, "driver", lambda: cuda.Driver("1", (12, 0), 0, gpus))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert _devices(CudaProvider(), 2) == devices[:2]
    assert _devices(CudaProvider(), 3) == devices
    with pytest.raises(UsageError, match=r"--workers 4: 3 CUDA devices are visible.*use --workers 3"):
        _devices(CudaProvider(), 4)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--workers", "0"), ["--workers", "0", "from 1"]),
        (("--workers", "two"), ["--workers", "'two'", "whole number"]),
        (("--workers", "2", "--cluster", "tcp://x:1"), ["--workers", "--cluster", "leave out one"]),
        (("--cluster-resources", "GPU=1"), ["--cluster-resources", "--cluster"]),
        (("--cluster", "tcp://x:1", "--cluster-resources", "GPU"), ["--cluster-resources", "'GPU'", "GPU=1"]),
        (("--shard", "3"), ["--shard", "'3'", "3/8"]),
        (("--shard", "9/8"), ["--shard", "9/8", "1/N to N/N"]),
        (("--shard", "0/8"), ["--shard", "0/8"]),
        (("--shard", "1/8", "--json", "-"), ["--json", "shard", "merged"]),
    ],
)
def test_flags_that_can_t_be_meant(flags: tuple[str, ...], words: list[str]) -> None:
    refused(onnxnoise("bench", "m", *flags), 2, *words)
