"""Export a Keras classifier to ONNX, its batch norms kept: keras.applications, a saved model, the CIFAR-10 ResNets.

Tried with Python 3.11, each in an environment of its own:

    python3.11 -m venv keras2-env                                                     # Keras 2
    keras2-env/bin/pip install tensorflow-cpu==2.15.1 tf2onnx==1.16.1 onnxruntime==1.20.1
    python3.11 -m venv keras3-env                                                     # Keras 3, on TensorFlow
    keras3-env/bin/pip install tensorflow-cpu==2.21.0 keras==3.15.1 tf2onnx==1.17.0 onnxruntime==1.31.1

    python examples/export_keras.py MobileNetV2                                       # ImageNet's weights are fetched
    python examples/export_keras.py net.keras --dataset cifar10 --scale 255 --mean 0.49 0.48 0.45 --std 1 1 1
    python examples/export_keras.py cifar10_ResNet32v1_model.123.h5 --subtract cifar10 --card template-keras-cifar10
    python examples/export_keras.py --carry resnet20-cifar10                          # the bundled weights, from Keras

A file that Keras's own CIFAR-10 example saved wants the training images' mean subtracted, pixel by pixel: `--subtract`
puts that into the file, so that its input is pixel/255 as that card says. `--random` needs no weights and shows the structure.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from exporting import (
    BUNDLED,
    TENSORS,
    Known,
    agree,
    card_beside,
    card_text,
    carried,
    cifar_layers,
    finish,
    framework,
    keep_batch_norms,
    parser,
    random_value,
    say,
    stop,
    unchanged,
)

INSTALL = (
    "pip install tensorflow-cpu==2.15.1 tf2onnx==1.16.1 onnxruntime==1.20.1 (Keras 2), or "
    "tensorflow-cpu==2.21.0 keras==3.15.1 tf2onnx==1.17.0 onnxruntime==1.31.1 (Keras 3); Python 3.11"
)
CIFAR = {f"resnet{depth}-cifar10": depth for depth in (20, 32, 56)}
PRESETS = {
    **dict.fromkeys(("resnet", "vgg16", "vgg19"), "keras-caffe"),
    **dict.fromkeys(("resnet_v2", "inception_v3", "inception_resnet_v2", "mobilenet", "mobilenet_v2"), "keras-tf"),
    **dict.fromkeys(("nasnet", "xception"), "keras-tf"),
    "densenet": "keras-torch",
}
"""By the module of keras.applications; models of the others take pixels as they are."""
KINDS = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv2DTranspose", "DepthwiseConv2D"), "conv"),
    **dict.fromkeys(("BatchNormalization", "SyncBatchNormalization"), "batchnorm"),
    **dict.fromkeys(("LayerNormalization", "GroupNormalization"), "norm"),
    "Dense": "dense",
}
NOT_WEIGHTS = ("Normalization", "Rescaling")


def main() -> None:
    options = arguments()
    name = options.model
    out = options.out or Path(f"{Path(name).stem}.onnx")
    tf = tensorflow()
    weights = carried(options.carry) if options.carry else None
    model, known = classifier(tf, options, weights)
    text = card_text(options, known, out.stem)
    card_beside(out, text)
    export(tf, model, out, options.merged)
    finish(options, known, out, text)


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help=f"a model of keras.applications, a .keras or .h5 file, or {', '.join(CIFAR)}",
    )
    made.add_argument("--random", action="store_true", help="random weights")
    made.add_argument("--carry", metavar="NAME", help=f"{BUNDLED}, or an ONNX file of the same ResNet-20")
    made.add_argument("--subtract", metavar="MEAN", help="cifar10, or a .npy of the mean training image (pixel/255)")
    options = made.parse_args()
    if options.carry and options.model in (None, BUNDLED):
        options.model = BUNDLED
    elif options.carry:
        made.error(f"--carry brings the weights of a ResNet-20: they don't fit {options.model}")
    if options.model is None:
        made.error("which model? Give a name of keras.applications, a .keras or .h5 file, or --carry resnet20-cifar10")
    saved = options.model.endswith((".keras", ".h5"))
    if options.random and (saved or options.carry):
        made.error("--random is for a model without weights: leave it out")
    if saved and not Path(options.model).is_file():
        made.error(f"{options.model}: no such file")
    if options.model in CIFAR and not (options.carry or options.random):
        made.error(
            f"{options.model} comes without weights: give the .h5 or .keras file of your training (or --random, "
            f"or --carry {BUNDLED})"
        )
    return options


def tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    tf = framework("tensorflow", INSTALL)
    framework("tf2onnx", INSTALL)
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    if os.environ["KERAS_BACKEND"] != "tensorflow":
        stop("this example exports through TensorFlow: unset KERAS_BACKEND")
    return tf


# --- Models ---


def classifier(tf: Any, options: argparse.Namespace, weights: Mapping[str, Any] | None) -> tuple[Any, Known]:
    """The Keras model, and what the card can say of it."""
    keras, name = tf.keras, options.model
    inputs: dict[str, Any] = {}
    source, bundled = ("random" if options.random else f"the weights of {options.carry or name}"), None
    if name.endswith((".keras", ".h5")):
        model = load(keras, name)
    elif name in CIFAR:
        model, layers = cifar_resnet(keras, CIFAR[name])
        bundled = name
        if weights is not None:
            carry(layers, weights)
    else:
        model, inputs = application(keras, options)
        source = f"keras.applications.{name}(weights={None if options.random else 'imagenet'!r})"
    if options.random:
        randomize(model, options.seed)
    kinds, parameters = structure(model)
    if options.subtract:
        model = subtracting(keras, model, options.subtract)
        inputs = {"dataset": "cifar10", "scale": 255}
    return model, Known(f"Keras {version('keras')} (TensorFlow)", source, inputs, kinds, parameters, None, bundled)


def load(keras: Any, name: str) -> Any:
    try:
        return keras.models.load_model(name, compile=False)
    except Exception as error:  # Keras raises whatever its layers raise
        stop(
            f"{name} can't be loaded by Keras {version('keras')}: {type(error).__name__}: {str(error).splitlines()[0]}"
        )


def application(keras: Any, options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """A model of keras.applications and how it wants its images."""
    makers = {name.lower(): getattr(keras.applications, name) for name in dir(keras.applications) if name[0].isupper()}
    make = makers.get(options.model.lower())
    if make is None:
        stop(
            f"{options.model} is no model of keras.applications: {', '.join(sorted(m.__name__ for m in makers.values()))}",
            2,
        )
    model = make(weights=None if options.random else "imagenet")
    inputs: dict[str, Any] = {"dataset": "imagenet", "size": model.input_shape[1]}
    preset = PRESETS.get(make.__module__.rpartition(".")[2])
    return model, {**inputs, "preset": preset} if preset else {**inputs, "scale": 1}


def cifar_resnet(keras: Any, depth: int) -> tuple[Any, list[Any]]:
    """The Keras example's ResNet v1 for CIFAR-10, and its layers with weights in the order of `cifar_layers`."""
    layers = []

    def weighted(layer: Any) -> Any:
        layers.append(layer)
        return layer

    def conv(x: Any, width: int, side: int = 3, stride: int = 1) -> Any:
        return weighted(keras.layers.Conv2D(width, side, stride, padding="same"))(x)

    def normed(x: Any) -> Any:
        return weighted(keras.layers.BatchNormalization())(x)

    def relu(x: Any) -> Any:
        return keras.layers.Activation("relu")(x)

    image = keras.Input((32, 32, 3))
    x = relu(normed(conv(image, 16)))
    for stage, width in enumerate((16, 32, 64)):
        for block in range((depth - 2) // 6):
            stride = 2 if stage > 0 and block == 0 else 1
            y = normed(conv(relu(normed(conv(x, width, 3, stride))), width))
            shortcut = conv(x, width, 1, stride) if stride == 2 else x
            x = relu(keras.layers.add([shortcut, y]))
    pooled = keras.layers.Flatten()(keras.layers.AveragePooling2D(8)(x))
    head = weighted(keras.layers.Dense(10, activation="softmax"))
    return keras.Model(image, head(pooled)), layers


def carry(layers: list[Any], weights: Mapping[str, Any]) -> None:
    """PyTorch's tensors into Keras's layers: kernels are height, width, in, out, and dense ones in, out."""
    for layer, (name, kind) in zip(layers, cifar_layers(20), strict=True):
        values = [weights[f"{name}.{tensor}"] for tensor in TENSORS[kind]]
        values[0] = values[0].transpose(2, 3, 1, 0) if values[0].ndim == 4 else values[0].T
        layer.set_weights(values)


def randomize(model: Any, seed: int) -> None:
    import numpy as np

    rng = np.random.default_rng(seed)
    for layer in flat(model):
        values = zip(layer.weights, layer.get_weights(), strict=True)
        layer.set_weights(
            [random_value(w.name.split("/")[-1], v.shape, rng) if v.dtype.kind == "f" else v for w, v in values]
        )


def flat(model: Any) -> list[Any]:
    """The layers that own weights, those of models inside the model too; not what only prepares the images."""
    layers = []
    for layer in model.layers:
        if getattr(layer, "layers", None):
            layers += flat(layer)
        elif layer.weights and type(layer).__name__ not in NOT_WEIGHTS:
            layers.append(layer)
    return layers


def structure(model: Any) -> tuple[dict[str, int] | None, int]:
    """How many layers of each kind (None where a layer is of another kind) and parameters the file should have.

    A batch norm has four tensors in the file, also where Keras has none for its scale or center.
    """
    kinds: Counter[str] = Counter()
    parameters, known = 0, True
    for layer in flat(model):
        name = type(layer).__name__
        sizes = [value.size for value in layer.get_weights() if value.dtype.kind == "f"]
        if name == "SeparableConv2D":
            kinds["conv"] += 2
        elif name in KINDS:
            kinds[KINDS[name]] += 1
        else:
            known = False
        parameters += 4 * sizes[0] if KINDS.get(name) == "batchnorm" else sum(sizes)
    return (dict(kinds) if known else None), parameters


def subtracting(keras: Any, model: Any, source: str) -> Any:
    """The model behind the subtraction of a mean image, so that it takes pixel/255."""
    import numpy as np

    if source == "cifar10":
        (images, _), _ = keras.datasets.cifar10.load_data()
        mean = (images.astype("float32") / 255).mean(axis=0)
    else:
        try:
            mean = np.load(source, allow_pickle=False)
        except (OSError, ValueError) as error:
            stop(f"--subtract {source} can't be read as .npy: {error}")
    if mean.shape != tuple(model.input_shape[1:]):
        stop(
            f"--subtract {source}: the mean image is {list(mean.shape)}, the model takes {list(model.input_shape[1:])}"
        )
    pixels = keras.Input(model.input_shape[1:])
    return keras.Model(pixels, model(keras.layers.Rescaling(1.0, -mean.astype("float32"))(pixels)))


# --- The file ---


def fix_preparation(model: Any) -> None:
    """Make the numbers of Normalization layers part of the graph: as tensors they would become inputs of the file."""
    import numpy as np

    for layer in model.layers:
        if getattr(layer, "layers", None):
            fix_preparation(layer)
        elif type(layer).__name__ == "Normalization":
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)


