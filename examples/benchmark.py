"""What the engine gains, measured: prints every figure that the documentation quotes. Needs no network; torch is optional.

    python examples/benchmark.py                                        # the bundled ResNet-20, everything
    python examples/benchmark.py --model resnet56.onnx --card resnet56.toml --data test_batch.bin sweep
    python examples/benchmark.py --model resnet50.onnx --card imagenet.toml --data imagenet/ memory

Parts (default: all): `sweep` (single sweep against the loop a user would write, in ONNX Runtime and in PyTorch), `memory`
(peak of a bench run), `start` (help, first result, whole bundled run). Ratios come from one run, the rivals in turn.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from onnxnoise import session
from onnxnoise.batchnorm import LayerNoise
from onnxnoise.records import Variant
from onnxnoise.runner import open_run
from onnxnoise.setup import Setup
from onnxnoise.spec import BenchSpec
from onnxnoise.sweep import ChunkSweep, NoiseSpec, judge

_RIVALS_BATCH = 100
"""Images in a mini-batch of the loops that a user would write: their best size or close to it, on two cores."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["sweep", "memory", "start", []], default=[])
    parser.add_argument("--model", default="resnet20-cifar10")
    parser.add_argument("--card")
    parser.add_argument("--data")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--snr", default="10,5,2.5")
    parser.add_argument("--every", type=int, default=1, help="measure every Nth layer only")
    options = parser.parse_args()
    parts = options.parts or ["sweep", "memory", "start"]
    if "sweep" in parts:
        sweep(options)
    if "memory" in parts:
        memory(options)
    if "start" in parts:
        start()


def sweep(options: argparse.Namespace) -> None:
    """`single`, one draw: this engine, patch-and-reload in ONNX Runtime, in-place noise in PyTorch; hits compared."""
    snrs = tuple(map(float, options.snr.split(",")))
    with tempfile.TemporaryDirectory() as scratch:
        spec = BenchSpec(
            options.model, options.card, options.data, snrs, draws=1, limit=options.images, out=f"{scratch}/run"
        )
        run = open_run(Setup.opened(spec))
        run.store.close()
        setup, network = run.setup, run.setup.subject.network
        layers = setup.subject.layers[:: options.every]
        (chunk,) = setup.images.chunks([range(run.question.images)])
        inputs, labels = setup.inputs(chunk.pixels), chunk.labels
        size = setup.batch_size(len(labels))
        batches = [inputs[i : i + size] for i in range(0, len(inputs), size)]
        if len(batches[-1]) < size:
            batches[-1] = np.concatenate([batches[-1], batches[-1][-1:].repeat(size - len(batches[-1]), 0)])
        variants = [Variant(snr, 0) for snr in snrs]

        path = setup.subject.classifier.path
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

        with ChunkSweep(network, NoiseSpec(40, "tensor", "group"), setup.provider, batches, labels, 0) as engine:
            inside = timed_runs(engine.lanes._max_workers)
            passes_by_layer = engine.single({layer.index: variants for layer in layers})
            for layer in layers:  # all in turn, layer by layer: a machine that slows down slows all of them
                began = time.perf_counter()
                tallies = next(passes_by_layer)
                spent["this engine"] += time.perf_counter() - began
                ours = {
                    t.snr: np.unpackbits(np.frombuffer(t.top1, np.uint8))[: len(labels)].view(bool) for t in tallies
                }
                noise = LayerNoise.drawn(layer, network.constants, seed=40, draw=0, scope="tensor", policy="group")
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
        f"{setup.provider.name}, onnxruntime {ort.__version__}"
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


def differences(hits: Any, logits: Any, labels: Any, layer: int, snr: float) -> Iterator[str]:
    """Each image that the two ways judge differently, with the gap of its deciding logits, relative to the largest."""
    for image in np.flatnonzero(hits != judge(logits, labels)[0]):
        own, others = logits[image, labels[image]], np.delete(logits[image], labels[image])
        gap = abs(own - others.max()) / np.abs(logits[image]).max()
        yield f"layer {layer}, SNR {snr:g}, image {image}: deciding logits differ by {gap:.1e} relative"


