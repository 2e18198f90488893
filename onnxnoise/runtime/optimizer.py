"""ONNX Runtime's own level-1 optimizer, which brings any exporter's graph into one normal form but keeps noise layers apart."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime as ort

from onnxnoise.errors import ModelError
from onnxnoise.runtime.attended import attended, inside
from onnxnoise.runtime.base import CPU
from onnxnoise.runtime.quiet import quiet
from onnxnoise.runtime.session import reason, session_options

# Batch norms stay whole and layers stay apart; a name ONNX Runtime does not know is ignored, so a test looks at the result.
_DISABLED = (
    "ConvBNFusion",
    "ConvMulFusion",
    "MatMul_BatchNormalization_Fusion",
    "CommonSubexpressionElimination",
    "ConstantSharing",
)
_TOO_LARGE = "Protobuf serialization failed"
"""ONNX Runtime's words where a model with the weights inside would be larger than the 2 GB of a message."""


def normalize(stub: bytes, folder: Path, source: str) -> onnx.ModelProto:
    """The graph after ONNX Runtime's level-1 optimizer; tensors that it left alone are still external to `folder`.

    `stub` is a serialized ModelProto whose external data lies in `folder`; `source` names the file in errors. The result can't be
    serialized where the tensors that the optimizer computed take more than the 2 GB of a message. Raises ModelError.
    """
    with tempfile.TemporaryDirectory(prefix="onnxnoise-") as scratch:
        try:
            with quiet():  # protobuf reports a message that is too large on standard error
                return _optimized(stub, folder, Path(scratch))
        except Exception as error:  # ONNX Runtime's exceptions share no base
            if _TOO_LARGE not in str(error):
                raise ModelError(f"{source}: ONNX Runtime can't load it: {reason(error)}") from error
        try:
            model = _optimized(stub, folder, Path(scratch), beside="weights")
            onnx.load_external_data_for_model(model, scratch)
        except Exception as error:
            raise ModelError(
                f"{source}: ONNX Runtime can't save its optimized graph to {scratch}: {reason(error)}; "
                "name a folder with room for all its weights in TMPDIR"
            ) from error
        return model


def _optimized(stub: bytes, folder: Path, scratch: Path, *, beside: str | None = None) -> onnx.ModelProto:
    """The optimized graph, written to a file in `scratch` and read again; `beside` names a second file for large tensors."""
    options = session_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
    options.optimized_model_filepath = str(scratch / "model.onnx")
    if beside is not None:
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", beside)

    def optimize() -> None:
        with inside():
            ort.InferenceSession(stub, options, providers=[CPU], disabled_optimizers=list(_DISABLED))

    attended(optimize).result()
    return onnx.load(options.optimized_model_filepath, load_external_data=False)
