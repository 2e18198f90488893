"""The classifiers of tensorpack's model zoo, and the CIFAR-10 ResNets, defined once for two builders.

`Tensorpack` makes a network of tensorpack's own layers. `Names` only writes down the names and shapes of its variables,
which needs no framework: they are the zoo's, so that its published .npz files fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

BN_VARIABLES = ("beta", "gamma", "mean/EMA", "variance/EMA")


class Builder(Protocol):
    """Makes layers. A tensor `x` is whatever the builder makes of it."""

    def scope(self, name: str) -> Any: ...
    def channels(self, x: Any) -> int: ...
    def conv(self, name: str, x: Any, filters: int, side: int, stride: int = 1, bias: bool = False) -> Any: ...
    def depthwise(self, name: str, x: Any, stride: int) -> Any: ...
    def bn(self, name: str, x: Any, epsilon: float = 1e-5) -> Any: ...
    def dense(self, name: str, x: Any, outputs: int) -> Any: ...
    def pool(self, name: str, x: Any, side: int, stride: int) -> Any: ...
    def mean(self, name: str, x: Any) -> Any: ...
    def relu(self, x: Any) -> Any: ...
    def add(self, x: Any, y: Any) -> Any: ...
    def gate(self, x: Any, y: Any) -> Any: ...
    def halves(self, x: Any) -> tuple[Any, Any]: ...
    def shuffled(self, x: Any, y: Any) -> Any: ...


# --- The networks: from images to logits ---


def conv_bn(b: Builder, name: str, x: Any, filters: int, side: int, stride: int = 1) -> Any:
    """The zoo's convolutions without bias, their batch norm inside their scope."""
    x = b.conv(name, x, filters, side, stride)
    with b.scope(name):
        return b.bn("bn", x)


def resnet(b: Builder, x: Any, blocks: tuple[int, ...], bottleneck: bool = False, squeeze: bool = False) -> Any:
    x = b.relu(conv_bn(b, "conv0", x, 64, 7, 2))
    x = b.pool("pool0", x, 3, 2)
    for group, (width, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True)):
        for block in range(count):
            stride = 2 if group > 0 and block == 0 else 1
            with b.scope(f"group{group}"), b.scope(f"block{block}"):
                x = resnet_block(b, x, width, stride, bottleneck, squeeze)
    return b.dense("linear", b.mean("gap", x), 1000)


