"""One chip as a file: a model with one draw of noise stored in its weights, an ordinary ONNX file."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxnoise.engine.layer_noise import in_memory
from onnxnoise.engine.mapped import analog_layers
from onnxnoise.engine.segments import Cutter
from onnxnoise.errors import RunFileError, UsageError
from onnxnoise.files import check_output, make_place
from onnxnoise.model.network import Network
from onnxnoise.records import MeasuredAt, NoiseSetting, Shape
from onnxnoise.results.as_json import flat
from onnxnoise.run.loading import Subject, open_model
from onnxnoise.run.unattached import check_attached
from onnxnoise.spec import BenchSpec, only_level
from onnxnoise.words import DEFAULT_SEED, Analog, Policy, SigmaScope

Array = npt.NDArray[Any]

METADATA_KEY = "onnxnoise.chip"
_LARGEST_FILE = 2**31 - 2**20
"""The most bytes of weights inside a file: a protobuf message can have 2 GiB, and the nodes need room too."""

_IMAGE_TYPES = {
    "float32": onnx.TensorProto.FLOAT,
    "uint8": onnx.TensorProto.UINT8,
    "int8": onnx.TensorProto.INT8,
}


@dataclass(frozen=True)
class Chip(MeasuredAt):
    """A written chip: its noise, the number of noisy `parameters`, and of variances that the noise made negative.

    `layers` are the indices of the noisy layers; `model` has name and sha256 of the file the chip was made from.
    """

    path: str
    model: dict[str, str]
    draw: int
    layers: tuple[int, ...]
    parameters: int
    negative_variances: int


def apply(
    model: str,
    *,
    out: str | Path,
    snr: float | None = None,
    level: float | None = None,
    draw: int = 0,
    layers: str | None = None,
    noise: str = "gaussian",
    bn: Policy = "group",
    sigma_scope: SigmaScope = "tensor",
    scale: str = "tensor",
    analog: Analog | None = None,
    seed: int = DEFAULT_SEED,
    output: str | None = None,
    allow_unattached: bool = False,
) -> Chip:
    """Write the model as draw number `draw` stores it: noise of one level in `layers` (a pattern as of `--layers`; default: all).

    The level is `snr` for gaussian noise, `level` for any. The file has the normalized graph: its input takes what the model
    takes, its one output are the logits, before a final Softmax. Its hits are those of the run's cell: `all` for all layers,
    `single` for one, `cumulative` for the first ones. A file of more than 2 GB keeps its weights in a second one beside it,
    `<out>.data`.

    >>> chip = apply("resnet20-cifar10", snr=5, draw=1, layers="conv1,bn1", out="noisy.onnx")
    >>> chip.layers, chip.parameters
    ((1, 2), 512)

    Raises UsageError for unknown noise, an impossible level or draw, and a pattern that matches nothing; ModelError for a model
    that can't be used; RunFileError where `out` can't be written.
    """
    spec = BenchSpec(
        model,
        noise=noise,
        snrs=None if snr is None else (snr,),
        levels=None if level is None else (level,),
        layers=layers,
        bn=bn,
        sigma_scope=sigma_scope,
        scale=scale,
        analog=analog,
        seed=seed,
        output=output,
        allow_unattached=allow_unattached,
    )
    return write_chip(spec, out, draw)


def write_chip(spec: BenchSpec, out: str | Path, draw: int) -> Chip:
    """Write the model of `spec` as draw number `draw` stores it, at the spec's one level; see `apply`."""
    if draw < 0:
        raise UsageError("--draw: draws count from 0")
    setting, stored = spec.setting, only_level(spec)
    if setting.compensate == "bn":
        raise UsageError(
            "--compensate bn: recalibrates on images, and a chip is written without any; use none or drift"
        )
    subject = open_model(spec.model, bn=spec.bn, analog=setting.analog, layers=spec.layers, output=spec.output)
    check_attached(subject.network, spec.model, allowed=spec.allow_unattached)
    subject = replace(subject, layers=analog_layers(setting, subject.network.layers, subject.layers))
    path = _target(Path(out), subject)
    noisy, negative = _noisy(subject, setting, stored, draw)
    network = subject.network
    chip = Chip(
        noise=setting,
        path=str(path),
        model={"name": network.name, "sha256": network.sha256},
        level=stored,
        draw=draw,
        layers=tuple(layer.index for layer in subject.layers),
        parameters=sum(layer.parameters for layer in subject.layers),
        negative_variances=negative,
    )
    scores = subject.classifier.shapes.get(network.logits, (network.image.batch, network.classes))
    proto, size = _proto(network, noisy, scores)
    about = {**subject.classifier.metadata, METADATA_KEY: json.dumps(flat(chip) | {"path": path.name})}
    onnx.helper.set_model_props(proto, about)
    try:
        make_place(path)
        if size > _LARGEST_FILE:
            data = path.with_name(f"{path.name}.data")
            data.unlink(missing_ok=True)  # onnx would append to it
            onnx.save_model(proto, path, save_as_external_data=True, location=data.name)
        else:
            onnx.save_model(proto, path)
    except OSError as error:
        raise RunFileError(f"{path}: can't be written: {error.strerror or error}; name another file with -o") from error
    return chip


