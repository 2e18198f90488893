"""Prepares a file's graph for ONNX Runtime's optimizer: refusals, functions inlined, constants lifted, rewrites."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from onnxnoise.errors import ModelError
from onnxnoise.model.checks.growth import check_growth
from onnxnoise.model.checks.refusals import check_inputs, refuse_dropout, refuse_unmeasurable
from onnxnoise.model.files.file import ModelFile
from onnxnoise.model.files.stub import INLINE_BYTES
from onnxnoise.model.files.wellformed import check_types
from onnxnoise.model.opsets import current
from onnxnoise.model.passes.tensor_outputs import only_tensors
from onnxnoise.model.protobuf import read_names
from onnxnoise.model.shapes import infer
from onnxnoise.runtime.protos import nested

if TYPE_CHECKING:
    import onnx_ir as ir

_IR_VERSION = 10
"""The newest IR version that ONNX Runtime gets to see: later ones change no classifier, but each release refuses
those it does not know.
"""

logging.getLogger("onnx_ir").addHandler(logging.NullHandler())  # else its warnings end on stderr


@dataclass(frozen=True)
class Prepared:
    """`model` is a serialized ModelProto for ONNX Runtime; `origins` names, for each value that constant folding will
    make, the weights in it.
    """

    model: bytes
    origins: Mapping[str, tuple[str, ...]]


def prepared(file: ModelFile) -> Prepared:
    """The file's graph, ready for the optimizer; raises ModelError with the reason where it can't be measured."""
    import onnx_ir as ir
    from onnx_ir.passes import common

    from onnxnoise.model import origins
    from onnxnoise.model.passes import control_flow, in_order, shapes

    refuse_unmeasurable(file)
    stub = only_tensors(current(file.stub, file.path))
    try:
        model = ir.serde.deserialize_model(stub)
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
        first = ir.serde.serialize_model(model)
        check_inputs(first, file.path)
        refuse_dropout(first, file.path)
        certain, types = infer(first, values=False)
        check_types(first, types, file.path)
        check_growth(first, certain, file.path)
        if control_flow.lift_bodies(first):
            model = ir.serde.deserialize_model(first)
            ir.external_data.set_base_dir(model.graph, file.folder)
            common.RemoveUnusedNodesPass()(model)
            first = ir.serde.serialize_model(model)
        known, types = infer(first)
        if any(node.op_type == "CastLike" for node in nested(first.graph.node)):
            shapes.name_casts(model, types)
        in_order.rewrite(model, known)
        proto = ir.serde.serialize_model(model)
        behind = origins.origins(model)
        _drop_unused_inputs(proto.graph)
        return Prepared(proto.SerializeToString(), behind)
    except ModelError:
        raise
    except Exception as error:  # onnx-ir's exceptions share no base; a malformed graph can raise any
        raise ModelError(f"{file.path}: its graph is malformed: {_root(error)}; export it again") from error


def _read_small(model: ir.Model) -> None:
    """Bring small tensors that lie in other files inside, in place: ONNX Runtime wants shapes and axes there."""
    import onnx_ir as ir

    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes <= INLINE_BYTES:
            value.const_value = ir.tensor(tensor.numpy().copy(), name=value.name)


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _drop_unused_inputs(graph: onnx.GraphProto) -> None:
    used = read_names(graph)
    for info in [info for info in graph.input if info.name not in used]:
        graph.input.remove(info)
