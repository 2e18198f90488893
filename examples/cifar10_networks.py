"""Ten CIFAR-10 classifiers in PyTorch with the structures of the paper's Table I, for `train_cifar10.py`.

ResNet-20, 32 and 56 are the Keras example's, exactly. The other seven stand for the paper's ImageNet networks: the same
layers in the same order as tensorpack's, so that the noise layers count to the same numbers, but slim (an eighth of the
ResNets' widths, a quarter of VGG16's, half of each ShuffleNetV2's) and with a stem for small images (3x3 with stride 1, no
max pooling) and ten classes. What is measured on them is theirs, and no figure of the ImageNet networks.

All take float32 images (N, 3, 32, 32), normalized, and give logits (N, 10).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

CLASSES = 10


def initialized(network: nn.Module) -> None:
    """He's initialization for every convolution and dense layer, biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


# --- ResNets of the Keras example ---


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


class CifarResNet(nn.Module):
    """ResNet v1 of depth 6n + 2: every convolution has a bias, the two shortcuts that change shape are 1x1 convolutions
    without batch norm, convolutions of stride 2 pad as TensorFlow's `same` does (a row and a column, bottom and right).
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(16, eps=1e-3)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(blocks)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), *(Block(32, 32, 1) for _ in range(blocks - 1)))
        self.layer3 = nn.Sequential(Block(32, 64, 2), *(Block(64, 64, 1) for _ in range(blocks - 1)))
        self.fc = nn.Linear(64, CLASSES)
        initialized(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(F.avg_pool2d(x, x.shape[-1]), 1))


# --- tensorpack's networks, slim ---


def conv_bn(inputs: int, outputs: int, side: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution without bias and its batch norm."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, groups=groups, bias=False),
            bn=nn.BatchNorm2d(outputs),
        )
    )


class SqueezeExcite(nn.Module):
    """A factor for each channel, from the means of all: two dense layers."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, inner)
        self.fc2 = nn.Linear(inner, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factors = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))
        return x * factors[:, :, None, None]


class Residual(nn.Module):
    """tensorpack's basic or bottleneck block; the shortcut is a 1x1 convolution with batch norm where the width changes."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool, squeeze: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        self.conv1 = conv_bn(inputs, width, 1) if bottleneck else conv_bn(inputs, width, 3, stride)
        self.conv2 = conv_bn(width, width, 3, stride if bottleneck else 1)
        self.conv3 = conv_bn(width, outputs, 1) if bottleneck else None
        self.squeeze = SqueezeExcite(outputs, width // 4) if squeeze else nn.Identity()
        self.shortcut = nn.Identity() if inputs == outputs else conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        if self.conv3 is not None:
            y = self.conv3(F.relu(y))
        return F.relu(self.squeeze(y) + self.shortcut(x))


class SlimResNet(nn.Module):
    """tensorpack's ResNet at an eighth of its widths: 8, 16, 32 and 64 in place of 64 to 512."""

    def __init__(self, blocks: tuple[int, ...], bottleneck: bool = False, squeeze: bool = False) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, 3)
        made, inputs = [], 8
        for group, (width, count) in enumerate(zip((8, 16, 32, 64), blocks, strict=True)):
            for block in range(count):
                stride = 2 if group > 0 and block == 0 else 1
                made.append(Residual(inputs, width, stride, bottleneck, squeeze))
                inputs = 4 * width if bottleneck else width
        self.blocks = nn.Sequential(*made)
        self.fc = nn.Linear(inputs, CLASSES)
        initialized(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


class SlimVGG16(nn.Module):
    """VGG16 without batch norms at a quarter of its widths, its two hidden dense layers at an eighth (512 in place of 4096)."""

    def __init__(self) -> None:
        super().__init__()
        made: list[nn.Module] = []
        inputs = 3
        for width, count in ((16, 2), (32, 2), (64, 3), (128, 3), (128, 3)):
            for _ in range(count):
                made += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = width
            made.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*made)
        self.fc6 = nn.Linear(128, 512)
        self.fc7 = nn.Linear(512, 512)
        self.fc8 = nn.Linear(512, CLASSES)
        initialized(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.fc6(torch.flatten(self.features(x), 1)))
        return self.fc8(F.relu(self.fc7(x)))