def _target(path: Path, subject: Subject) -> Path:
    check_output(path, "-o")
    if path.exists() and path.samefile(subject.classifier.path):
        raise RunFileError(f"{path}: is the model itself, which stays as it is; name another file with -o")
    return path


def _noisy(subject: Subject, setting: NoiseSetting, level: float, draw: int) -> tuple[dict[str, Array], int]:
    """(noisy constants by name, how many batch-norm variances the noise made negative)."""
    noisy: dict[str, Array] = {}
    negative = 0
    for layer in subject.layers:
        values, below = in_memory(layer, subject.network.constants, setting, draw).at(level)
        noisy |= values
        negative += below
    return noisy, negative


def _proto(network: Network, noisy: dict[str, Array], scores: Shape) -> tuple[onnx.ModelProto, int]:
    """(the whole network as a model with its weights inside, bytes of the weights); `scores` is the shape of the logits."""
    cutter, image = Cutter(network), network.image
    segment = cutter.segment(0, cutter.end, {image.name: (_IMAGE_TYPES[image.dtype], ())}, replaced=noisy)
    proto = onnx.ModelProto.FromString(segment.stub)
    for tensor in proto.graph.initializer:
        if tensor.name in segment.references:
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(np.ascontiguousarray(segment.references[tensor.name]), tensor.name)
            )
    _keep_floats(proto.graph)
    proto.graph.name = network.name
    del proto.graph.input[:], proto.graph.output[:]
    proto.graph.input.append(_info(image.name, _IMAGE_TYPES[image.dtype], image.shape))
    proto.graph.output.append(_info(network.logits, onnx.TensorProto.FLOAT, scores))
    return proto, sum(array.nbytes for array in segment.references.values())


def _keep_floats(graph: onnx.GraphProto) -> None:
    """Part what dequantizes activations from what uses them, by a sum of one operand, which changes no value.

    ONNX Runtime's default options turn a layer between activations that are dequantized and quantized into an integer one, whose
    float weights they quantize anew (WeightBiasQuantization): the noise would be lost. A sum is no part of such a group.
    """
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    constants = {tensor.name for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants:
            value = node.output[0]
            codes = f"{value}@codes"
            while codes in names:
                codes += "_"
            node.output[0] = codes
            nodes.append(onnx.helper.make_node("Sum", [codes], [value], name=f"{node.name or value}@float"))
    del graph.node[:]
    graph.node.extend(nodes)


def _info(name: str, element: int, shape: Shape) -> onnx.ValueInfoProto:
    named = [("N" if i == 0 else f"{name}_{i}") if side is None else side for i, side in enumerate(shape)]
    return onnx.helper.make_tensor_value_info(name, element, named)
