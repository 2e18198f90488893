"""Finds the execution provider that was asked for and proves that it works here, or says why it doesn't."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from onnxnoise.errors import ProviderError
from onnxnoise.runtime import cuda
from onnxnoise.runtime.base import CPU, CUDA, CudaProvider, Provider
from onnxnoise.runtime.quiet import quiet
from onnxnoise.runtime.session import Session, reason, to_device, to_host

_SHORT = {"cpu": CPU, "cuda": CUDA}
_PROOF = """<ir_version: 8, opset_import: ["": 13]> proof (float[1, 3, 4, 4] x) => (float[1, 2] y)
{c = Conv (x, k)  f = Flatten (c)  y = MatMul (f, m)}"""


def find_provider(request: str) -> Provider:
    """The provider of `auto` (CUDA where a GPU works, else CPU), `cpu`, `cuda` or a full name; raises ProviderError."""
    wanted = _SHORT.get(request.lower(), request)
    if wanted == "auto":
        return _automatic()
    if wanted == CUDA:
        return _cuda()
    if wanted not in ort.get_all_providers():
        raise ProviderError(
            f"unknown execution provider {request!r}; use auto, cpu, cuda or one of " + ", ".join(available_providers())
        )
    if wanted not in available_providers():
        raise ProviderError(f"this build of ONNX Runtime has no {wanted}; it has {', '.join(available_providers())}")
    if wanted != CPU:
        with quiet():
            _preload()  # TensorRT wants CUDA's libraries too
    provider = Provider(wanted)
    _prove(provider)
    return provider


def available_providers() -> tuple[str, ...]:
    """The providers that this build of ONNX Runtime was made with, the preferred first, whether they work here or not."""
    return tuple(ort.get_available_providers())


def cuda_faults() -> tuple[cuda.Fault, ...]:
    """The faults that keep CUDA from working, as far as they show without trying it, in the order of repair."""
    capi, built_for = Path(ort.__file__).parent / "capi", getattr(ort, "cuda_version", None) or None
    with quiet():
        _preload()
        return tuple(cuda.faults(capi, built_for, built_in=CUDA in available_providers()))


def _automatic() -> Provider:
    """CUDA if the driver shows a GPU and it works, else the CPU. Without a GPU CUDA isn't tried, since that prints errors."""
    seen = cuda.driver()
    if seen is None or not seen.gpus:
        return Provider(CPU)
    try:
        return _cuda()
    except ProviderError as error:
        return Provider(CPU, note=f"{seen.gpus[0].name} is not used: {error}")


def _cuda() -> Provider:
    faults = cuda_faults()
    overwritten = CUDA not in available_providers()
    # of two packages the right one may have won
    if overwritten or any(fault.code != "two_packages" for fault in faults):
        raise ProviderError(f"CUDA can't be used: {faults[0]}")
    provider = CudaProvider()
    try:
        _prove(provider)
    except ProviderError as error:
        raise ProviderError(f"CUDA can't be used: {faults[0] if faults else error}") from error
    return provider


def _preload() -> None:
    """Load CUDA's and cuDNN's libraries from NVIDIA's Python packages, if these are there; missing ones are printed."""
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()


def _prove(provider: Provider) -> None:
    """Run a convolution and a product on the provider and compare them with NumPy; raises ProviderError with the reason."""
    rng = np.random.default_rng(0)
    image, kernel = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 3, 4, 4), (2, 3, 4, 4)))
    matrix = rng.standard_normal((2, 2)).astype(np.float32)
    model = onnx.parser.parse_model(_PROOF)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(w, name) for w, name in ((kernel, "k"), (matrix, "m")))
    with quiet() as said:
        try:
            session = Session(model.SerializeToString(), {}, provider)
            result = to_host(session.run({"x": to_device(image, provider)})["y"])
        except Exception as error:  # a device's allocator raises its own
            found, last = reason(error), _last_error(said())
            why = f"{found} ({last})" if last and last not in found else found
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