def resnet_block(b: Builder, x: Any, width: int, stride: int, bottleneck: bool, squeeze: bool) -> Any:
    outputs = 4 * width if bottleneck else width
    if bottleneck:
        y = b.relu(conv_bn(b, "conv1", x, width, 1))
        y = b.relu(conv_bn(b, "conv2", y, width, 3, stride))
        y = conv_bn(b, "conv3", y, outputs, 1)
    else:
        y = b.relu(conv_bn(b, "conv1", x, width, 3, stride))
        y = conv_bn(b, "conv2", y, outputs, 3)
    if squeeze:
        inner = b.relu(b.dense("fc1", b.mean("gap", y), width // 4))
        y = b.gate(y, b.dense("fc2", inner, outputs))
    shortcut = x if b.channels(x) == outputs else conv_bn(b, "convshortcut", x, outputs, 1, stride)
    return b.relu(b.add(y, shortcut))


def shufflenet_v2(b: Builder, x: Any, widths: tuple[int, ...]) -> Any:
    x = b.relu(conv_bn(b, "conv1", x, 24, 3, 2))
    x = b.pool("pool1", x, 3, 2)
    for stage, (width, count) in enumerate(zip(widths, (4, 8, 4), strict=True), start=2):
        for block in range(count):
            with b.scope(f"stage{stage}"), b.scope(f"block{block}"):
                x = shufflenet_unit(b, x, width, 2 if block == 0 else 1)
    x = b.relu(conv_bn(b, "conv5", x, 1024, 1))
    return b.dense("linear", b.mean("gap", x), 1000)


def shufflenet_unit(b: Builder, x: Any, width: int, stride: int) -> Any:
    shortcut, y = b.halves(x) if stride == 1 else (x, x)
    kept = b.channels(shortcut)
    y = b.relu(conv_bn(b, "conv1", y, width // 2, 1))
    y = b.bn("dconv_bn", b.depthwise("dconv", y, stride))
    y = b.relu(conv_bn(b, "conv2", y, width - kept, 1))
    if stride == 2:
        shortcut = b.bn("shortcut_dconv_bn", b.depthwise("shortcut_dconv", shortcut, 2))
        shortcut = b.relu(conv_bn(b, "shortcut_conv", shortcut, kept, 1))
    return b.shuffled(shortcut, y)


def vgg16(b: Builder, x: Any) -> Any:
    for stage, (width, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
        for n in range(1, count + 1):
            x = b.relu(b.conv(f"conv{stage}_{n}", x, width, 3, bias=True))
        x = b.pool(f"pool{stage}", x, 2, 2)
    x = b.relu(b.dense("fc6", x, 4096))
    x = b.relu(b.dense("fc7", x, 4096))
    return b.dense("fc8", x, 1000)


def cifar_resnet(b: Builder, x: Any, depth: int) -> Any:
    """The Keras example's ResNet v1: every convolution has a bias, the shortcuts that change shape have no batch norm."""

    def layer(n: str, x: Any, width: int, side: int, stride: int = 1) -> Any:
        return b.bn(f"bn{n}", b.conv(f"conv{n}", x, width, side, stride, bias=True), epsilon=1e-3)

    x = b.relu(layer("0", x, 16, 3))
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in range((depth - 2) // 6):
            stride = 2 if stage > 1 and block == 0 else 1
            with b.scope(f"res{stage}.{block}"):
                y = b.relu(layer("1", x, width, 3, stride))
                y = layer("2", y, width, 3)
                shortcut = b.conv("shortcut", x, width, 1, stride, bias=True) if stride == 2 else x
                x = b.relu(b.add(shortcut, y))
    return b.dense("linear", b.mean("gap", x), 10)


@dataclass(frozen=True)
class Network:
    """`define` makes the logits; `npz` is the zoo's file, None where it has none."""

    define: Callable[[Builder, Any], Any]
    size: int
    npz: str | None


NETWORKS = {
    "resnet18": Network(lambda b, x: resnet(b, x, (2, 2, 2, 2)), 224, "ImageNet-ResNet18.npz"),
    "resnet34": Network(lambda b, x: resnet(b, x, (3, 4, 6, 3)), 224, "ImageNet-ResNet34.npz"),
    "resnet50": Network(lambda b, x: resnet(b, x, (3, 4, 6, 3), True), 224, "ImageNet-ResNet50.npz"),
    "resnet50-se": Network(lambda b, x: resnet(b, x, (3, 4, 6, 3), True, True), 224, "ImageNet-ResNet50-SE.npz"),
    "shufflenet-v2-0.5x": Network(lambda b, x: shufflenet_v2(b, x, (48, 96, 192)), 224, "ShuffleNetV2-0.5x.npz"),
    "shufflenet-v2-1.0x": Network(lambda b, x: shufflenet_v2(b, x, (116, 232, 464)), 224, "ShuffleNetV2-1x.npz"),
    "vgg16": Network(vgg16, 224, "VGG16.npz"),
    "resnet20-cifar10": Network(lambda b, x: cifar_resnet(b, x, 20), 32, None),
    "resnet32-cifar10": Network(lambda b, x: cifar_resnet(b, x, 32), 32, None),
    "resnet56-cifar10": Network(lambda b, x: cifar_resnet(b, x, 56), 32, None),
}


def variables(name: str) -> dict[str, tuple[int, ...]]:
    """Name to shape of every variable of that network, in the order they are made."""
    names = Names()
    network = NETWORKS[name]
    logits = network.define(names, Image(3, network.size))
    assert logits.channels == (1000 if network.npz else 10)
    return names.shapes


def kinds(shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """How many convolutions, batch norms and dense layers these variables make."""
    ranks = [len(shape) for name, shape in shapes.items() if name.endswith("/W")]
    norms = sum(name.endswith("/gamma") for name in shapes)
    found = {"conv": ranks.count(4), "batchnorm": norms, "dense": ranks.count(2)}
    return {kind: count for kind, count in found.items() if count}


# --- The builders ---


@dataclass(frozen=True)
class Image:
    """Channels and pixels a side of a tensor; one pixel for a vector."""

    channels: int
    side: int = 1


@dataclass
class Names:
    """A builder that makes no layer: it only writes down variables."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    scopes: list[str] = field(default_factory=list)

    def _has(self, *path: str, shape: tuple[int, ...]) -> None:
        name = "/".join([*self.scopes, *path])
        assert name not in self.shapes, name
        self.shapes[name] = shape

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        self.scopes.append(name)
        yield
        self.scopes.pop()

    def channels(self, x: Image) -> int:
        return x.channels

    def conv(self, name: str, x: Image, filters: int, side: int, stride: int = 1, bias: bool = False) -> Image:
        self._has(name, "W", shape=(side, side, x.channels, filters))
        if bias:
            self._has(name, "b", shape=(filters,))
        return Image(filters, -(-x.side // stride))

    def depthwise(self, name: str, x: Image, stride: int) -> Image:
        self._has(name, "W", shape=(3, 3, x.channels, 1))
        return Image(x.channels, -(-x.side // stride))

    def bn(self, name: str, x: Image, epsilon: float = 1e-5) -> Image:  # noqa: ARG002
        for variable in BN_VARIABLES:
            self._has(name, variable, shape=(x.channels,))
        return x

    def dense(self, name: str, x: Image, outputs: int) -> Image:
        self._has(name, "W", shape=(x.channels * x.side**2, outputs))
        self._has(name, "b", shape=(outputs,))
        return Image(outputs)

    def pool(self, name: str, x: Image, side: int, stride: int) -> Image:  # noqa: ARG002
        return Image(x.channels, -(-x.side // stride))

    def mean(self, name: str, x: Image) -> Image:  # noqa: ARG002
        return Image(x.channels)

    def relu(self, x: Image) -> Image:
        return x

    def add(self, x: Image, y: Image) -> Image:
        assert x == y
        return x

    def gate(self, x: Image, y: Image) -> Image:
        assert x.channels == y.channels
        return x

    def halves(self, x: Image) -> tuple[Image, Image]:
        return (Image(x.channels // 2, x.side),) * 2

    def shuffled(self, x: Image, y: Image) -> Image:
        assert x.side == y.side
        return Image(x.channels + y.channels, x.side)


@dataclass(frozen=True)
class Tensorpack:
    """A builder with tensorpack's layers. `layout` is NCHW, as in the zoo, or NHWC, which TensorFlow can run on a CPU."""

    tf: Any
    models: Any
    layout: str

    @property
    def _axis(self) -> int:
        return self.layout.index("C")

    @property
    def _first(self) -> str:
        return "channels_first" if self.layout == "NCHW" else "channels_last"

    def scope(self, name: str) -> Any:
        return self.tf.variable_scope(name)

    def channels(self, x: Any) -> int:
        return int(x.shape[self._axis])

    def conv(self, name: str, x: Any, filters: int, side: int, stride: int = 1, bias: bool = False) -> Any:
        return self.models.Conv2D(name, x, filters, side, strides=stride, use_bias=bias, data_format=self._first)

    def depthwise(self, name: str, x: Any, stride: int) -> Any:
        """No layer of tensorpack's: the zoo's ShuffleNet makes it of TensorFlow's operator and a variable W."""
        with self.tf.variable_scope(name):
            kernel = self.tf.get_variable("W", [3, 3, self.channels(x), 1])
            strides = [1, 1, stride, stride] if self.layout == "NCHW" else [1, stride, stride, 1]
            return self.tf.nn.depthwise_conv2d(x, kernel, strides, padding="SAME", data_format=self.layout)

    def bn(self, name: str, x: Any, epsilon: float = 1e-5) -> Any:
        return self.models.BatchNorm(name, x, epsilon=epsilon, data_format=self._first)

    def dense(self, name: str, x: Any, outputs: int) -> Any:
        if x.shape.rank == 4 and self.layout == "NHWC":
            x = self.tf.transpose(x, [0, 3, 1, 2])  # the zoo's weights are for pixels flattened channels first
        return self.models.FullyConnected(name, x, outputs)

    def pool(self, name: str, x: Any, side: int, stride: int) -> Any:
        return self.models.MaxPooling(name, x, side, stride, padding="SAME", data_format=self._first)

    def mean(self, name: str, x: Any) -> Any:
        return self.models.GlobalAvgPooling(name, x, data_format=self._first)

    def relu(self, x: Any) -> Any:
        return self.tf.nn.relu(x)

    def add(self, x: Any, y: Any) -> Any:
        return x + y

    def gate(self, x: Any, y: Any) -> Any:
        shape = [-1 if axis == "N" else self.channels(x) if axis == "C" else 1 for axis in self.layout]
        return x * self.tf.reshape(self.tf.nn.sigmoid(y), shape)

    def halves(self, x: Any) -> tuple[Any, Any]:
        first, second = self.tf.split(x, 2, axis=self._axis)
        return first, second

    def shuffled(self, x: Any, y: Any) -> Any:
        """Channels side by side, then those of even and of odd number apart: ShuffleNet's shuffle with two groups."""
        joined = self.tf.concat([x, y], axis=self._axis)
        _, *sizes = joined.shape.as_list()
        half = self.channels(joined) // 2
        if self.layout == "NCHW":
            pairs = self.tf.transpose(self.tf.reshape(joined, [-1, half, 2, *sizes[1:]]), [0, 2, 1, 3, 4])
        else:
            pairs = self.tf.transpose(self.tf.reshape(joined, [-1, *sizes[:2], half, 2]), [0, 1, 2, 4, 3])
        return self.tf.reshape(pairs, [-1, *sizes])
