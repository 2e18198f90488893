"""Export a classifier of torchvision, timm or your own code, or a CIFAR-10 ResNet, to ONNX, its batch norms kept.

Tried with Python 3.11, in an environment of its own:

    python3.11 -m venv torch-env
    torch-env/bin/pip install torch==2.14.1 torchvision==0.29.1 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.31.1
    torch-env/bin/python examples/export_pytorch.py resnet50                          # torchvision's weights are fetched
    torch-env/bin/python examples/export_pytorch.py resnet50 --weights IMAGENET1K_V1
    torch-env/bin/python examples/export_pytorch.py resnet18 --checkpoint mine.pt --dataset cifar10 --scale 255 --size 32
    torch-env/bin/python examples/export_pytorch.py --carry resnet20-cifar10          # the bundled weights
    torch-env/bin/python examples/export_pytorch.py timm/resnet18.a1_in1k             # pip install timm==1.0.22
    torch-env/bin/python examples/export_pytorch.py --model mynet:make --checkpoint mine.pt --size 28 --channels 1

A checkpoint is a state dict, as it is or under `state_dict` or `model`. The card beside the file says how torchvision
tests these weights and what accuracy it states for them; timm's configuration says the same for its own. `--model` names a
function of yours (module:function, from this folder) that returns the network with its weights, or to be filled from
`--checkpoint`; `onnxnoise cards new` then drafts its card. `--random` needs no weights and shows the structure.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporting import (
    BUNDLED,
    CLASSES,
    Known,
    agree,
    card_beside,
    card_text,
    carried,
    compared,
    finish,
    framework,
    parser,
    random_value,
    say,
    stop,
    unchanged,
)

INSTALL = (
    "pip install torch==2.14.1 torchvision==0.29.1 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.31.1 (Python 3.11)"
)
CIFAR = {f"resnet{depth}-cifar10": depth for depth in (20, 32, 56)}
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def main() -> None:
    options = arguments()
    for name in ("torch", "torchvision", "onnx", *(["onnxscript"] if options.exporter == "dynamo" else [])):
        framework(name, INSTALL)
    weights = carried(options.carry) if options.carry else None
    out = options.out or Path(f"{options.model.rpartition('/')[2].replace(':', '-')}.onnx")
    model, known, size = classifier(options, weights)
    if options.own and not (options.dataset or options.card):
        card_beside(out, None)
        export(model, options.size, out, options.exporter, options.merged, options.channels)
        say(
            f"wrote {out}; next: onnxnoise cards new {out} --data ... drafts its card, onnxnoise bench {out} --data ..."
        )
        return
    text = card_text(options, known, out.stem)
    card_beside(out, text)
    export(model, options.size or size, out, options.exporter, options.merged, options.channels)
    finish(options, known, out, text)


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("model", nargs="?", metavar="MODEL", help=f"of torchvision, timm/NAME, or {', '.join(CIFAR)}")
    made.add_argument(
        "--model", dest="own", metavar="MODULE:FUNCTION", help="your own: a function that returns the network"
    )
    made.add_argument("--channels", type=int, default=3, help="of the example image (default: 3)")
    made.add_argument("--weights", metavar="NAME", help="torchvision's, such as IMAGENET1K_V1 (default: its best)")
    made.add_argument("--checkpoint", type=Path, metavar="FILE", help="a state dict")
    made.add_argument("--random", action="store_true", help="random weights")
    made.add_argument("--carry", metavar="NAME", help=f"{BUNDLED}, or an ONNX file of the same ResNet-20")
    made.add_argument("--exporter", choices=("torchscript", "dynamo"), default="torchscript")
    made.add_argument("--size", type=int, help="pixels a side of the example image (default: what the weights are for)")
    options = made.parse_args()
    if options.own:
        if options.model or options.carry or options.weights:
            made.error("--model names a network of yours; leave out MODEL, --weights and --carry")
        if (
            not all(part.isidentifier() for part in options.own.replace(":", ".").split("."))
            or options.own.count(":") != 1
        ):
            made.error(
                f"--model {options.own}: write MODULE:FUNCTION, as in mynet:make for the function make in mynet.py"
            )
        if options.size is None:
            made.error("--model: how large are its images? Give --size PIXELS (and --channels 1 for grey ones)")
        options.model = options.own
    if options.carry and options.model in (None, BUNDLED):
        options.model = BUNDLED
    elif options.carry:
        made.error(f"--carry brings the weights of a ResNet-20: they don't fit {options.model}")
    if options.model is None:
        made.error("which model? Give a name of torchvision, or --carry resnet20-cifar10")
    sources = (options.weights, options.checkpoint, options.random or None, options.carry)
    if sum(source is not None for source in sources) > 1:
        made.error("give one of --weights, --checkpoint, --random and --carry")
    if options.model in CIFAR and sources.count(None) == len(sources):
        made.error(f"{options.model}: give --checkpoint FILE (or --random, or --carry {BUNDLED})")
    if options.model in CIFAR and options.weights:
        made.error(f"--weights are torchvision's: it has none for {options.model}; give --checkpoint FILE")
    if options.checkpoint is not None and not options.checkpoint.is_file():
        made.error(f"--checkpoint {options.checkpoint}: no such file")
    return options


# --- Models ---


def classifier(options: argparse.Namespace, weights: Mapping[str, Any] | None) -> tuple[Any, Known, int]:
    """The model in inference mode, what the card can say of it, and the side of its images in pixels."""
    import torch

    source, published, bundled = str(options.checkpoint or "random"), None, None
    if options.model in CIFAR:
        model, inputs, size, bundled = cifar_resnet(CIFAR[options.model]), {}, 32, options.model
        if weights is not None:
            model.load_state_dict({key: torch.tensor(value) for key, value in weights.items()}, strict=False)
            source = f"the weights of {options.carry}"
    elif options.own:
        model, inputs, size = own_model(options.own), {}, options.size
        source = f"{options.own}, {source}" if options.checkpoint else options.own
    elif options.model.startswith("timm/"):
        model, inputs, size, source = of_timm(options)
    else:
        model, inputs, size, chosen = of_torchvision(options)
        if chosen is not None:
            source = f"torchvision.models.{options.model}(weights={str(chosen)!r})"
            top1 = chosen.meta["_metrics"]["ImageNet-1K"]["acc@1"]
            published = {"metric": "top1", "clean": round(top1 / 100, 6), "source": chosen.url}
    if options.checkpoint is not None:
        load(model, options.checkpoint)
    if options.random:
        randomize(model, options.seed)
    for auxiliary in ("AuxLogits", "aux1", "aux2"):  # of Inception and GoogLeNet: for training alone
        if getattr(model, auxiliary, None) is not None:
            setattr(model, auxiliary, None)
    kinds, parameters = structure(model)
    known = Known(f"PyTorch {torch.__version__}", source, inputs, kinds, parameters, published, bundled)
    return model.eval(), known, size


def own_model(name: str) -> Any:
    """The network that a function of the user's returns; its module is looked for in this folder first."""
    import importlib
    import sys

    from torch import nn

    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        made = getattr(importlib.import_module(module), function)()
    except ModuleNotFoundError as error:
        stop(f"--model {name}: {error}; is {module}.py in this folder?", 2)
    except AttributeError as error:
        stop(f"--model {name}: {error}", 2)
    if not isinstance(made, nn.Module):
        stop(f"--model {name}: returned a {type(made).__name__}; it must return a torch.nn.Module")
    return made


