"""What the engine gains, measured: prints every figure that the documentation quotes. Needs no network; torch is optional.

    python examples/benchmark.py                                        # the bundled ResNet-20, everything
    python examples/benchmark.py --model resnet56.onnx --card resnet56.toml --data test_batch.bin sweep
    python examples/benchmark.py --model resnet50.onnx --card imagenet.toml --data imagenet/ memory

Parts (default: all): `sweep` (single sweep against the loop a user would write, in ONNX Runtime and in PyTorch), `draw`
(what a draw costs, and `all` against that loop), `bound`
(every sweep against the clean passes it can't avoid), `precision` (--precision against three draws over all images),
`certainty` (what it costs to know a cell to +-0.01 in either design),
`gate` (verdicts beside the truth, and their passes; the time of a gate),
`memory` (peak of a bench run), `growth` (resident memory over 200 chunks), `loader` (images from files against plain Pillow),
`start` (help, first result, whole bundled run), `noise` (a draw of each noise model beside a gaussian one).
Ratios come from one run, the rivals in turn. Workers and clusters:
benchmark_workers.py.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
from benchmark_bound import Subject, bound, growth, next_layer
from benchmark_certainty import certainty
from benchmark_draw import draw
from benchmark_gate import gating
from benchmark_loader import loader
from benchmark_noise import noise
from benchmark_precision import precision
from benchmark_rivals import ReloadLoop, differences, torch_loop

from onnxnoise.engine.layer_noise import in_memory
from onnxnoise.records import NoiseSetting
from onnxnoise.runtime import session

_RIVALS_BATCH = 100
"""Images in a mini-batch of the loops that a user would write: their best size or close to it, on two cores."""


_PARTS = ("sweep", "draw", "bound", "precision", "certainty", "gate", "memory", "growth", "loader", "start", "noise")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*_PARTS, []], default=[])
    parser.add_argument("--model", default="resnet20-cifar10")
    parser.add_argument("--card")
    parser.add_argument("--data")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--snr", default="10,5,2.5")
    parser.add_argument("--limit", type=int, help="images of `precision` and `certainty` (default: all)")
    parser.add_argument("--goal", type=float, default=0.01, help="half-width that `certainty` asks for")
    parser.add_argument("--draws", type=int, default=200, help="draws on 50 images each in `draw`")
    parser.add_argument("--every", type=int, default=1, help="measure every Nth layer only")
    options = parser.parse_args()
    parts = {
        "sweep": sweep,
        "draw": draw,
        "bound": bound,
        "precision": precision,
        "certainty": certainty,
        "gate": gating,
        "memory": memory,
        "growth": growth,
        "loader": loader,
        "start": start,
        "noise": noise,
    }
    for name in options.parts or _PARTS:
        parts[name](options)


def sweep(options: argparse.Namespace) -> None:
    """`single`, one draw: this engine, patch-and-reload in ONNX Runtime, in-place noise in PyTorch; hits compared."""
    subject = Subject.opened(options)
    experiment, network, labels = subject.experiment, subject.network, subject.labels
    layers, inputs, size = subject.layers, subject.inputs, len(subject.batches[0])
    snrs = [variant.level for variant in subject.variants]

    path = experiment.subject.classifier.path
    whole = [inputs[i : i + _RIVALS_BATCH] for i in range(0, len(inputs), _RIVALS_BATCH)]
    rivals: dict[str, Callable[[dict[str, Any]], Any]] = {
        "patch, reload, whole graph": ReloadLoop(path, network.image.name, whole)
    }
    for form in ("contiguous_format", "channels_last"):
        loop = torch_loop(path, whole, form)
        if loop is not None:
            rivals[f"PyTorch, in place, {form.removesuffix('_format')}"] = loop
    spent = dict.fromkeys(["this engine", *rivals], 0.0)
    differing: dict[str, list[str]] = {name: [] for name in rivals}

    with subject.chunk_sweep() as engine:
        inside = timed_runs(engine.lanes._max_workers)
        passes_by_layer = engine.single(subject.todo())
        for layer in layers:  # all in turn, layer by layer: a machine that slows down slows all of them
            began = time.perf_counter()
            tallies = next_layer(passes_by_layer, engine)
            spent["this engine"] += time.perf_counter() - began
            ours = {t.level: np.unpackbits(np.frombuffer(t.top1, np.uint8))[: len(labels)].view(bool) for t in tallies}
            noise = in_memory(layer, network.constants, NoiseSetting(seed=40, sigma_scope="tensor", bn="group"), 0)
            names = {tensor.value: tensor.name for tensor in layer.tensors}
            cells = {snr: {names[value]: array for value, array in noise.at(snr)[0].items()} for snr in snrs}
            for name, rival in rivals.items():
                began = time.perf_counter()
                logits = {snr: rival(noisy) for snr, noisy in cells.items()}
                spent[name] += time.perf_counter() - began
                for snr in snrs:
                    differing[name] += differences(ours[snr], logits[snr], labels, layer.index, snr)

    passes = len(layers) * len(snrs) * len(labels)
    print(
        f"single: {network.name}, {len(layers)} layers x {len(snrs)} SNRs x 1 draw x {len(labels)} images, batch {size}, "
        f"{experiment.provider.name}, onnxruntime {ort.__version__}"
    )
    own = spent["this engine"]
    print(
        f"  {'this engine':<32} {own:8.1f} s  {passes / own:8,.0f} images/s; outside session.run {1 - inside() / own:.1%}"
    )
    for name in rivals:
        rate, ratio = passes / spent[name], spent[name] / own
        print(f"  {name:<32} {spent[name]:8.1f} s  {rate:8,.0f} images/s; this engine is {ratio:.2f}x as fast")
        print(f"    images whose hit differs: {len(differing[name])} of {passes:,}")
        for each in differing[name][:20]:
            print(f"    {each}")


def timed_runs(lanes: int) -> Callable[[], float]:
    """Count the seconds in `session.run`, of lanes that run side by side, from now on; the returned function tells them."""
    inside = 0.0
    plain = session.Session.run

    def run(self: session.Session, *values: Any) -> Any:
        nonlocal inside
        began = time.perf_counter()
        made = plain(self, *values)
        inside += (time.perf_counter() - began) / lanes
        return made

    session.Session.run = run  # type: ignore[method-assign]
    return lambda: inside


def memory(options: argparse.Namespace) -> None:
    """Peak resident memory of a bench run at the default chunk size, in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable,
            "-m",
            "onnxnoise",
            "bench",
            options.model,
            "--sweep",
            "single",
            "--snr",
            "10",
            "--draws",
            "1",
        ]
        for flag in ("card", "data"):
            command += [f"--{flag}", getattr(options, flag)] if getattr(options, flag) else []
        command += ["--limit", str(options.images), "--no-clean-check", "--out", f"{scratch}/run.sqlite", "-q"]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        print(f"memory: {options.model}, single: peak {peak:.2f} GiB, {time.perf_counter() - began:.0f} s")


def start(_: argparse.Namespace) -> None:
    """How long a person waits: for the help, for the bundled run's first result, and for its end."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "onnxnoise", "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    print(f"onnxnoise --help: median {sorted(times)[2]:.2f} s")
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "onnxnoise", "bench", "resnet20-cifar10", "--out", f"{scratch}/run.sqlite"]
        began = time.perf_counter()
        first = None
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "of clean" in line and first is None:
                    first = time.perf_counter() - began
        print(
            f"bench resnet20-cifar10: first noisy result after {first:.1f} s, done after {time.perf_counter() - began:.0f} s"
        )
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        print(f"the same command again: {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
