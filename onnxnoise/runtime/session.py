"""The only door to ONNX Runtime: its level-1 optimizer, its execution providers, and sessions over in-memory graphs."""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from onnxnoise.errors import ModelError, ProviderError
from onnxnoise.runtime import cuda
from onnxnoise.runtime.large import as_inputs

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

_PROOF = """<ir_version: 8, opset_import: ["": 13]> proof (float[1, 3, 4, 4] x) => (float[1, 2] y)
{c = Conv (x, k)  f = Flatten (c)  y = MatMul (f, m)}"""

_TOO_LARGE = "Protobuf serialization failed"
"""What ONNX Runtime says where a model with the weights inside would be larger than 2 GB."""

# Nothing here may depend on a timing (EXHAUSTIVE does) or on how much memory is free, and a product has all its 24 bits
_CUDA_OPTIONS = (
    ("use_tf32", "0"),
    ("cudnn_conv_algo_search", "HEURISTIC"),
    ("arena_extend_strategy", "kSameAsRequested"),
)


def normalize(stub: bytes, folder: Path, source: str) -> onnx.ModelProto:
    """The graph after ONNX Runtime's level-1 optimizer, tensors that it left alone still external to `folder`.

    `stub` is a serialized ModelProto whose external data lies in `folder`; `source` names the file in errors. The result can't be
    serialized where the tensors that the optimizer computed take more than the 2 GB of a message.
    """
    with tempfile.TemporaryDirectory(prefix="onnxnoise-") as scratch:
        try:
            with _captured():  # protobuf reports a message that is too large on standard error
                return _optimized(stub, folder, Path(scratch))
        except Exception as error:  # ONNX Runtime's exceptions share no base
            if _TOO_LARGE not in str(error):
                raise ModelError(f"{source}: ONNX Runtime can't load it: {_reason(error)}") from error
        try:
            model = _optimized(stub, folder, Path(scratch), beside="weights")
            onnx.load_external_data_for_model(model, scratch)
        except Exception as error:
            raise ModelError(
                f"{source}: ONNX Runtime can't save its optimized graph to {scratch}: {_reason(error)}; "
                "name a folder with room for all its weights in TMPDIR"
            ) from error
        return model


def _optimized(stub: bytes, folder: Path, scratch: Path, *, beside: str | None = None) -> onnx.ModelProto:
    """`beside` names a file for the large tensors, those that the optimizer left alone too."""
    options = _options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
    options.optimized_model_filepath = str(scratch / "model.onnx")
    if beside is not None:
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", beside)
    ort.InferenceSession(stub, options, providers=[_CPU], disabled_optimizers=list(_KEEP_LAYERS))
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
    """An execution provider that was proven to work here; `device` is where its values live.

    `note` says why `auto` left a GPU alone, empty where there was nothing to say.
    """

    name: str
    device: str
    options: tuple[tuple[str, str], ...] = ()
    note: str = ""


def find_provider(request: str) -> Provider:
    """`auto` (CUDA where a GPU works, else CPU), `cpu`, `cuda` or a provider's full name; raises ProviderError."""
    wanted = {"cpu": _CPU, "cuda": _CUDA}.get(request.lower(), request)
    if wanted == "auto":
        return _automatic()
    if wanted == _CUDA:
        return _cuda()
    if wanted not in ort.get_all_providers():
        raise ProviderError(
            f"unknown execution provider {request!r}; use auto, cpu, cuda or one of "
            + ", ".join(ort.get_available_providers())
        )
    if wanted not in ort.get_available_providers():
        raise ProviderError(
            f"this build of ONNX Runtime has no {wanted}; it has {', '.join(ort.get_available_providers())}"
        )
    if wanted != _CPU:
        with _captured():
            _preload()  # TensorRT wants CUDA's libraries too
    provider = Provider(wanted, "cpu")
    _prove(provider)
    return provider


def available_providers() -> tuple[str, ...]:
    """What this build of ONNX Runtime was made with, the preferred first; not what works here."""
    return tuple(ort.get_available_providers())


def cuda_faults() -> tuple[cuda.Fault, ...]:
    """What stands in the way of CUDA as far as can be seen without trying, what must be repaired first at the beginning."""
    with _captured():
        _preload()
    capi, built_for = Path(ort.__file__).parent / "capi", getattr(ort, "cuda_version", None) or None
    return tuple(cuda.faults(capi, built_for, built_in=_CUDA in ort.get_available_providers()))


def _automatic() -> Provider:
    """CUDA if the driver shows a GPU and it works; where there is none nothing is tried, since that prints errors."""
    seen = cuda.driver()
    if seen is None or not seen.gpus:
        return Provider(_CPU, "cpu")
    try:
        return _cuda()
    except ProviderError as error:
        return Provider(_CPU, "cpu", note=f"{seen.gpus[0].name} is not used: {error}")


def _cuda() -> Provider:
    faults = cuda_faults()
    overwritten = _CUDA not in ort.get_available_providers()
    if overwritten or any(
        fault.code != "two_packages" for fault in faults
    ):  # of two packages the right one may have won
        raise ProviderError(f"CUDA can't be used: {faults[0]}")
    provider = Provider(_CUDA, "cuda", _CUDA_OPTIONS)
    try:
        _prove(provider)
    except ProviderError as error:
        raise ProviderError(f"CUDA can't be used: {faults[0] if faults else error}") from error
    return provider


