"""From the file's graph to what ONNX Runtime's optimizer gets: refusals, functions inlined, constants lifted, rewrites."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxnoise.errors import ModelError
from onnxnoise.graph import attribute
from onnxnoise.modelfile import ModelFile, all_nodes, all_tensors, graphs
from onnxnoise.shapes import check_sizes, infer_shapes

_DYNAMIC_QUANTIZATION = frozenset(
    ("DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
)
_PACKED = frozenset(("QGemm", "QAttention", "QMoE", "MatMulNBits", "MatMulBnb4", "MatMulIntegerToFloat"))
_KERNEL_SECOND = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))


@dataclass(frozen=True)
class Prepared:
    """`model` is a serialized ModelProto for ONNX Runtime; `computed` names values made of one-element constants alone."""

    model: bytes
    computed: frozenset[str]


def prepared(file: ModelFile) -> Prepared:
    """The file's graph, ready for the optimizer; raises ModelError with the reason where it can't be measured."""
    import onnx_ir as ir  # noqa: PLC0415  half a second, and many commands never get here
    from onnx_ir.passes import common  # noqa: PLC0415

    from onnxnoise import restore  # noqa: PLC0415

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
        model.ir_version = max(model.ir_version, 4)
        draft = ir.serde.serialize_model(model)
        _check_inputs(draft, file.path)
        check_sizes(draft, file.path)
        restore.upcast_half(model)
        restore.set_shapes(model, infer_shapes(draft))
        restore.drop_zero_biases(model)
        restore.restore_batch_norms(model)
        restore.restore_prelu(model)
        proto = ir.serde.serialize_model(model)
        computed = restore.computed(model)
        _drop_unused_inputs(proto.graph)
        return Prepared(proto.SerializeToString(), computed)
    except ModelError:
        raise
    except Exception as error:  # onnx-ir's exceptions share no base; a malformed graph can raise any
        raise ModelError(f"{file.path}: its graph is malformed: {str(error) or type(error).__name__}") from error


def _refuse(file: ModelFile) -> None:
    """What can't be measured honestly, told from the file as it is."""
    path = file.path
    nodes = list(all_nodes(file.stub))
    dynamic = sorted({node.op_type for node in nodes} & _DYNAMIC_QUANTIZATION)
    if dynamic:
        raise ModelError(
            f"{path}: dynamically quantized ({', '.join(dynamic)}): its weights are integers that the noise can't reach; "
            "export the float model, or quantize statically in QDQ format"
        )
    integer = sorted({n.op_type for n in nodes if n.op_type.startswith(("QLinear", "QOrdered")) or n.op_type in _PACKED})
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
            raise ModelError(training_mode(path, node, "uses the statistics of the batch"))


def training_mode(path: Path | str, node: onnx.NodeProto, fault: str) -> str:
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
    if missing and not kernels & {tensor.name for tensor in model.graph.initializer}:
        raise ModelError(
            f"{path}: no weights in the file: its {len(missing)} kernels are inputs without a value; "
            "export with the parameters inside (torch: export_params=True)"
        )
    if len(inputs) != 1:
        shown = ", ".join(repr(name) for name in inputs[:5]) + (", ..." if len(inputs) > 5 else "")
        raise ModelError(
            f"{path}: {len(inputs)} inputs need values ({shown}); a classifier takes one image input: "
            "export with the others as constants"
        )


def _read(graph: onnx.GraphProto) -> set[str]:
    """Names that any node of a graph or of its subgraphs reads, or that are the graph's outputs."""
    nodes: Iterable[onnx.NodeProto] = (node for inner in graphs(graph) for node in inner.node)
    return {name for node in nodes for name in node.input} | {o.name for inner in graphs(graph) for o in inner.output}


def _drop_unused_inputs(graph: onnx.GraphProto) -> None:
    used = _read(graph)
    for info in [info for info in graph.input if info.name not in used]:
        graph.input.remove(info)