def of_timm(options: argparse.Namespace) -> tuple[Any, dict[str, Any], int, str]:
    """The model, its card's [input], the side of its images and the weights' source, by timm's configuration of it."""
    import math

    timm = framework("timm", f"{INSTALL} timm==1.0.22")
    name = options.model.removeprefix("timm/")
    if not timm.is_model(name.partition(".")[0]):
        stop(f"{name} is no model of timm: python -c 'import timm; print(timm.list_models())' lists them", 2)
    fetched = options.checkpoint is None and not options.random
    more = {} if fetched else {"num_classes": CLASSES[options.dataset or "imagenet"]}
    model = fetched_or_stop(
        lambda: timm.create_model(name, pretrained=fetched, **more),
        f"timm's weights of {name}",
        "~/.cache/huggingface (timm's own: ~/.cache/torch/hub)",
    )
    known = model.pretrained_cfg
    side = known["input_size"][-1]
    inputs = {"dataset": "imagenet", "resize": math.floor(side / known["crop_pct"]), "crop": side, "scale": 255}
    inputs |= {"interpolation": known["interpolation"], "mean": list(known["mean"]), "std": list(known["std"])}
    source = f"timm.create_model({name!r}, pretrained=True)" if fetched else str(options.checkpoint or "random")
    return model, inputs, options.size or side, source


def fetched_or_stop(fetch: Any, what: str, kept: str) -> Any:
    """The result of `fetch`; where the network or a hub fails, one line that says what else can be done.

    `kept` is the folder where a file that was fetched lies.
    """
    try:
        return fetch()
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        stop(
            f"{what} can't be fetched here ({reason}). Without a network, bring them into {kept} from a machine that has fetched "
            "them, give your own weights with --checkpoint FILE, or --random for the structure alone"
        )


