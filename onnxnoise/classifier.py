"""From an ONNX file to a normalized classifier: one image input, logits, every weight a float32 constant."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from onnxnoise import session
from onnxnoise.errors import ModelError, UsageError
from onnxnoise.graph import LAYOUT, QUANTIZE, Graph, attribute, needed, reads
from onnxnoise.modelfile import ModelFile, read_model

Array = npt.NDArray[Any]

_DYNAMIC_QUANTIZATION = {
    "DynamicQuantizeLinear",
    "ConvInteger",
    "MatMulInteger",
    "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
}
_KERNEL_SECOND = {"Conv", "ConvTranspose", "Gemm"}
_FLOAT, _UINT8, _BFLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8, onnx.TensorProto.BFLOAT16


@dataclass(frozen=True)
class ImageInput:
    """The graph's image input: rank 4, None for a dimension that is free; layout None where the shape doesn't tell."""

    name: str
    dtype: Literal["float32", "uint8"]
    shape: tuple[int | None, ...]
    layout: Literal["nchw", "nhwc"] | None

    @property
    def batch(self) -> int | None:
        """The fixed batch size, None where it is free."""
        return self.shape[0]


@dataclass(frozen=True)
class Classifier:
    """A normalized network: nodes in an executable order, constants by name, the image input and the logits' name.

    `classes` is None where the file doesn't tell. `raw` is the graph as read, for what normalizing removed.
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
    raw: onnx.ModelProto


def load_classifier(path: Path, *, output: str | None = None) -> Classifier:
    """Read and normalize the ONNX file at `path` (DESIGN 3.1).

    `output` names the logits where a file has several outputs. Raises ModelError with the reason if the file can't be
    used: not ONNX, cut short, training-mode batch norms, dynamically quantized or integer operators, no weights, no image input,
    no classifier output; UsageError if `output` is not one of the file's.
    """
    file = read_model(path)
    _refuse(file)
    optimized = session.normalize(_prepared(file), path.parent, str(path))
    constants = _values(optimized, path.parent)
    image = _image_input(optimized, constants, path)
    logits, classes = _logits(optimized, path, output)
    nodes = [n for n in optimized.graph.node if n.op_type != "Constant"]
    logits = _before_softmax(Graph(nodes, constants), logits)
    nodes = needed(nodes, logits)
    used = {name for node in nodes for name in reads(node)}
    domains = {node.domain for node in nodes} | {""}
    if image.name not in used:
        raise ModelError(f"{path}: output {logits!r} does not depend on the image input {image.name!r}")
    return Classifier(
        name=path.stem,
        path=path,
        sha256=file.sha256,
        nodes=tuple(nodes),
        constants={name: value for name, value in constants.items() if name in used},
        opsets={o.domain: o.version for o in optimized.opset_import if o.domain in domains},
        image=image,
        logits=logits,
        classes=classes,
        metadata={p.key: p.value for p in file.stub.metadata_props},
        raw=file.stub,
    )


def _refuse(file: ModelFile) -> None:
    """What can't be measured honestly, told from the file as it is."""
    path, graph = file.path, file.stub.graph
    nodes = [*graph.node, *(node for function in file.stub.functions for node in function.node)]
    operators = {node.op_type for node in nodes}
    dynamic = sorted(operators & _DYNAMIC_QUANTIZATION)
    if dynamic:
        raise ModelError(
            f"{path}: dynamically quantized ({', '.join(dynamic)}): its weights are integers that the noise can't reach; "
            "export the float model, or quantize statically in QDQ format"
        )
    integer = sorted(op for op in operators if op.startswith("QLinear") or op == "QGemm")
    if integer:
        raise ModelError(
            f"{path}: quantized with integer operators ({', '.join(integer)}); "
            "export the float model, or quantize in QDQ format (quant_format=QuantFormat.QDQ)"
        )
    if any(node.domain == "com.microsoft.nchwc" for node in nodes):
        raise ModelError(
            f"{path}: saved by ONNX Runtime in a vendor layout (com.microsoft.nchwc), with weights blocked for one processor; "
            "use the file it was made from"
        )
    if any(t.data_type == _BFLOAT16 for t in graph.initializer):
        raise ModelError(
            f"{path}: its weights are bfloat16, which ONNX Runtime's CPU kernels don't have; export it as float32"
        )
    for node in nodes:
        if node.op_type == "BatchNormalization" and (attribute(node, "training_mode", 0) or len(node.output) > 1):
            raise ModelError(_training(path, node))


def _training(path: Path, node: onnx.NodeProto) -> str:
    return (
        f"{path}: exported in training mode: batch norm {node.name or node.output[0]!r} uses the statistics of the batch, so an "
        "image's class would depend on its neighbours; call model.eval() (or build the inference graph) and export again"
    )


def _prepared(file: ModelFile) -> bytes:
    """The stub with functions inlined, constants lifted to initializers and what ORT's optimizer would spoil rewritten."""
    import onnx_ir as ir  # noqa: PLC0415  half a second, and many commands never get here
    from onnx_ir.passes import common  # noqa: PLC0415

    from onnxnoise import restore  # noqa: PLC0415

    try:
        model = ir.serde.deserialize_model(file.stub)
        ir.external_data.set_base_dir(model.graph, file.path.parent)
        for step in (
            common.InlinePass(),
            common.LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=0),
            common.LiftSubgraphInitializersToMainGraphPass(),
            common.RemoveInitializersFromInputsPass(),
            common.RemoveUnusedNodesPass(),
        ):
            step(model)
        restore.upcast_half(model)
        restore.restore_batch_norms(model)
        restore.restore_prelu(model)
        model.ir_version = max(model.ir_version, 4)
        proto = ir.serde.serialize_model(model)
    except ModelError:
        raise
    except Exception as error:  # onnx-ir's exceptions share no base; a malformed graph can raise any
        raise ModelError(f"{file.path}: its graph is malformed: {error}") from error
    _check_inputs(proto, file.path)
    _check_sizes(proto, file.path)
    serialized: bytes = proto.SerializeToString()
    return serialized