class ShuffleUnit(nn.Module):
    """One of ShuffleNetV2's units: half of the channels pass, or with stride 2 all go both ways; then two-way shuffle.

    As in tensorpack's example the unit of stride 2 keeps the width of its shortcut (`outputs - inputs` on the other way).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        branch = inputs if stride == 2 else inputs // 2
        kept = inputs if stride == 2 else inputs // 2
        self.conv1 = conv_bn(branch, half, 1)
        self.depthwise = conv_bn(half, half, 3, stride, groups=half)
        self.conv2 = conv_bn(half, outputs - kept, 1)
        self.shortcut: nn.Module | None = None
        if stride == 2:
            self.shortcut = nn.Sequential(conv_bn(kept, kept, 3, 2, groups=kept), conv_bn(kept, kept, 1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, y = x.chunk(2, 1) if self.shortcut is None else (self.shortcut(x), x)
        y = F.relu(self.conv2(self.depthwise(F.relu(self.conv1(y)))))
        n, _, height, width = y.shape
        joined = torch.cat((kept, y), 1)
        half = joined.shape[1] // 2
        return joined.reshape(n, half, 2, height, width).transpose(1, 2).reshape(n, 2 * half, height, width)


class SlimShuffleNetV2(nn.Module):
    """tensorpack's ShuffleNetV2 with the stage widths given; the last convolution has 1024 channels at every width.

    The first has half of the first stage's: 24, as the zoo's, at 0.5x.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        inputs = widths[0] // 2
        self.conv1 = conv_bn(3, inputs, 3)
        units = []
        for width, count in zip(widths, (4, 8, 4), strict=True):
            for unit in range(count):
                units.append(ShuffleUnit(inputs, width, 2 if unit == 0 else 1))
                inputs = width
        self.units = nn.Sequential(*units)
        self.conv5 = conv_bn(inputs, 1024, 1)
        self.fc = nn.Linear(1024, CLASSES)
        initialized(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv5(self.units(F.relu(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


@dataclass(frozen=True)
class Network:
    """A network of this page: how it is made, what it must count to, and how it is trained to which accuracy.

    In the first `small_epochs` of the `epochs` the training images are made smaller, 24 x 24, which takes a little more than
    half of the time. `precision` is that of the convolutions: on CPUs those by channel are slow in bfloat16.
    """

    make: Callable[[], nn.Module]
    layers: int
    parameters: int
    target: float
    epochs: int = 20
    rate: float = 0.2
    smoothing: float = 0.05
    clip: float = 2.0
    precision: str = "bfloat16"
    small_epochs: int = 0


def depth(layers: int) -> Callable[[], nn.Module]:
    return lambda: CifarResNet(layers)


NETWORKS = {
    "resnet20-cifar10": Network(depth(20), 41, 274_442, 0.90, epochs=40, smoothing=0, clip=math.inf),
    "resnet32-cifar10": Network(depth(32), 65, 470_218, 0.91, epochs=25, small_epochs=8),
    "resnet56-cifar10": Network(depth(56), 113, 861_770, 0.91, small_epochs=10),
    "resnet18-slim-cifar10": Network(lambda: SlimResNet((2, 2, 2, 2)), 41, 177_602, 0.84),
    "resnet34-slim-cifar10": Network(lambda: SlimResNet((3, 4, 6, 3)), 73, 337_282, 0.84),
    "resnet50-slim-cifar10": Network(lambda: SlimResNet((3, 4, 6, 3), True), 107, 382_402, 0.84, small_epochs=10),
    "resnet50se-slim-cifar10": Network(
        lambda: SlimResNet((3, 4, 6, 3), True, True), 139, 423_704, 0.84, small_epochs=10
    ),
    "vgg16-slim-cifar10": Network(SlimVGG16, 16, 1_254_618, 0.84, epochs=24, rate=0.05),
    "shufflenetv2-x0.5-cifar10": Network(
        lambda: SlimShuffleNetV2((48, 96, 192)), 113, 359_994, 0.84, precision="float32", small_epochs=10
    ),
    "shufflenetv2-x0.25-cifar10": Network(
        lambda: SlimShuffleNetV2((24, 48, 96)), 113, 155_346, 0.78, precision="float32", small_epochs=10
    ),
}
