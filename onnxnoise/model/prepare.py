"""From the file's graph to what ONNX Runtime's optimizer gets: refusals, functions inlined, constants lifted, rewrites."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from onnxnoise.errors import ModelError
from onnxnoise.model.file import ModelFile, all_nodes, all_tensors, graphs
from onnxnoise.model.shapes import check_sizes, infer_shapes, infer_types
from onnxnoise.model.stub import INLINE_BYTES
from onnxnoise.runtime.protos import attribute, nested, subgraphs

if TYPE_CHECKING:
    import onnx_ir as ir

_DYNAMIC_QUANTIZATION = frozenset(
    ("DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
)
_PACKED = frozenset(("QGemm", "QAttention", "QMoE", "MatMulNBits", "MatMulBnb4", "MatMulIntegerToFloat"))
_IR_VERSION = 10
"""The newest that ONNX Runtime gets to see: later ones change no classifier, but a release refuses those it does not know."""
_KERNEL_SECOND = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))

logging.getLogger("onnx_ir").addHandler(logging.NullHandler())  # else its warnings end on stderr


@dataclass(frozen=True)
class Prepared:
    """`model` is a serialized ModelProto for ONNX Runtime; `origins` tells what constant folding will make values of."""

    model: bytes
    origins: Mapping[str, tuple[str, ...]]


def prepared(file: ModelFile) -> Prepared:
    """The file's graph, ready for the optimizer; raises ModelError with the reason where it can't be measured."""
    import onnx_ir as ir
    from onnx_ir.passes import common

    from onnxnoise.model import origins
    from onnxnoise.model.passes import batch_norms as decomposed
    from onnxnoise.model.passes import zero_biases as restore

    _refuse(file)
    try:
        model = ir.serde.deserialize_model(file.stub)
        ir.external_data.set_base_dir(model.graph, file.folder)
        for step in (
            common.InlinePass(),
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.LiftSubgraphInitializersToMainGraphPass(),
            common.RemoveInitializersFromInputsPass(),
            common.RemoveUnusedNodesPass(),
            common.TopologicalSortPass(),
        ):
            step(model)
        _read_small(model)
        model.ir_version = min(max(model.ir_version, 4), _IR_VERSION)
        draft = ir.serde.serialize_model(model)
        _check_inputs(draft, file.path)
        _refuse_dropout(draft, file.path)
        check_sizes(draft, file.path)
        shapes = infer_shapes(draft)
        if any(node.op_type == "CastLike" for node in nested(draft.graph.node)):
            restore.name_casts(model, infer_types(draft))
        restore.to_single(model)
        restore.fold_shapes(model, shapes)
        restore.fold_sequences(model)
        restore.drop_zero_biases(model)
        decomposed.restore_batch_norms(model, shapes)
        restore.restore_prelu(model)
        proto = ir.serde.serialize_model(model)
        behind = origins.origins(model)
        _drop_unused_inputs(proto.graph)
        return Prepared(proto.SerializeToString(), behind)
    except ModelError:
        raise
    except Exception as error:  # onnx-ir's exceptions share no base; a malformed graph can raise any
        raise ModelError(f"{file.path}: its graph is malformed: {_root(error)}; export it again") from error


def _read_small(model: ir.Model) -> None:
    """Small tensors that lie in other files come inside, in place: ONNX Runtime wants shapes and axes there."""
    import onnx_ir as ir

    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes <= INLINE_BYTES:
            value.const_value = ir.tensor(tensor.numpy().copy(), name=value.name)


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _refuse(file: ModelFile) -> None:
    """What can't be measured honestly, told from the file as it is."""
    path = file.path
    if file.stub.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"{path}: its IR version {file.stub.ir_version} is newer than the onnx package here knows ({onnx.IR_VERSION}); "
            "update it (pip install -U onnx), or export with an older onnx"
        )
    nodes = list(all_nodes(file.stub))
    dynamic = sorted({node.op_type for node in nodes} & _DYNAMIC_QUANTIZATION)
    if dynamic:
        raise ModelError(
            f"{path}: dynamically quantized ({', '.join(dynamic)}): its weights are integers that the noise can't reach; "
            "export the float model, or quantize statically in QDQ format"
        )
    integer = sorted(
        {n.op_type for n in nodes if n.op_type.startswith(("QLinear", "QOrdered")) or n.op_type in _PACKED}
    )
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
    if any(tensor.data_type == onnx.TensorProto.BFLOAT16 for tensor in all_tensors(file.stub)):
        raise ModelError(
            f"{path}: its weights are bfloat16, which ONNX Runtime's CPU kernels don't have; export it as float32"
        )
    if any(graph.sparse_initializer for graph in graphs(file.stub.graph)) or any(
        a.HasField("sparse_tensor") for node in nodes for a in node.attribute
    ):
        raise ModelError(f"{path}: has sparse tensors, whose zeros the noise could not reach; export them dense")
    for node in nodes:
        if node.op_type == "BatchNormalization" and (attribute(node, "training_mode", 0) or any(node.output[1:])):
            raise ModelError(_training_mode(path, node, "uses the statistics of the batch"))


