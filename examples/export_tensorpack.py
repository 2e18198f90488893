"""Export a classifier of tensorpack's model zoo to ONNX, its batch norms kept.

Tried with Python 3.11 and, in an environment of its own:

    python3.11 -m venv tensorpack-env
    tensorpack-env/bin/pip install tensorflow-cpu==2.15.1 tf2onnx==1.16.1 tensorpack==0.11 onnxruntime==1.20.1
    curl -LO http://models.tensorpack.com/ResNet/ImageNet-ResNet50.npz
    tensorpack-env/bin/python examples/export_tensorpack.py resnet50 ImageNet-ResNet50.npz --out resnet50.onnx

A later TensorFlow works with Keras 2 beside it: tensorflow-cpu==2.21.0 tf-keras==2.21.0 tf2onnx==1.17.0 tensorpack==0.11
onnxruntime==1.31.1.

A checkpoint of a training run does as well (`train_log/imagenet-resnet-d50/checkpoint`): its graph is not used, because
its batch norms take the statistics of the batch. `--random` needs no weights and shows the structure;
`--carry resnet20-cifar10` builds the bundled ResNet-20 of tensorpack's layers, with the bundled weights.

VGG16 takes about 10 GB of memory, the others 1 to 3.

The file takes what the zoo's models take: uint8 images, NHWC, BGR; mean and standard deviation are inside. (The CIFAR-10
ResNets take RGB.) The file's metadata names the model's card.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

from exporting import (
    BUNDLED,
    MEAN,
    STD,
    Known,
    agree,
    card_beside,
    card_text,
    carried,
    compared,
    finish,
    framework,
    keep_batch_norms,
    parser,
    random_value,
    say,
    stop,
    unchanged,
)
from tensorpack_zoo import NETWORKS, Tensorpack, kinds, variables

INSTALL = "pip install tensorflow-cpu==2.15.1 tf2onnx==1.16.1 tensorpack==0.11 onnxruntime==1.20.1 (Python 3.11)"
ZOO_MEAN, ZOO_STD = (0.406, 0.456, 0.485), (0.225, 0.224, 0.229)
"""BGR."""
TRAINING_ONLY = ("global_step", "learning_rate", "local_step", "beta1_power", "beta2_power")
TRAINING_PARTS = ("/Momentum", "/Adam", "/AccumGrad", "-summary", "EMA/", "queue_size")


def main() -> None:
    options = arguments()
    name = options.model
    out = options.out or Path(f"{name}.onnx")
    shapes = variables(name)
    known = Known(
        framework="tensorpack (TensorFlow 1)",
        source=str(options.weights or (f"the weights of {options.carry}" if options.carry else "random")),
        input={} if NETWORKS[name].npz else cifar_input(),
        kinds=kinds(shapes),
        parameters=sum(product(shape) for shape in shapes.values()),
        bundled=name if NETWORKS[name].npz else None,
    )
    text = card_text(options, known, name)
    card_beside(out, text)
    if options.weights is not None and options.weights.suffix == ".npz":
        values = from_npz(options.weights, shapes)
    tf = tensorflow()
    if options.carry:
        values = from_carried(options.carry)
    elif options.random:
        values = randomly(shapes, options.seed)
    elif options.weights.suffix != ".npz":
        values = from_checkpoint(tf, options.weights, shapes)
    export(tf, name, values, out, options.merged)
    finish(options, known, out, text)


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("model", nargs="?", choices=tuple(NETWORKS), metavar="MODEL", help=", ".join(NETWORKS))
    made.add_argument("weights", nargs="?", type=Path, metavar="FILE", help="the zoo's .npz, or a checkpoint")
    made.add_argument("--random", action="store_true", help="random weights instead of a file")
    made.add_argument("--carry", metavar="NAME", help=f"{BUNDLED}, or an ONNX file of the same ResNet-20")
    options = made.parse_args()
    if options.carry and options.model is None:
        options.model = BUNDLED
    if options.model is None:
        made.error(f"which model? {', '.join(NETWORKS)}")
    if options.carry and options.model != BUNDLED:
        made.error(f"--carry brings the weights of a ResNet-20: they don't fit {options.model}")
    if sum((options.weights is not None, options.random, bool(options.carry))) != 1:
        known = NETWORKS[options.model].npz
        file = f"a .npz file (the zoo's is {known})" if known else "a .npz file"
        made.error(f"where are the weights? Give one of: {file} or checkpoint, --random, --carry {BUNDLED}")
    return options


def product(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def cifar_input() -> dict[str, Any]:
    return {"dataset": "cifar10", "size": 32, "color": "rgb", "layout": "nhwc", "scale": 1}


def tensorflow() -> Any:
    """TensorFlow 1's API, as tensorpack wants it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if importlib.util.find_spec("tf_keras"):
        os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # a later TensorFlow: tensorpack's layers want Keras 2
    tf = framework("tensorflow", INSTALL)
    tf.get_logger().setLevel(logging.ERROR)
    tf.compat.v1.disable_v2_behavior()
    for name in ("tensorpack", "tf2onnx"):
        framework(name, INSTALL)
        logging.getLogger(name).setLevel(logging.ERROR)
    return tf


