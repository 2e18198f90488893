"""Checks whether all that CUDA needs is here: ONNX Runtime's package, NVIDIA's driver with its GPUs, the libraries."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

FaultCode = Literal["two_packages", "cpu_package", "no_driver", "no_gpu", "old_driver", "missing_library"]

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
"""The environment variable that tells a process which GPUs it may use."""

# Only one package can be the module `onnxruntime`; the builds with CUDA are made for these two kinds of machine.
GPU_PACKAGE = "onnxruntime-gpu"
_GPU_MACHINES = {("Linux", "x86_64"), ("Windows", "AMD64")}
_WINDOWS = platform.system() == "Windows"
_DRIVER, _MANAGEMENT = ("nvcuda.dll", "nvml.dll") if _WINDOWS else ("libcuda.so.1", "libnvidia-ml.so.1")
_PROVIDER = "onnxruntime_providers_cuda.dll" if _WINDOWS else "libonnxruntime_providers_cuda.so"
_CUDNN = "cudnn64_9.dll" if _WINDOWS else "libcudnn.so.9"
"""The library cuDNN, which ONNX Runtime opens at the first convolution; its provider library doesn't ask for it."""

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True)
class Fault:
    """One reason why CUDA can't be used, and what to do about it."""

    code: FaultCode
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.found}; {self.remedy}"


@dataclass(frozen=True)
class Package:
    """An installed distribution that provides the module `onnxruntime`."""

    name: str
    version: str
    folder: str