def _refuse_dropout(model: onnx.ModelProto, path: Path) -> None:
    switches = {t.name: t for t in model.graph.initializer if t.data_type == onnx.TensorProto.BOOL}
    for node in model.graph.node:
        switch = switches.get(node.input[2]) if node.op_type == "Dropout" and len(node.input) > 2 else None
        if switch is not None and onnx.numpy_helper.to_array(switch).any():
            raise ModelError(_training_mode(path, node, "drops values at random"))


def _training_mode(path: Path, node: onnx.NodeProto, fault: str) -> str:
    """The message for a node that only a training graph has."""
    return (
        f"{path}: exported in training mode: {node.op_type} {node.name or node.output[0]!r} {fault}, so an image's class "
        "would depend on more than the image; call model.eval() (or build the inference graph) and export again"
    )


def _check_inputs(model: onnx.ModelProto, path: Path) -> None:
    used = _read(model.graph)
    inputs = [info.name for info in model.graph.input if info.name in used]
    kernels = {n.input[1] for n in model.graph.node if n.op_type in _KERNEL_SECOND and len(n.input) > 1}
    missing = kernels & set(inputs)
    weights = {tensor.name for tensor in model.graph.initializer}
    if missing and not kernels & weights:
        raise ModelError(
            f"{path}: no weights in the file: its {len(missing)} kernels are inputs without a value; "
            "export with the parameters inside (torch: export_params=True)"
        )
    unknown = used - {name for node in nested(model.graph.node) for name in node.output} - weights - set(inputs)
    unknown -= {info.name for node in nested(model.graph.node) for graph in subgraphs(node) for info in graph.input}
    if unknown:
        raise ModelError(f"{path}: nothing in the file makes the value {min(unknown)!r}; it is broken, export it again")
    if len(inputs) != 1:
        shown = ", ".join(repr(name) for name in inputs[:5]) + (", ..." if len(inputs) > 5 else "")
        raise ModelError(
            f"{path}: {len(inputs)} inputs need values ({shown}); a classifier takes one image input: "
            "export with the others as constants"
            if inputs
            else f"{path}: its outputs depend on no input; a classifier takes one image input"
        )


def _read(graph: onnx.GraphProto) -> set[str]:
    """Names that any node of a graph or of its subgraphs reads, or that are the graph's outputs."""
    inner = list(graphs(graph))
    return {name for each in inner for node in each.node for name in node.input if name} | {
        info.name for each in inner for info in each.output
    }


def _drop_unused_inputs(graph: onnx.GraphProto) -> None:
    used = _read(graph)
    for info in [info for info in graph.input if info.name not in used]:
        graph.input.remove(info)
