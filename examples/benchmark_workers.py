"""What more workers gain, and what handing out work costs, measured. Needs onnxnoise[cluster], no network, no GPU.

    python examples/benchmark_workers.py                                # the bundled ResNet-20, everything
    python examples/benchmark_workers.py --model resnet56.onnx --card resnet56.toml --data test_batch.bin workers

Parts (default: all): `workers` (two processes of one thread against one), `cluster` (what Dask adds to each chunk, with a
scheduler and a worker on this machine), `resume` (the same command once everything is measured).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from onnxnoise.records import TallyKey
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.jobs import Job
from onnxnoise.run.schedules import CLEAN
from onnxnoise.run.workers.base import Workers
from onnxnoise.run.workers.dask import dask_workers
from onnxnoise.run.workers.processes import worker_processes
from onnxnoise.run.workers.worker import Order, perform
from onnxnoise.spec import BenchSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts: dict[str, Callable[[BenchSpec, int], None]] = {"workers": workers, "cluster": dask, "resume": resume}
    parser.add_argument("parts", nargs="*", choices=[*parts, []], default=[])
    parser.add_argument("--model", default="resnet20-cifar10")
    parser.add_argument("--card")
    parser.add_argument("--data")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    spec = BenchSpec(options.model, options.card, options.data, draws=1, limit=options.images)
    for part in options.parts or parts:
        parts[part](spec, options.repeat)


def workers(spec: BenchSpec, repeat: int) -> None:
    """The sweeps `single` and `all` on one chunk by one worker and by two, in turn; each has one thread."""
    experiment = Experiment.opened(spec)
    jobs = [Job(range(experiment.count), (clean(0), *noisy(experiment, spec)))]
    spent: dict[int, list[float]] = {1: [], 2: []}
    with worker_processes(experiment, 1, threads=1) as one, worker_processes(experiment, 2, threads=1) as two:
        for _ in range(repeat):
            for number, workers in ((1, one), (2, two)):
                measured(workers, [Job(jobs[0].chunk, (clean(0),))] * 4)  # all processes have opened everything
                began = time.perf_counter()
                measured(workers, workers.divided(jobs))
                spent[number].append(time.perf_counter() - began)
    alone, both = (min(spent[number]) for number in (1, 2))
    print(
        f"workers: {experiment.subject.network.name}, {experiment.count} images, {len(jobs[0].keys)} passes, best of {repeat}"
    )
    print(f"  one worker, one thread {alone:6.2f} s; two workers {both:6.2f} s: {alone / both:.2f}x as fast")


def dask(spec: BenchSpec, repeat: int) -> None:
    """Clean passes over small chunks: their time by a Dask worker, less their time in this process."""
    experiment = Experiment.opened(spec)
    jobs = [Job(range(i, i + 10), (clean(i),)) for i in range(0, experiment.count, 10)]
    order = Order.of(experiment)
    perform(order, jobs[0], threads=1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scheduler.json"
        command = [sys.executable, "-m", "dask"]
        here = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
        own = ["--nthreads", "1", "--no-nanny", "--memory-limit", "0"]
        started = [
            subprocess.Popen([*command, *arguments, *here], stderr=subprocess.DEVNULL)
            for arguments in (["scheduler", "--port", "0"], ["worker", *own])
        ]
        try:
            while not file.exists():
                time.sleep(0.1)
            time.sleep(1)
            address = json.loads(file.read_text())["address"]
            with dask_workers(
                BenchSpec(spec.model, spec.card, spec.data, limit=spec.limit, cluster=address)
            ) as workers:
                measured(workers, jobs[:2])
                added = []
                for _ in range(repeat):
                    began = time.perf_counter()
                    for job in jobs:
                        perform(order, job, threads=1)
                    between = time.perf_counter()
                    measured(workers, jobs)
                    added.append((time.perf_counter() - between - (between - began)) / len(jobs))
        finally:
            for process in started:
                process.kill()
                process.wait()
    print(f"cluster: {len(jobs)} chunks; Dask adds {1000 * min(added):.1f} ms to each, best of {repeat}")


def resume(spec: BenchSpec, repeat: int) -> None:
    """The whole command, with nothing left to measure."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [f"--{name}={value}" for name, value in (("card", spec.card), ("data", spec.data)) if value is not None]
        limit = ["--limit", str(spec.limit), "--draws", "1", "--out", f"{folder}/run.sqlite", "-q"]
        command = [sys.executable, "-m", "onnxnoise", "bench", spec.model, *flags, *limit]
        spent = []
        for _ in range(repeat + 1):
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            spent.append(time.perf_counter() - began)
    print(f"resume: {spent[0]:.1f} s to measure, {min(spent[1:]):.2f} s once everything is there, best of {repeat}")


def clean(start: int) -> TallyKey:
    return (*CLEAN, start)


def noisy(experiment: Experiment, spec: BenchSpec) -> list[TallyKey]:
    layers = [layer.index for layer in experiment.subject.layers]
    return [("all", None, snr, 0, 0) for snr in spec.swept] + [
        ("single", layer, snr, 0, 0) for layer in layers for snr in spec.swept
    ]


def measured(workers: Workers, jobs: list[Job]) -> None:
    for _ in workers.measure(iter(jobs), lambda _: None):
        pass


if __name__ == "__main__":
    main()