class ReloadLoop:
    """The oracle: weights patched in the file's own graph, a session of its own for every cell, all layers run."""

    def __init__(self, path: Path, image: str, batches: list[Any]) -> None:
        self.model = onnx.load(path)
        self.clean = {
            tensor.name: onnx.TensorProto.FromString(tensor.SerializeToString())
            for tensor in self.model.graph.initializer
        }
        self.image, self.batches = image, batches

    def __call__(self, noisy: dict[str, Any]) -> Any:
        for tensor in self.model.graph.initializer:
            if tensor.name in noisy:
                tensor.CopyFrom(onnx.numpy_helper.from_array(noisy[tensor.name], tensor.name))
        loaded = ort.InferenceSession(self.model.SerializeToString(), providers=["CPUExecutionProvider"])
        logits = np.concatenate([loaded.run(None, {self.image: batch})[0] for batch in self.batches])
        for tensor in self.model.graph.initializer:
            if tensor.name in noisy:
                tensor.CopyFrom(self.clean[tensor.name])
        return logits


def torch_loop(path: Path, batches: list[Any], form: str) -> Callable[[dict[str, Any]], Any] | None:
    """In-place noise on a PyTorch CIFAR ResNet with the file's weights; None without torch or for another architecture."""
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        print("  (torch is not installed: no PyTorch loop)")
        return None
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    model = torch_resnet(tensors)
    if model is None:
        print("  (not a CIFAR ResNet with torch's names: no PyTorch loop)")
        return None
    model = model.eval().to(memory_format=getattr(torch, form))
    state = dict(model.state_dict())
    images = [torch.from_numpy(batch).to(memory_format=getattr(torch, form)) for batch in batches]

    def run(noisy: dict[str, Any]) -> Any:
        with torch.inference_mode():
            clean = {name: state[name].clone() for name in noisy}
            for name, values in noisy.items():
                state[name].copy_(torch.from_numpy(values))
            logits = torch.cat([model(batch) for batch in images]).numpy()
            for name, values in clean.items():
                state[name].copy_(values)
        return logits

    return run


def torch_resnet(tensors: dict[str, Any]) -> Any:
    """The CIFAR ResNet whose initializers these are: option A (padded identity) or 1x1 convolution shortcuts."""
    import torch  # noqa: PLC0415
    import torch.nn.functional as F  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415

    head = next((name for name in ("linear", "fc") if f"{name}.weight" in tensors), None)
    if head is None or "layer3.0.conv1.weight" not in tensors:
        return None
    projected = "layer2.0.shortcut.weight" in tensors
    bias = "conv1.bias" in tensors
    eps = 1e-3 if projected else 1e-5

    class Block(nn.Module):
        def __init__(self, width_in: int, width: int, stride: int) -> None:
            super().__init__()
            self.stride = stride
            self.conv1 = nn.Conv2d(width_in, width, 3, stride, 0 if projected and stride == 2 else 1, bias=bias)
            self.bn1 = nn.BatchNorm2d(width, eps=eps)
            self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=bias)
            self.bn2 = nn.BatchNorm2d(width, eps=eps)
            if projected and stride == 2:
                self.shortcut = nn.Conv2d(width_in, width, 1, stride)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.pad(x, (0, 1, 0, 1)) if projected and self.stride == 2 else x
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(y)))))
            if self.stride == 2:
                quarter = y.shape[1] // 4
                x = self.shortcut(x) if projected else F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
            return F.relu(y + x)

    class ResNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=bias)
            self.bn1 = nn.BatchNorm2d(16, eps=eps)
            blocks = len({name.split(".")[1] for name in tensors if name.startswith("layer1.")})
            width = 16
            for stage, out in enumerate((16, 32, 64), 1):
                stride = 1 if stage == 1 else 2
                stack = [Block(width, out, stride), *(Block(out, out, 1) for _ in range(blocks - 1))]
                setattr(self, f"layer{stage}", nn.Sequential(*stack))
                width = out
            setattr(self, head, nn.Linear(64, 10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.bn1(self.conv1(x)))
            x = self.layer3(self.layer2(self.layer1(x)))
            return getattr(self, head)(F.avg_pool2d(x, 8).flatten(1))

    model = ResNet()
    model.load_state_dict(
        {name: torch.from_numpy(np.array(tensors[name])) for name in model.state_dict() if name in tensors},
        strict=False,
    )
    return model


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


def start() -> None:
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
