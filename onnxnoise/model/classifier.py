"""Makes a normalized classifier of an ONNX file: one image input, logits, every weight a float32 constant."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from onnxnoise.errors import ModelError
from onnxnoise.model.checks.refusals import refuse_chance, refuse_mixing
from onnxnoise.model.ends.fixed_batch import FixedBatch, fixed_batch
from onnxnoise.model.ends.image_input import image_input
from onnxnoise.model.ends.logits import find_logits
from onnxnoise.model.files.file import read_model
from onnxnoise.model.graph import Graph, needed
from onnxnoise.model.layers.fused_attention import split_attention
from onnxnoise.model.prepare import prepared
from onnxnoise.model.repeats import stored_once
from onnxnoise.model.shapes import infer
from onnxnoise.records import ImageInput, Shape
from onnxnoise.runtime import session
from onnxnoise.runtime.optimizer import normalize
from onnxnoise.runtime.protos import nested, reads, values

Array = npt.NDArray[Any]

_RENAMED = re.compile(r"^(?:UnsqueezeElimination_|ConvAddFusion_(?:Add_)?B_)+")
"""Prefixes that ONNX Runtime gives to the name of an initializer that it reshapes."""


Classes = Callable[[Mapping[str, str]], int | None]
"""A function from a file's metadata to the number of columns of its logits, called where several outputs could be those."""


@dataclass(frozen=True)
class Classifier:
    """A normalized network: nodes in an executable order, constants by name, the image input and the logits' name.

    `classes` is None where the file doesn't say. `shapes` has the values whose rank could be inferred. `origins` names the
    weights in each constant that normalizing computed. `raw` is the graph as read, with the marks that normalizing removes; its
    external tensors lie in `folder`.
    `fixed` says which node fixes the batch size of a graph that declares none.
    """

    name: str
    path: Path
    sha256: str
    nodes: tuple[onnx.NodeProto, ...]
    constants: Mapping[str, Array]
    opsets: Mapping[str, int]
    image: ImageInput
    logits: str
    classes: int | None
    metadata: Mapping[str, str]
    shapes: Mapping[str, Shape]
    origins: Mapping[str, tuple[str, ...]]
    raw: onnx.ModelProto
    folder: Path
    fixed: FixedBatch | None = None

    def behind(self, constant: str) -> tuple[str, ...]:
        """The file's tensors of more than one element behind a constant: itself, or those that it was computed from."""
        name = _RENAMED.sub("", constant)
        return self.origins.get(name, (name,))


def load_classifier(path: Path, *, output: str | None = None, classes: Classes = lambda _: None) -> Classifier:
    """Read and normalize the ONNX file at `path`.

    Where a file has several outputs, `output` names the logits, or `classes` tells how many columns they have. Raises ModelError
    with the reason if the file can't be used: not ONNX, cut short, exported in training mode, integer operators, no weights, no
    image input, no classifier output; UsageError if `output` is not one of the file's.
    """
    file = read_model(path)
    ready = prepared(file)
    try:
        optimized = normalize(ready.model, file.folder, str(path))
    except ModelError as error:
        raise ModelError(_explained(str(error), file.stub, path)) from error
    constants = _constants(optimized, file.folder)
    image = image_input(optimized, constants, path)
    # a node of the message itself would keep all its tensors in memory
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in optimized.graph.node if n.op_type != "Constant"]
    metadata = {p.key: p.value for p in file.stub.metadata_props}
    shapes, types = infer(optimized)
    graph = Graph(nodes, constants, shapes)
    logits, columns = find_logits(
        optimized.graph.output, graph, image.name, path, output, lambda: classes(metadata), types
    )
    nodes = needed(nodes, logits)
    refuse_chance(nodes, constants, file.stub, path)
    opset = next((each.version for each in optimized.opset_import if not each.domain), 1)
    fixed = fixed_batch(nodes, constants, shapes, image.name, opset) if image.batch is None else None
    if fixed is not None:
        image = replace(image, shape=(fixed.images, *image.shape[1:]))
    nodes, constants = stored_once(nodes, constants, image.batch)
    nodes, constants = split_attention(nodes, constants)
    used = {name for node in nodes for name in reads(node)}
    domains = {node.domain for node in nested(nodes)} | {""}
    classifier = Classifier(
        name=path.stem,
        path=path,
        sha256=file.sha256,
        nodes=tuple(nodes),
        constants={name: value for name, value in constants.items() if name in used},
        opsets={o.domain: o.version for o in optimized.opset_import if o.domain in domains},
        image=image,
        logits=logits,
        classes=columns,
        metadata=metadata,
        shapes=shapes,
        origins=ready.origins,
        raw=file.stub,
        folder=file.folder,
        fixed=fixed,
    )
    refuse_mixing(classifier)
    return classifier


def _explained(message: str, stub: onnx.ModelProto, path: Path) -> str:
    """The message for ONNX Runtime's refusal, with what to do about it where that is known."""
    if newest := re.search(r"support for domain ai\.onnx is till opset (\d+)", message):
        opset = next((each.version for each in stub.opset_import if each.domain in ("", "ai.onnx")), "?")
        return (
            f"{path}: its opset {opset} is newer than what ONNX Runtime {session.VERSION} runs ({newest[1]}); export with "
            f"opset {newest[1]} or older (torch: opset_version, tf2onnx: --opset), or update ONNX Runtime"
        )
    if unknown := re.search(r"(\S+)\(-?\d+\) is not a registered function/op|No Op registered for (\S+)", message):
        return f"{path}: ONNX Runtime knows no operator {unknown[1] or unknown[2]}; export without it, with ONNX's own operators"
    return message


def _constants(model: onnx.ModelProto, folder: Path) -> dict[str, Array]:
    """Every initializer's value by name, read-only; external tensors are read straight from their file."""
    found = {tensor.name: values(tensor, folder) for tensor in model.graph.initializer}
    for value in found.values():
        value.flags.writeable = False
    return found