def _preload() -> None:
    """CUDA's and cuDNN's libraries from NVIDIA's Python packages, where they are; it prints what it misses."""
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()


def _prove(provider: Provider) -> None:
    """Run a convolution and a product on the provider and compare them with NumPy; raises ProviderError with the reason."""
    rng = np.random.default_rng(0)
    image, kernel = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 3, 4, 4), (2, 3, 4, 4)))
    matrix = rng.standard_normal((2, 2)).astype(np.float32)
    model = onnx.parser.parse_model(_PROOF)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(w, name) for w, name in ((kernel, "k"), (matrix, "m")))
    with _captured() as said:
        try:
            session = Session(model.SerializeToString(), {}, provider)
            result = to_host(session.run({"x": to_device(image, provider)})["y"])
        except Exception as error:  # a device's allocator raises its own
            found, reason = _reason(error), _last_error(said())
            why = f"{found} ({reason})" if reason and reason not in found else found
            raise ProviderError(f"{provider.name} does not work here: {why}") from error
    if provider.name not in (placed := session.placement() or {provider.name}):
        raise ProviderError(f"{provider.name} does not work here: it leaves convolutions to {', '.join(placed)}")
    expected = np.tensordot(image, kernel, axes=((1, 2, 3), (1, 2, 3))) @ matrix
    if not np.allclose(result, expected, rtol=1e-2, atol=1e-2 * float(np.abs(expected).max())):
        raise ProviderError(f"{provider.name} does not work here: it computes a convolution wrongly")


def _last_error(said: str) -> str:
    """The system's reason among the lines that ONNX Runtime prints about a provider library, empty where there is none."""
    found = re.findall(r"with error: (.+)", said)
    return found[-1].strip() if found else ""


@contextmanager
def _captured() -> Iterator[Callable[[], str]]:
    """Keeps what C++ and preload_dlls print from the user's terminal, whatever the log level; yields what reads it."""
    printed = io.StringIO()
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file, redirect_stdout(printed):
        os.dup2(file.fileno(), 2)

        def said() -> str:
            size = os.fstat(file.fileno()).st_size
            return printed.getvalue() + os.pread(file.fileno(), size, 0).decode(errors="replace")

        try:
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)


class Session:
    """A graph ready to run on one provider, its large initializers handed over by reference.

    `weights` holds the values of the stub's external initializers (see `rewrite.Segment`); the session keeps them alive, since
    heavy matrices are used where they lie, and ONNX Runtime may use others so. `prepacked` copies the other matrices into the
    order that a processor likes best: it pays for a session that runs often. Without `optimized` each node is one kernel, as
    written. Raises ModelError, and ProviderError where ONNX Runtime takes another provider.
    """

    def __init__(
        self,
        stub: bytes,
        weights: Mapping[str, Array],
        provider: Provider,
        *,
        prepacked: bool = False,
        optimized: bool = True,
    ) -> None:
        options = _options()
        if not prepacked:
            options.add_session_config_entry("session.disable_prepacking", "1")
        if not optimized:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        heavy: frozenset[str] = frozenset()
        if provider.name == _CPU:
            stub, heavy = as_inputs(stub, weights)
        self._weights = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in weights.items()}
        self._held = {name: self._weights[name] for name in sorted(heavy)}
        handed_over = {name: value for name, value in self._weights.items() if name not in heavy}
        if handed_over:
            options.add_external_initializers(list(handed_over), list(handed_over.values()))
        choice = [(provider.name, dict(provider.options))] if provider.options else [provider.name]
        fallback = [] if provider.name == _CPU else [_CPU]  # for nodes that the provider has no kernel for
        try:
            self._session = ort.InferenceSession(stub, options, providers=[*choice, *fallback], enable_fallback=0)
        except Exception as error:
            raise ModelError(f"ONNX Runtime can't run the graph: {_reason(error)}") from error
        self._device = provider.device
        self.inputs = [each.name for each in self._session.get_inputs() if each.name not in heavy]
        self.outputs = [each.name for each in self._session.get_outputs()]
        self.provider: str = self._session.get_providers()[0]
        if self.provider != provider.name:
            raise ProviderError(f"ONNX Runtime fell back from {provider.name} to {self.provider}")

    def placement(self) -> dict[str, Counter[str]]:
        """By provider, how many nodes of each operator it runs; empty where ONNX Runtime is too old to tell (before 1.24)."""
        placed: dict[str, Counter[str]] = {}
        if hasattr(self._session, "get_provider_graph_assignment_info"):
            for part in self._session.get_provider_graph_assignment_info():
                placed.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
        return placed

    def seconds(self, feeds: Mapping[str, Value], runs: int = 3) -> float:
        """Wall time of the fastest of some runs after one that warms up (kernels chosen, memory allocated, device awake)."""
        self.run(feeds)
        taken = []
        for _ in range(runs):
            start = time.perf_counter()
            self.run(feeds)  # returns when the device is done
            taken.append(time.perf_counter() - start)
        return min(taken)

    def run(self, feeds: Mapping[str, Value], into: Mapping[str, Value] | None = None) -> dict[str, Value]:
        """The outputs by name, on the provider's device; `feeds` may have more than the inputs. Several threads may run it.

        `into` has values of the outputs' shapes and types to write to, instead of new ones. Raises ModelError with ONNX
        Runtime's reason.
        """
        binding = self._session.io_binding()
        for name, value in self._held.items():
            binding.bind_ortvalue_input(name, value)
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
