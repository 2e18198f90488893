"""Files that can't be measured honestly: each is refused with the node, the reason and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from onnxnoise.errors import ModelError
from onnxnoise.model.checks.mixing import mixing_node
from onnxnoise.model.files.file import ModelFile
from onnxnoise.model.protobuf import all_nodes, all_tensors, graphs, read_names
from onnxnoise.runtime.protos import attribute, named, nested, reads, subgraphs

if TYPE_CHECKING:
    from onnxnoise.model.classifier import Classifier

_DYNAMIC_QUANTIZATION = frozenset(
    ("DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
)
_PACKED = frozenset(("QGemm", "QAttention", "QMoE", "MatMulNBits", "MatMulBnb4", "MatMulIntegerToFloat"))
_KERNEL_SECOND = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
_RANDOM = frozenset(
    ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")
)


def refuse_unmeasurable(file: ModelFile) -> None:
    """Raise ModelError for a file that can't be measured honestly, as far as its nodes and tensors tell."""
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
    constant = _Constants(file.stub.graph)
    for node in nodes:
        trains = node.op_type == "BatchNormalization" and (attribute(node, "training_mode", 0) or any(node.output[1:]))
        if trains and not constant.makes(node.input[0]):
            raise ModelError(training_mode(path, node, "uses the statistics of the batch"))


class _Constants:
    """Tells which values of a graph are made of constants alone: a kernel that is standardized depends on no batch."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.given = {tensor.name for tensor in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output if name}

    def makes(self, name: str) -> bool:
        waiting, seen = [name], set[str]()
        while waiting:
            each = waiting.pop()
            if each in self.given or each in seen or not each:
                continue
            if each not in self.makers:
                return False
            seen.add(each)
            waiting += reads(self.makers[each])
        return True


def check_inputs(model: onnx.ModelProto, path: Path) -> None:
    """Raise ModelError unless the graph has its weights, and one input that they don't give a value to."""
    used = read_names(model.graph)
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


def refuse_dropout(model: onnx.ModelProto, path: Path) -> None:
    """Raise ModelError for a Dropout that is switched on by a constant; ONNX Runtime's optimizer would take it away."""
    switches = {t.name: t for t in model.graph.initializer if t.data_type == onnx.TensorProto.BOOL}
    for node in nested(model.graph.node):
        switch = switches.get(node.input[2]) if node.op_type == "Dropout" and len(node.input) > 2 else None
        if switch is not None and onnx.numpy_helper.to_array(switch).any():
            raise ModelError(training_mode(path, node, "drops values at random"))


def refuse_chance(
    nodes: Iterable[onnx.NodeProto], constants: Mapping[str, Any], raw: onnx.ModelProto, path: Path
) -> None:
    """Raise ModelError where one of `nodes`, or of the nodes in their subgraphs, draws random numbers.

    ONNX Runtime writes some of them as others; `raw`, the graph as read, has their names.
    """
    for node in nested(nodes):
        if node.domain not in ("", "com.microsoft"):
            continue
        if node.op_type in _RANDOM:
            known = node if node.name else next((each for each in all_nodes(raw) if each.op_type in _RANDOM), node)
            raise ModelError(training_mode(path, known, "draws random numbers (stochastic depth or noise left on?)"))
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] and node.input[2] not in constants:
            raise ModelError(training_mode(path, node, "drops values at random where its third operand says so"))


def refuse_mixing(classifier: Classifier) -> None:
    """Raise ModelError where a node computes over all images of a batch: an image's class would depend on the others."""
    mixing = None
    if classifier.image.batch != 1:
        opset = classifier.opsets.get("", 1)
        mixing = mixing_node(classifier.nodes, classifier.constants, classifier.shapes, classifier.image.name, opset)
    if mixing is not None and mixing.op_type.startswith("Reduce"):
        raise ModelError(training_mode(classifier.path, mixing, "takes its statistics from all images of a batch"))
    if mixing is not None:
        raise ModelError(
            f"{classifier.path}: {named(mixing)} computes over all images of a batch, so an "
            "image's class would depend on the images beside it; export it so that it works along the classes"
        )


def training_mode(path: Path, node: onnx.NodeProto, fault: str) -> str:
    """The message for a node that only a training graph has."""
    return (
        f"{path}: exported in training mode: {named(node)} {fault}, so an image's class "
        "would depend on more than the image; call model.eval() (or build the inference graph) and export again"
    )
