"""What the export examples share: batch norms kept, checks of the written file, the card beside it, the bundled weights."""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

CARDS = Path(__file__).resolve().parent.parent / "model_cards"
BUNDLED = "resnet20-cifar10"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of CIFAR-10's training images, RGB, pixel/255: what the bundled ResNet-20 was trained with."""
CLASSES = {"imagenet": 1000, "cifar10": 10, "cifar100": 100}
PRESETS = ("torchvision", "torchvision-232", "keras-caffe", "keras-tf", "keras-torch", "tensorpack")
OURS = "# Written by an export example: exporting the model again writes it anew."
CLOSE = 1e-4


def stop(message: str, code: int = 3) -> NoReturn:
    """End with one line for the person who must act: 2 for a wrong command, 3 for what can't be used."""
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(code)


def say(message: str) -> None:
    print(message, flush=True)


def framework(name: str, install: str) -> ModuleType:
    """The module of that name; where it can't be imported, `install` says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        stop(f"{name} can't be imported here ({error}). Install what this example was tried with: {install}")


def parser(document: str | None) -> argparse.ArgumentParser:
    """With the options that all export examples have."""
    made = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, help="the ONNX file to write (default: the model's name)")
    made.add_argument(
        "--merged", action="store_true", help="let the exporter merge batch norms, as it would by default"
    )
    made.add_argument("--seed", type=int, default=40, help="of --random")
    card = made.add_argument_group("the card (default: what is known of the model)")
    card.add_argument(
        "--card", help="a bundled card's name, put into the file's metadata, instead of a card of its own"
    )
    card.add_argument("--dataset", choices=tuple(CLASSES))
    card.add_argument("--preset", choices=PRESETS, help="how pixels become numbers; or:")
    card.add_argument("--scale", type=float, help="x = (pixel/scale - mean)/std")
    card.add_argument("--mean", type=float, nargs=3)
    card.add_argument("--std", type=float, nargs=3)
    return made


# --- Weights ---


def carried(source: str) -> dict[str, Any]:
    """Name to float32 array of the bundled ResNet-20, or of an ONNX file with the same initializers."""
    import onnx
    from onnx import numpy_helper

    path = CARDS / f"{BUNDLED}.onnx" if source == BUNDLED else Path(source)
    if not path.is_file():
        stop(f"--carry {source}: no such file; give {BUNDLED}, or an ONNX file that examples/train_cifar10.py wrote")
    values = {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    expected = {f"{layer}.{tensor}" for layer, kind in cifar_layers(20) for tensor in TENSORS[kind]}
    if missing := sorted(expected - set(values)):
        stop(f"--carry {source}: {len(missing)} tensors of a ResNet-20 are missing: {listed(missing)}")
    return {name: values[name] for name in sorted(expected)}


TENSORS = {
    "conv": ("weight", "bias"),
    "batchnorm": ("weight", "bias", "running_mean", "running_var"),
    "dense": ("weight", "bias"),
}


def cifar_layers(depth: int) -> Iterator[tuple[str, str]]:
    """(PyTorch's name, kind) of each layer of the CIFAR-10 ResNet v1 of the Keras example, in the order it makes them."""
    yield "conv1", "conv"
    yield "bn1", "batchnorm"
    for stage in (1, 2, 3):
        for block in range((depth - 2) // 6):
            for n in (1, 2):
                yield f"layer{stage}.{block}.conv{n}", "conv"
                yield f"layer{stage}.{block}.bn{n}", "batchnorm"
            if stage > 1 and block == 0:
                yield f"layer{stage}.{block}.shortcut", "conv"
    yield "fc", "dense"


def random_value(name: str, shape: Sequence[int], rng: Any) -> Any:
    """Float32, no two elements equal and no tensor constant, so that no exporter can leave one out or share it."""
    z = rng.standard_normal(tuple(shape))
    if len(shape) > 1:
        return (z * (max(shape) / z.size) ** 0.5).astype("float32")
    if "var" in name:
        return (0.5 + z**2).astype("float32")
    return ((1 if name.endswith(("gamma", "scale")) else 0) + 0.1 * z).astype("float32")


def listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")


def compared(source: str, given: Mapping[str, Sequence[int]], wanted: Mapping[str, Sequence[int]]) -> None:
    """Stop unless the two have the same names with the same shapes."""

    def shown(shapes: Mapping[str, Sequence[int]], names: set[str]) -> str:
        return listed([f"{name} {list(shapes[name])}" for name in sorted(names)])

    parts = []
    if missing := set(wanted) - set(given):
        parts.append(f"{len(missing)} missing: {shown(wanted, missing)}")
    if unexpected := set(given) - set(wanted):
        parts.append(f"{len(unexpected)} unexpected: {shown(given, unexpected)}")
    if wrong := sorted(name for name in set(given) & set(wanted) if list(given[name]) != list(wanted[name])):
        shapes = [f"{name} is {list(given[name])}, not {list(wanted[name])}" for name in wrong]
        parts.append(f"{len(wrong)} of another shape: {listed(shapes)}")
    if parts:
        stop(f"{source} does not fit this model. {'. '.join(parts)}")


# --- tf2onnx ---


def keep_batch_norms(tf: Any) -> None:
    """Make tf2onnx and TensorFlow write every batch norm as BatchNormalization; call it before a model is traced.

    tf2onnx has one rewrite that merges Conv and BatchNormalization: it goes, the other optimizations stay. Keras 3 (and
    Keras 2 on rank 2) computes a batch norm with `tf.nn.batch_normalization`, products and sums that TensorFlow's graph
    optimizer folds into two tensors: it is replaced by the fused operator, which is left alone.
    """
    from tf2onnx.optimizer import back_to_back_optimizer

    back_to_back_optimizer._func_map.pop(("Conv", "BatchNormalization"), None)
    plain = tf.nn.batch_normalization

    def fused(
        x: Any, mean: Any, variance: Any, offset: Any, scale: Any, variance_epsilon: float, name: Any = None
    ) -> Any:
        channels, last = mean.shape.num_elements(), x.shape[-1]
        if not channels or channels == 1 or channels != last or mean.shape[-1] != channels:
            return plain(x, mean, variance, offset, scale, variance_epsilon, name)  # channels first, or nothing known

        def flat(value: Any, missing: float) -> Any:
            return tf.fill([channels], tf.cast(missing, x.dtype)) if value is None else tf.reshape(value, [channels])

        image = x if x.shape.rank == 4 else tf.reshape(x, [-1, 1, 1, channels])
        y, *_ = tf.compat.v1.nn.fused_batch_norm(
            image,
            flat(scale, 1),
            flat(offset, 0),
            mean=flat(mean, 0),
            variance=flat(variance, 1),
            epsilon=variance_epsilon,
            is_training=False,
        )
        return y if x.shape.rank == 4 else tf.reshape(y, tf.shape(x))

    for module in (tf.nn, tf.compat.v2.nn):
        module.batch_normalization = fused


# --- The written file ---


def unchanged(path: Path, values: Mapping[str, Any]) -> None:
    """Stop unless every array of `values` is in the file with the same elements, whatever their order and name.

    So no batch norm was merged and no constant folded into a weight.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper

    def fingerprint(array: Any) -> tuple[int, int, int]:
        bits = np.ascontiguousarray(array, np.float32).ravel().view(np.uint32)
        total = squares = 0
        for i in range(0, bits.size, 2**22):  # a kernel of 400 MB needs no wide copy of itself
            part = bits[i : i + 2**22].astype(np.uint64)
            total, squares = total + int(part.sum()), (squares + int((part * part).sum())) % 2**64
        return bits.size, total, squares

    model = onnx.load(path)
    constants = [node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"]
    floats = [each for each in (*model.graph.initializer, *constants) if each.data_type == onnx.TensorProto.FLOAT]
    found = {fingerprint(numpy_helper.to_array(each)) for each in floats}
    if gone := [name for name, value in values.items() if fingerprint(value) not in found]:
        stop(f"{path}: the exporter changed {len(gone)} of {len(values)} tensors: {listed(gone)}")
    say(f"all {len(values)} tensors are in the file unchanged: no batch norm was merged")


def agree(path: Path, images: Any, expected: Any, who: str) -> None:
    """Stop unless ONNX Runtime computes what the framework did, relative to the largest output."""
    import numpy as np

    try:
        import onnxruntime
    except ImportError:
        say("outputs not compared: onnxruntime is not installed here")
        return
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    if len(session.get_inputs()) != 1:
        stop(f"{path}: the file has {len(session.get_inputs())} inputs, so it can't be run on images alone")
    (found,) = session.run(None, {session.get_inputs()[0].name: images})
    if expected.min() >= 0 and abs(expected.sum(axis=-1) - 1).max() < CLOSE:  # probabilities hide logits that differ
        found, expected = np.log(np.maximum(found, 1e-37)), np.log(np.maximum(expected, 1e-37))
    error = float(abs(found - expected).max() / abs(expected).max())
    if not error < CLOSE:
        stop(f"{path}: its outputs differ from {who}'s by {error:.1e}, relative to the largest")
    say(f"outputs agree with {who}'s on {len(images)} random images: relative difference {error:.1e}")


# --- The card ---


@dataclass(frozen=True)
class Known:
    """What an example knows of its model: tables of the card, or the bundled card that says it all."""

    framework: str
    source: str
    input: Mapping[str, Any]
    kinds: Mapping[str, int] | None
    """How many layers of each kind; None where only the parameters are known."""
    parameters: int
    published: Mapping[str, Any] | None = None
    bundled: str | None = None


def card_text(options: argparse.Namespace, known: Known, name: str) -> str | None:
    """A card for the file to be written, as TOML; None where the file's metadata is to name a bundled one."""
    inputs = {key: getattr(options, key) for key in ("dataset", "preset", "scale", "mean", "std")}
    given = {key: value for key, value in inputs.items() if value is not None}
    if options.card and not (CARDS / f"{options.card}.toml").is_file():
        stop(f"--card {options.card}: no bundled card has that name; `onnxnoise cards` lists them", 2)
    if options.card or (known.bundled and not given):
        return None
    if not known.input and "dataset" not in given:
        stop(
            "nobody knows how this model wants its images: pass --card NAME, or --dataset and --preset "
            "(or --scale, --mean and --std)",
            2,
        )
    table = {**_still_known(options, known.input, given), **given}
    structure: dict[str, Any] = {"parameters": known.parameters}
    if known.kinds is not None:
        structure = {"layers": sum(known.kinds.values()), **structure, "note": counted(known.kinds)}
    tables = {
        "model": {"name": name, "framework": known.framework, "source": known.source, "recipe": command()},
        "input": table,
        "structure": {} if options.merged else structure,
        "published": known.published or {},
    }
    rows = [
        f"[{title}]\n" + "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in keys.items())
        for title, keys in tables.items()
        if keys
    ]
    return "\n".join([f"{OURS}\n", *rows])


def _still_known(options: argparse.Namespace, known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What of the model's own [input] holds beside what the user says: sizes are for its data set, numbers come together."""
    sizes, numbers = ("size", "resize", "crop"), ("preset", "scale", "mean", "std")
    side = getattr(options, "size", None)
    other = given.get("dataset", known.get("dataset")) != known.get("dataset")
    gone = (*(sizes if other or side else ()), *(numbers if set(given) & set(numbers) else ()))
    kept = {key: value for key, value in known.items() if key not in gone}
    if side and "resize" in known and not other:
        return {**kept, "resize": round(known["resize"] * side / known["crop"]), "crop": side}
    return {**kept, "size": side} if side else kept


def counted(kinds: Mapping[str, int]) -> str:
    names = {"conv": "convolutions", "batchnorm": "batch norms", "dense": "dense"}
    return ", ".join(f"{count} {names.get(kind, kind)}" for kind, count in kinds.items())


def command() -> str:
    return shlex.join(["python", f"examples/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def card_beside(out: Path, text: str | None) -> None:
    """Stop where somebody's card lies beside the file to be written: it would be taken for this file's."""
    for path in (out.with_name(f"{out.name}.toml"), out.with_suffix(".toml")):
        ours = text is not None and path == out.with_suffix(".toml")
        if path.is_file() and not (ours and path.read_text(encoding="utf-8").startswith(OURS)):
            stop(f"{path} is there and would be taken for this file's card; remove it, or name another --out")


def finish(options: argparse.Namespace, known: Known, out: Path, text: str | None) -> None:
    """Write the card, or name the bundled one in the file's metadata, and say what was done."""
    if text is None:
        import onnx

        name = options.card or known.bundled
        model = onnx.load(out)
        model.metadata_props.add(key="onnxnoise.card", value=name)
        onnx.save(model, out)
        card = f"its metadata names the bundled card {name}"
    else:
        path = out.with_suffix(".toml")
        path.write_text(text, encoding="utf-8", errors="replace")  # a path can hold what is no text
        card = f"its card is {path}"
    layers = "" if known.kinds is None else f"{sum(known.kinds.values())} layers ({counted(known.kinds)}), "
    merged = ", batch norms merged" if options.merged else ""
    say(f"wrote {out}: {layers}{known.parameters:,} parameters in the framework{merged}; {card}")
    say(f"next: onnxnoise layers {out}; onnxnoise bench {out} --data ...")
