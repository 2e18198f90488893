"""Machines made up of real files: shared libraries that the system loads, packages that Python finds."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import onnxruntime

import onnxnoise

RUNTIME = Path(onnxruntime.__file__).parent
COMPILER = shutil.which("cc")
GPU_BUILD = (RUNTIME / "capi" / "libonnxruntime_providers_cuda.so").exists() and sys.platform == "linux"

_DRIVER = r"""
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *v) { *v = CUDA; return 0; }
int cuDeviceGetCount(int *n) { *n = GPUS; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *s, int n, int d) { strncpy(s, "NVIDIA Made-Up 1", n); return 0; }
int cuDeviceTotalMem_v2(size_t *m, int d) { *m = 8000000000; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 9 : 0; return 0; }
"""
_MANAGEMENT = r"""
#include <string.h>
int nvmlInit_v2(void) { return 0; }
int nvmlSystemGetDriverVersion(char *s, unsigned n) { strncpy(s, "580.65.06", n); return 0; }
"""


def library(folder: Path, name: str, source: str = "", *flags: str) -> Path:
    """A shared library of C code."""
    assert COMPILER is not None
    folder.mkdir(exist_ok=True)
    file = folder / name
    subprocess.run(
        [COMPILER, "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-o", file, "-x", "c", "-", "-x", "none", *flags],
        input=source.encode(),
        check=True,
    )
    return file


def driver(folder: Path, *, error: int = 0, cuda: int = 99000, gpus: int = 1) -> None:
    """NVIDIA's driver with so many GPUs; cuInit returns `error`, and it runs CUDA up to `cuda`, as in 13000."""
    library(folder, "libcuda.so.1", _DRIVER, f"-DINIT={error}", f"-DCUDA={cuda}", f"-DGPUS={gpus}")
    library(folder, "libnvidia-ml.so.1", _MANAGEMENT)


def broken(folder: Path, *names: str) -> None:
    """Files that the loader finds first and refuses."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("no library")


def packages(folder: Path, *runtimes: str, cuda: bool = True) -> Path:
    """A site-packages folder with links to all that is installed, but ONNX Runtime's distribution as one or several `runtimes`.

    Without `cuda` its CUDA provider is missing, as in the build for processors; NVIDIA's own packages always are.
    """
    folder.mkdir()
    for place in (*site.getsitepackages(), str(Path(onnxnoise.__file__).parents[1])):
        for entry in Path(place).iterdir():
            if not entry.name.startswith(("onnxruntime", "nvidia", "_")) and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)
    (folder / "onnxruntime" / "capi").mkdir(parents=True)
    for part in (".", "capi"):
        for entry in (RUNTIME / part).iterdir():
            target = folder / "onnxruntime" / part / entry.name
            if entry.name != "capi" and (cuda or "providers_cuda" not in entry.name):
                target.symlink_to(entry)
    for name in runtimes:
        distribution(folder, name, onnxruntime.__version__, "onnxruntime/__init__.py")
    return folder


def distribution(folder: Path, name: str, version: str, *files: str) -> None:
    """The metadata that pip leaves behind."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def python(code: str, *, site_folder: Path, libraries: Path | None = None) -> str:
    """What a fresh Python prints on such a machine, standard error included."""
    environment = {**os.environ, "PYTHONPATH": str(site_folder), "LD_LIBRARY_PATH": str(libraries or "")}
    run = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout + run.stderr