def of_torchvision(options: argparse.Namespace) -> tuple[Any, dict[str, Any], int, Any]:
    """The model, its card's [input], the side of its images, and the weights it has (None where others are to come)."""
    import torch
    from torchvision import models

    names = models.list_models(module=models)
    if options.model not in names:
        stop(f"{options.model} is no classifier of torchvision: {', '.join(names)}", 2)
    known = models.get_model_weights(options.model)
    try:
        weights = known[options.weights] if options.weights else known.DEFAULT
    except KeyError:
        stop(
            f"--weights {options.weights}: torchvision has {', '.join(each.name for each in known)} for {options.model}",
            2,
        )
    fetched = options.checkpoint is None and not options.random
    classes = CLASSES[options.dataset or "imagenet"]
    if fetched and classes != 1000:
        stop(f"torchvision's weights are for ImageNet: for {options.dataset} give --checkpoint FILE", 2)
    extra = {"init_weights": False} if options.model in ("googlenet", "inception_v3") and not fetched else {}
    model = fetched_or_stop(
        lambda: models.get_model(options.model, weights=weights if fetched else None, num_classes=classes, **extra),
        f"torchvision's weights {weights.name} of {options.model}",
        f"{torch.hub.get_dir()}/checkpoints",
    )
    shown = weights.transforms()
    crop, resize = shown.crop_size[0], shown.resize_size[0]
    inputs = {"dataset": "imagenet", "preset": "torchvision", "resize": resize, "crop": crop}
    inputs["interpolation"] = shown.interpolation.value
    if [*shown.mean, *shown.std] != [*IMAGENET_MEAN, *IMAGENET_STD]:
        inputs |= {"mean": list(shown.mean), "std": list(shown.std)}
    return model, inputs, crop if classes == 1000 else 32, weights if fetched else None


def cifar_resnet(depth: int) -> Any:
    """The network that examples/train_cifar10.py trains at that depth."""
    from cifar10_networks import CifarResNet

    return CifarResNet(depth)


def load(model: Any, path: Path) -> None:
    """A state dict into the model, which must have exactly its tensors."""
    import pickle

    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        stop(f"{path} can't be read as a checkpoint: {str(error).splitlines()[0]}")
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        stop(f"{path} holds no state dict: save one with torch.save(model.state_dict(), FILE)")
    state = {key.removeprefix("module."): value for key, value in found.items()}

    def shapes(tensors: Mapping[str, Any]) -> dict[str, list[int]]:
        return {key: list(value.shape) for key, value in tensors.items() if not key.endswith("num_batches_tracked")}

    compared(str(path), shapes(state), shapes(model.state_dict()))
    model.load_state_dict(state, strict=False)


def randomize(model: Any, seed: int) -> None:
    import numpy as np
    import torch

    rng = np.random.default_rng(seed)
    norms = {name for name, each in model.named_modules() if "Norm" in type(each).__name__}
    state = model.state_dict()
    for key, value in state.items():
        if value.is_floating_point():
            scale = key.endswith(".weight") and key.removesuffix(".weight") in norms
            state[key] = torch.tensor(random_value("scale" if scale else key, value.shape, rng))
    model.load_state_dict(state)


def structure(model: Any) -> tuple[dict[str, int] | None, int]:
    """How many layers of each kind (None where a module is of another kind) and parameters the file should have."""
    from torch import nn

    kinds: Counter[str] = Counter()
    parameters, known = 0, True
    table = {
        nn.modules.conv._ConvNd: "conv",
        nn.modules.batchnorm._BatchNorm: "batchnorm",
        nn.Linear: "dense",
        nn.MultiheadAttention: "dense",
        nn.LayerNorm: "norm",
        nn.GroupNorm: "norm",
    }
    for module in model.modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        size = sum(tensor.numel() for tensor in own if tensor.is_floating_point())
        if size:
            parameters += size
            kind = next((kind for type_, kind in table.items() if isinstance(module, type_)), None)
            known = known and kind is not None
            kinds[kind or ""] += 1
    return (dict(kinds) if known else None), parameters


# --- The file ---


def export(model: Any, size: int, out: Path, exporter: str, merged: bool, channels: int = 3) -> None:
    """Export with any number of images, and hold the file against the model."""
    import torch

    images = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(images).numpy()
    common: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    if exporter == "dynamo":
        how = {"dynamo": True, "optimize": merged, "external_data": False}  # optimizing merges batch norms
        how["dynamic_shapes"] = ({0: torch.export.Dim("N")},)
    else:
        how = {"dynamo": False, "opset_version": 17, "dynamic_axes": {"input": {0: "N"}, "logits": {0: "N"}}}
        if not merged:  # either of the two keeps batch norms
            how |= {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    say(f"exporting with PyTorch {torch.__version__}, exporter {exporter}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript's exporter is the older one, and what it can't fold
        torch.onnx.export(model, (images,), str(out), **common, **how)
    if not merged:
        tensors = {key: value.numpy() for key, value in model.state_dict().items() if value.is_floating_point()}
        unchanged(out, {key: value for key, value in tensors.items() if value.size > 1})
    agree(out, images.numpy(), expected, "PyTorch")


if __name__ == "__main__":
    main()
