"""The only door to ONNX Runtime: its level-1 optimizer, its execution providers, and sessions over in-memory graphs."""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from onnxnoise.errors import ModelError, ProviderError

Array = npt.NDArray[Any]
Value = Any
"""An `onnxruntime.OrtValue`: a tensor on the provider's device."""

VERSION: str = ort.__version__

# Batch norms stay whole and layers stay apart; a name ONNX Runtime does not know is ignored, so a test looks at the result.
_KEEP_LAYERS = (
    "ConvBNFusion",
    "ConvMulFusion",
    "MatMul_BatchNormalization_Fusion",
    "CommonSubexpressionElimination",
    "ConstantSharing",
)
_ERRORS_ONLY, _NOTHING = 3, 4
_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_NVIDIA = 0x10DE


def normalize(stub: bytes, folder: Path, source: str) -> onnx.ModelProto:
    """The graph after ONNX Runtime's level-1 optimizer, tensors that it left alone still external to `folder`.

    `stub` is a serialized ModelProto whose external data lies in `folder`; `source` names the file in errors.
    """
    options = _options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
    with tempfile.TemporaryDirectory(prefix="onnxnoise-") as scratch:
        options.optimized_model_filepath = str(Path(scratch) / "model.onnx")
        try:
            ort.InferenceSession(stub, options, providers=[_CPU], disabled_optimizers=list(_KEEP_LAYERS))
        except Exception as error:  # ONNX Runtime's exceptions share no base
            raise ModelError(f"{source}: ONNX Runtime can't load it: {_reason(error)}") from error
        return onnx.load(options.optimized_model_filepath, load_external_data=False)


def _reason(error: Exception) -> str:
    """ONNX Runtime's first line without its error code and the place in its source."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", lines[0])
    return re.sub(r"(Exception during \w+: )?\S*/onnxruntime\S*:\d+ .*?\) ", "", line).strip()


def _options() -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY if os.environ.get("ONNXNOISE_ORT_LOG") else _NOTHING
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # else ORT would quantize noisy weights again
    options.intra_op_num_threads = 1  # the sweep runs a mini-batch to a core instead
    options.use_deterministic_compute = True
    return options


@dataclass(frozen=True)
class Provider:
    """An execution provider that was proven to work here; `device` is where its values live."""

    name: str
    device: str
    options: tuple[tuple[str, str], ...] = ()


def find_provider(request: str) -> Provider:
    """`auto` (CUDA where a GPU works, else CPU), `cpu`, `cuda` or a provider's full name; raises ProviderError."""
    wanted = {"cpu": _CPU, "cuda": _CUDA}.get(request.lower(), request)
    if wanted == "auto":
        try:
            return find_provider(_CUDA) if _nvidia_gpu() else Provider(_CPU, "cpu")
        except ProviderError:
            return Provider(_CPU, "cpu")
    if wanted not in ort.get_all_providers():
        raise ProviderError(
            f"unknown execution provider {request!r}; use auto, cpu, cuda or one of "
            + ", ".join(ort.get_available_providers())
        )
    if wanted not in ort.get_available_providers():
        raise ProviderError(
            f"this build of ONNX Runtime has no {wanted}; it has {', '.join(ort.get_available_providers())}"
            + ("; install onnxruntime-gpu instead of onnxruntime" if wanted == _CUDA else "")
        )
    if wanted == _CUDA:
        if not _nvidia_gpu():
            raise ProviderError(
                "CUDA was asked for, but no NVIDIA GPU with a working driver is visible; use --provider cpu"
            )
        ort.preload_dlls()
        provider = Provider(_CUDA, "cuda", (("use_tf32", "0"), ("cudnn_conv_algo_search", "HEURISTIC")))
    else:
        provider = Provider(wanted, "cpu")
    _prove(provider)
    return provider


def _nvidia_gpu() -> bool:
    gpu = ort.OrtHardwareDeviceType.GPU
    seen = any(d.device.type == gpu and d.device.vendor_id == _NVIDIA for d in ort.get_ep_devices())
    return seen or Path("/proc/driver/nvidia/version").exists()


def _prove(provider: Provider) -> None:
    one = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13]> g (float[1] x) => (float[1] y) {y = Relu(x)}'
    )
    with _silenced():
        try:
            session = Session(one.SerializeToString(), {}, provider)
        except ModelError as error:
            raise ProviderError(f"{provider.name} does not work here: {error}") from error
    if session.provider != provider.name:
        raise ProviderError(
            f"{provider.name} does not work here: ONNX Runtime fell back to {session.provider} "
            "(for CUDA: the driver, CUDA or cuDNN libraries are missing or of another version)"
        )


@contextmanager
def _silenced() -> Iterator[None]:
    """ONNX Runtime reports a missing provider on file descriptor 2 and on standard output, whatever the log level."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


class Session:
    """A graph ready to run on one provider, its large initializers handed over by reference.

    `weights` holds the values of the stub's external initializers (see `rewrite.Segment`); the session keeps them alive, since
    ONNX Runtime may use them where they lie. `prepacked` copies matrices into the order that a processor likes best: it pays
    for a session that runs often. Raises ModelError.
    """

    def __init__(
        self, stub: bytes, weights: Mapping[str, Array], provider: Provider, *, prepacked: bool = False
    ) -> None:
        options = _options()
        if not prepacked:
            options.add_session_config_entry("session.disable_prepacking", "1")
        self._weights = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in weights.items()}
        if weights:
            options.add_external_initializers(list(self._weights), list(self._weights.values()))
        choice = [(provider.name, dict(provider.options))] if provider.options else [provider.name]
        fallback = [] if provider.name == _CPU else [_CPU]  # for nodes that the provider has no kernel for
        try:
            self._session = ort.InferenceSession(stub, options, providers=[*choice, *fallback])
        except Exception as error:
            raise ModelError(f"ONNX Runtime can't run the graph: {_reason(error)}") from error
        self._session.disable_fallback()
        self._device = provider.device
        self.inputs = [each.name for each in self._session.get_inputs()]
        self.outputs = [each.name for each in self._session.get_outputs()]
        self.provider: str = self._session.get_providers()[0]

    def run(self, feeds: Mapping[str, Value], into: Mapping[str, Value] | None = None) -> dict[str, Value]:
        """The outputs by name, on the provider's device; `feeds` may have more than the inputs. Several threads may run it.

        `into` has values of the outputs' shapes and types to write to, instead of new ones. Raises ModelError with ONNX
        Runtime's reason.
        """
        binding = self._session.io_binding()
        for name in self.inputs:
            binding.bind_ortvalue_input(name, feeds[name])
        for name in self.outputs:
            if into is not None:
                binding.bind_ortvalue_output(name, into[name])
            else:
                binding.bind_output(name, self._device)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise ModelError(f"ONNX Runtime failed while running the graph: {_reason(error)}") from error
        if into is not None:  # these own their memory; the binding's copies of them do not
            return {name: into[name] for name in self.outputs}
        return dict(zip(self.outputs, binding.get_outputs(), strict=True))


def to_device(array: Array, provider: Provider) -> Value:
    """A value on the provider's device; on the CPU it aliases `array`, which must not change after."""
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), provider.device, 0)


def to_host(value: Value) -> Array:
    return np.asarray(value.numpy())


def types(values: Mapping[str, Value]) -> dict[str, tuple[int, tuple[int, ...]]]:
    """ONNX element type and shape of each value."""
    return {name: (value.element_type(), tuple(value.shape())) for name, value in values.items()}