def _check_inputs(proto: onnx.ModelProto, path: Path) -> None:
    inputs = [i.name for i in proto.graph.input]
    kernels = {n.input[1] for n in proto.graph.node if n.op_type in _KERNEL_SECOND and len(n.input) > 1}
    if kernels and kernels <= set(inputs):
        raise ModelError(
            f"{path}: no weights in the file: its {len(kernels)} kernels are inputs without a value; "
            "export with the parameters inside (torch: export_params=True)"
        )
    if len(inputs) != 1:
        shown = ", ".join(repr(name) for name in inputs[:5]) + (", ..." if len(inputs) > 5 else "")
        raise ModelError(
            f"{path}: {len(inputs)} inputs need values ({shown}); a classifier takes one image input: "
            "export with the others as constants"
        )


def _check_sizes(proto: onnx.ModelProto, path: Path) -> None:
    """A few bytes can ask for terabytes (ConstantOfShape, Expand): refuse before ONNX Runtime's constant folding tries."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 36
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception:  # ONNX Runtime will say what is wrong with it
        return
    for info in (*inferred.graph.value_info, *inferred.graph.output):
        tensor = info.type.tensor_type
        elements = prod(d.dim_value if d.HasField("dim_value") else 1 for d in tensor.shape.dim)
        if elements * 4 > limit:
            shape = "x".join(str(d.dim_value or "?") for d in tensor.shape.dim)
            raise ModelError(
                f"{path}: value {info.name!r} of shape {shape} would take {elements * 4 / 1e9:,.0f} GB, "
                "more than this machine has"
            )


def _values(model: onnx.ModelProto, folder: Path) -> dict[str, Array]:
    """Every initializer's value; external ones are read straight into memory of their own."""
    values: dict[str, Array] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            values[tensor.name] = np.array(onnx.numpy_helper.to_array(tensor))  # the message must not stay in memory
            continue
        where = {entry.key: entry.value for entry in tensor.external_data}
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        flat = np.fromfile(folder / where["location"], dtype, prod(tensor.dims), offset=int(where.get("offset", 0)))
        values[tensor.name] = flat.reshape(tuple(tensor.dims))
    for value in values.values():
        value.flags.writeable = False
    return values


def _shape(info: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim)


def _image_input(model: onnx.ModelProto, constants: Mapping[str, Array], path: Path) -> ImageInput:
    (info,) = [i for i in model.graph.input if i.name not in constants]
    shape = _shape(info)
    element = info.type.tensor_type.elem_type
    described = f"input {info.name!r} of type {onnx.TensorProto.DataType.Name(element)} and shape {_printed(shape)}"
    if shape is None or len(shape) != 4:
        raise ModelError(
            f"{path}: no image input: {described}; an image input has four dimensions (N,C,H,W or N,H,W,C)"
        )
    if element not in (_FLOAT, _UINT8):
        raise ModelError(f"{path}: {described}; an image input is float32, float16 or uint8")
    return ImageInput(info.name, "float32" if element == _FLOAT else "uint8", shape, _layout(model, info.name, shape))


def _printed(shape: tuple[int | None, ...] | None) -> str:
    return "unknown" if shape is None else "x".join("?" if d is None else str(d) for d in shape)


def _layout(model: onnx.ModelProto, name: str, shape: tuple[int | None, ...]) -> Literal["nchw", "nhwc"] | None:
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first != last:
        return "nchw" if first else "nhwc"
    for node in model.graph.node:
        if name in node.input and node.op_type == "Transpose":
            return "nhwc" if list(attribute(node, "perm", [])) == [0, 3, 1, 2] else None
        if name in node.input and node.op_type == "Conv":
            return "nchw"
    return None


def _logits(model: onnx.ModelProto, path: Path, wanted: str | None) -> tuple[str, int | None]:
    """(name of the output that ranks the classes, its number of columns where the file tells)."""
    outputs = {o.name: o for o in model.graph.output}
    if wanted is not None:
        if wanted not in outputs:
            raise UsageError(f"{path} has no output {wanted!r}; it has {', '.join(outputs)}")
        outputs = {wanted: outputs[wanted]}
    fitting = {}
    for name, info in outputs.items():
        shape = _shape(info)
        flat = shape is None or len(shape) == 2 or (len(shape) > 2 and all(d == 1 for d in shape[2:]))
        if info.type.tensor_type.elem_type == _FLOAT and flat and (shape is None or shape[1] is None or shape[1] > 1):
            fitting[name] = None if shape is None else shape[1]
    if not fitting:
        listed = ", ".join(f"{name!r} {_printed(_shape(info))}" for name, info in outputs.items())
        raise ModelError(
            f"{path}: no classifier output among {listed}; one float row of class scores an image is needed"
        )
    if len(fitting) > 1:
        listed = ", ".join(f"{name!r} ({columns or '?'} columns)" for name, columns in fitting.items())
        raise ModelError(f"{path}: several outputs could be the logits: {listed}; say which with --output NAME")
    return next(iter(fitting.items()))


def _before_softmax(graph: Graph, output: str) -> str:
    """The input of a final Softmax or LogSoftmax (only layout and quantization after it), else `output` itself."""
    name = output
    while (maker := graph.producer.get(name)) is not None:
        node = graph.nodes[maker]
        if node.op_type in ("Softmax", "LogSoftmax") and not node.domain:
            return str(node.input[0])
        if node.op_type not in LAYOUT | QUANTIZE:
            break
        name = node.input[0]
    return output