# --- Weights ---


def from_npz(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """The arrays of a .npz file, which must have exactly the model's variables."""
    np = framework("numpy", INSTALL)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key.removesuffix(":0"): archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, TypeError, zlib.error, zipfile.BadZipFile) as error:
        stop(f"{path} can't be read as .npz: {error}")
    return fitting(path, arrays, shapes)


def from_checkpoint(tf: Any, path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """The variables of a checkpoint: `checkpoint`, or `model-NNN`, with or without the ending of one of its files."""
    prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", str(path))
    if path.name == "checkpoint":
        prefix = tf.train.latest_checkpoint(path.parent)
    try:
        reader = tf.train.load_checkpoint(prefix)
    except (TypeError, ValueError, tf.errors.OpError) as error:
        stop(f"{path} can't be read as a checkpoint: {error}")
    names = [key for key in reader.get_variable_to_shape_map() if not training_only(key)]
    return fitting(path, {key: reader.get_tensor(key) for key in names}, shapes)


def training_only(name: str) -> bool:
    """Whether a variable is for training: the optimizer's, or a moving summary (a batch norm's `mean/EMA` is not)."""
    return name in TRAINING_ONLY or name.startswith(TRAINING_PARTS[-2:]) or any(p in name for p in TRAINING_PARTS[:4])


def fitting(path: Path, arrays: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    kept = {key: value for key, value in arrays.items() if not training_only(key)}
    compared(str(path), {key: value.shape for key, value in kept.items()}, shapes)
    return {key: kept[key].astype("float32", copy=False) for key in shapes}


def randomly(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng(seed)
    return {name: random_value(name, shape, rng) for name, shape in shapes.items()}


def from_carried(source: str) -> dict[str, Any]:
    """PyTorch's names and axes made tensorpack's."""
    parts = {"weight": "gamma", "bias": "beta", "running_mean": "mean/EMA", "running_var": "variance/EMA"}
    values = {}
    for key, array in carried(source).items():
        layer, _, tensor = key.rpartition(".")
        path = layer.replace("layer", "res").replace(".", "/", 2).replace("/", ".", 1).split("/")
        last = {"conv1": "conv0", "bn1": "bn0", "fc": "linear"}.get(path[-1], path[-1]) if len(path) == 1 else path[-1]
        part = parts[tensor] if last.startswith("bn") else "W" if tensor == "weight" else "b"
        turned = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        values["/".join([*path[:-1], last, part])] = turned
    return values


# --- The file ---


def export(tf: Any, name: str, values: dict[str, Any], out: Path, merged: bool) -> None:
    """Build the network in the zoo's NCHW, convert it, and hold it against the same network run by TensorFlow in NHWC."""
    import numpy as np
    import tf2onnx

    v1 = tf.compat.v1
    images = np.random.default_rng(0).integers(0, 256, (2, *[NETWORKS[name].size] * 2, 3), dtype=np.uint8)
    with v1.Graph().as_default(), v1.Session() as session:
        build(v1, name, values, "NHWC", session)
        expected = session.run("logits:0", {"input:0": images})
    with v1.Graph().as_default() as graph, v1.Session() as session:
        build(v1, name, values, "NCHW", session)
        frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["logits"])
    if not merged:
        keep_batch_norms(tf)
    say(f"exporting {name} with TensorFlow {tf.__version__} and tf2onnx {tf2onnx.__version__}")
    tf2onnx.convert.from_graph_def(
        frozen, input_names=["input:0"], output_names=["logits:0"], opset=15, output_path=str(out)
    )
    if not merged:
        unchanged(out, values)
    agree(out, images, expected, "TensorFlow")


def build(v1: Any, name: str, values: dict[str, Any], layout: str, session: Any) -> None:
    """The graph from `input`, uint8 images (N, side, side, 3), to `logits`, its variables set to `values`."""
    from tensorpack import models
    from tensorpack.tfutils.sessinit import DictRestore
    from tensorpack.tfutils.tower import TowerContext

    network = NETWORKS[name]
    mean, std = (ZOO_MEAN, ZOO_STD) if network.npz else (MEAN, STD)
    pixels = v1.placeholder(v1.uint8, [None, network.size, network.size, 3], "input")
    with TowerContext("", is_training=False):
        x = (v1.cast(pixels, v1.float32) - [255 * value for value in mean]) / [255 * value for value in std]
        x = v1.transpose(x, [0, 3, 1, 2]) if layout == "NCHW" else x
        v1.identity(network.define(Tensorpack(v1, models, layout), x), name="logits")
    made = {variable.op.name: tuple(variable.shape.as_list()) for variable in v1.global_variables()}
    compared("what tensorpack built", made, {key: value.shape for key, value in values.items()})
    DictRestore(values).init(session)


if __name__ == "__main__":
    main()