def export(tf: Any, model: Any, out: Path, merged: bool) -> None:
    """Convert the model, its batch dimension free, and hold the file against it."""
    import numpy as np
    import onnx
    import tf2onnx

    if not merged:
        keep_batch_norms(tf)
    fix_preparation(model)
    say(f"exporting with Keras {version('keras')}, TensorFlow {tf.__version__} and tf2onnx {tf2onnx.__version__}")
    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="input")]
    traced = tf.function(lambda images: model(images, training=False))
    tf2onnx.convert.from_function(traced, input_signature=signature, opset=15, output_path=str(out))
    if left := {node.op_type for node in onnx.load(out).graph.node if "PartitionedCall" in node.op_type}:
        out.unlink()
        stop(f"tf2onnx can't convert this model: {', '.join(left)} is left over (grouped Conv2D, as in ConvNeXt)")
    if not merged:
        names = [(f"{layer.name}/{n}", value) for layer in flat(model) for n, value in enumerate(layer.get_weights())]
        unchanged(out, {name: value for name, value in names if value.dtype.kind == "f"})
    shape = [side or 64 for side in model.input_shape[1:]]
    images = np.random.default_rng(0).uniform(-1, 1, (2, *shape)).astype("float32")
    agree(out, images, np.asarray(traced(images)), "Keras")


if __name__ == "__main__":
    main()
