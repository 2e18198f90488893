"""Tiny classifiers as ONNX text: every graph input but the first becomes an initializer with seeded random values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from onnxnoise.engine.segments import Cutter
from onnxnoise.model.classifier import Classifier, load_classifier
from onnxnoise.model.network import Network

Array = npt.NDArray[Any]


def model(
    text: str,
    values: Mapping[str, Any] | None = None,
    *,
    opset: int = 18,
    seed: int = 0,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model from `(float[N,3,8,8] x, float[4,3,3,3] w) => (float[N,10] y) { ... }`, functions after it.

    Initializers named `var...` are positive. `values` gives some initializers their values; None leaves one an input.
    """
    imports = ", ".join([f'"": {opset}', *(f'"{domain}": 1' for domain in domains)])
    proto = onnx.parser.parse_model(f"<ir_version: 9, opset_import: [{imports}]> g {text}")
    random = np.random.default_rng(seed)
    given = dict(values or {})
    for info in list(proto.graph.input)[1:]:
        shape = tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        drawn = random.normal(0.1, 0.5, shape)
        value = given.pop(info.name, np.abs(drawn) + 0.2 if info.name.startswith("var") else drawn)
        if value is None:
            continue
        array = np.asarray(value)
        filled = (array.reshape(shape) if array.size > 1 else np.broadcast_to(array, shape)).astype(dtype)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(filled, info.name))
        proto.graph.input.remove(info)
    assert not given, f"no such initializers: {sorted(given)}"
    return proto


def saved(proto: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def load(proto: onnx.ModelProto, folder: Path, **options: Any) -> Classifier:
    return load_classifier(saved(proto, folder), **options)


def initializers(proto: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def image(shape: Iterable[int | str | None], seed: int = 7, batch: int = 2) -> Array:
    sides = [size if isinstance(size, int) and size else batch for size in shape]
    return np.random.default_rng(seed).normal(0, 1, sides).astype(np.float32)


def run(proto: onnx.ModelProto, x: Array, output: str | None = None) -> Array:
    """What ONNX Runtime makes of the file as it is, nothing optimized."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = output or session.get_outputs()[0].name
    result: Array = session.run([name], {session.get_inputs()[0].name: x})[0]
    return result


def logits(network: Network, x: Array, replaced: Mapping[str, Array] | None = None) -> Array:
    """The network's logits (images, classes), some of its constants replaced."""
    cutter = Cutter(network)
    segment = cutter.segment(
        0, cutter.end, {network.image.name: (onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)}
    )
    constants = {**network.constants, **(replaced or {})}
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    references = {name: ort.OrtValue.ortvalue_from_numpy(constants[name]) for name in segment.references}
    if references:
        options.add_external_initializers(list(references), list(references.values()))
    stub = onnx.ModelProto.FromString(segment.stub)
    for tensor in stub.graph.initializer:
        if tensor.name in (replaced or {}) and tensor.name not in references:
            tensor.CopyFrom(onnx.numpy_helper.from_array(constants[tensor.name], tensor.name))
    session = ort.InferenceSession(stub.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: Array = session.run(None, {network.image.name: x})[0]
    return result.reshape(result.shape[0], -1)


def kinds(network: Network) -> list[str]:
    return [layer.kind for layer in network.layers]


def members(network: Network) -> list[tuple[str, dict[int, str]]]:
    """(kind, role to initializer name) of each layer."""
    return [(layer.kind, {tensor.role: tensor.name for tensor in layer.tensors}) for layer in network.layers]