@dataclass(frozen=True)
class Gpu:
    """One of the GPUs that the driver counts, after CUDA_VISIBLE_DEVICES. `capability` is its compute capability, as in 9.0."""

    name: str
    memory_bytes: int
    capability: str


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver: its `version` (None where the management library is missing) and the newest `cuda` it can run.

    `error` is the number of cuInit's error, 0 where it works.
    """

    version: str | None
    cuda: tuple[int, int]
    error: int
    gpus: tuple[Gpu, ...]


def packages() -> tuple[Package, ...]:
    """Every installed distribution that claims the module `onnxruntime`, in the order in which Python would find them."""
    found = []
    for distribution in metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if not name.startswith(("onnxruntime", "ort-nightly")):
            continue
        # the record as pip wrote it: some backports of importlib.metadata leave out files that are gone
        listed = (distribution.read_text("RECORD") or "").splitlines() or map(str, distribution.files or ())
        if any(line.partition(",")[0].replace("\\", "/") == "onnxruntime/__init__.py" for line in listed):
            found.append(Package(name, distribution.version, str(distribution.locate_file(""))))
    return tuple(dict.fromkeys(found))


def driver() -> Driver | None:
    """The driver and its GPUs, as the driver's own library tells them; None where that library can't be loaded."""
    library = _loaded(_DRIVER)
    if isinstance(library, str):
        return None
    try:
        error = int(library.cuInit(0))
        number, count = ctypes.c_int(0), ctypes.c_int(0)
        library.cuDriverGetVersion(ctypes.byref(number))
        if error == 0:
            library.cuDeviceGetCount(ctypes.byref(count))
        gpus = tuple(_gpu(library, i) for i in range(count.value))
    except AttributeError:  # a file of that name which is no driver
        return None
    return Driver(_version(), (number.value // 1000, number.value % 1000 // 10), error, gpus)


def visible_devices() -> tuple[str, ...]:
    """The GPUs that this process may use, each as CUDA_VISIBLE_DEVICES names it."""
    found = driver()
    count = len(found.gpus) if found else 0
    names = os.environ.get(VISIBLE_DEVICES) or ",".join(map(str, range(count)))
    return tuple(name.strip() for name in names.split(",")[:count])


def _gpu(library: ctypes.CDLL, index: int) -> Gpu:
    handle, major, minor = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t(0)
    library.cuDeviceGet(ctypes.byref(handle), index)
    library.cuDeviceGetName(name, len(name), handle)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    library.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, handle)
    library.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, handle)
    return Gpu(name.value.decode(errors="replace"), memory.value, f"{major.value}.{minor.value}")


def _version() -> str | None:
    library = _loaded(_MANAGEMENT)
    if isinstance(library, str):
        return None
    text = ctypes.create_string_buffer(96)
    try:
        failed = library.nvmlInit_v2() or library.nvmlSystemGetDriverVersion(text, len(text))
    except AttributeError:
        return None
    return None if failed else text.value.decode(errors="replace")


def faults(capi: Path, cuda: str | None, *, built_in: bool) -> Iterator[Fault]:
    """The faults that keep CUDA from working, in the order in which they must be repaired; none where all is there.

    `capi` is the folder with ONNX Runtime's libraries, `cuda` the CUDA version it was built for (None: it doesn't say), and
    `built_in` says whether it knows CUDA at all. Libraries in NVIDIA's Python packages are found only after
    `onnxruntime.preload_dlls()`.
    """
    installed = packages()
    if len({package.name for package in installed}) > 1:
        names = " and ".join(f"{package.name} {package.version}" for package in installed)
        yield Fault(
            "two_packages",
            f"{names} are both installed and overwrite each other's files",
            "`pip uninstall -y " + " ".join(sorted({p.name for p in installed})) + f"`, then `pip install {_wanted()}`",
        )
    elif not built_in or not (capi / _PROVIDER).exists():
        names = ", ".join(package.name for package in installed) or "ONNX Runtime here"
        yield Fault("cpu_package", f"{names} is a build without CUDA", _get_gpu_package(installed))
    major = int(cuda.split(".")[0]) if cuda else None
    found = driver()
    if found is None:
        yield Fault(
            "no_driver",
            f"no NVIDIA driver: {_DRIVER} can't be loaded",
            "install NVIDIA's driver (in a container: start it with --gpus all), or use --provider cpu",
        )
    elif not found.gpus:
        yield Fault(
            "no_gpu",
            f"the NVIDIA driver shows no GPU (cuInit: error {found.error})",
            "see what `nvidia-smi` says and what CUDA_VISIBLE_DEVICES is set to, or use --provider cpu",
        )
    elif major is not None and found.cuda[0] < major:
        yield Fault(
            "old_driver",
            f"the NVIDIA driver {found.version or ''} runs CUDA up to {found.cuda[0]}.{found.cuda[1]}, "
            f"and this ONNX Runtime was built for {cuda}",
            "install a newer driver, or an onnxruntime-gpu built for that CUDA",
        )
    if missing := _missing(capi / _PROVIDER, major):
        yield Fault(
            "missing_library",
            f"{', '.join(missing)} can't be loaded ({next(iter(missing.values()))})",
            f"`pip install 'onnxruntime-gpu[cuda,cudnn]'`, or install CUDA {cuda or ''} and cuDNN 9 system-wide",
        )


def _wanted() -> str:
    machine = (platform.system(), platform.machine())
    return GPU_PACKAGE if machine in _GPU_MACHINES else "onnxruntime"


def _get_gpu_package(installed: tuple[Package, ...]) -> str:
    if _wanted() != GPU_PACKAGE:
        return (
            f"{GPU_PACKAGE} is made for Linux on x86_64 and Windows only, "
            f"not for {platform.system()} on {platform.machine()}: use --provider cpu"
        )
    remove = "".join(f"`pip uninstall -y {package.name}`, then " for package in installed)
    return f"{remove}`pip install 'onnxruntime-gpu[cuda,cudnn]'`"


def _missing(provider: Path, major: int | None) -> dict[str, str]:
    """The libraries besides the driver that ONNX Runtime's CUDA provider can't find, cuDNN last, with the system's reasons.

    On Linux the system's loader names the first of those that the provider's own file asks for. On Windows it doesn't, so
    there each library is tried.
    """
    if not provider.exists():
        return {}
    if _WINDOWS:
        names = [f"cublasLt64_{major}.dll", f"cublas64_{major}.dll", f"cudart64_{major}.dll"] if major else []
        missing = {name: said for name in names if isinstance(said := _loaded(name), str)}
    else:
        missing = _first_missing(provider)
    if isinstance(said := _loaded(_CUDNN), str):
        missing[_CUDNN] = said
    return missing


def _first_missing(provider: Path) -> dict[str, str]:
    """The library for whose sake the provider's file can't be loaded, with the system's reason; none where all are there.

    Nothing stays loaded: after all libraries are found, the loader misses a symbol that only ONNX Runtime, not this process,
    gives its providers. A provider that did start without ONNX Runtime around it would end the process.
    """
    said = _loaded(str(provider))
    if not isinstance(said, str) or "undefined symbol" in said:
        return {}
    name = Path(
        said.partition(":")[0]
    ).name  # "libcublas.so.13: cannot open ...", "/folder/libcublas.so.13: file too short"
    return {} if name == _DRIVER else {name: said}


def _loaded(name: str) -> ctypes.CDLL | str:
    """A library, or the system's reason why it can't be loaded."""
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        return str(error)
