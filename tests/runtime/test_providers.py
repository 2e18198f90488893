"""A provider is proven or refused with the reason; what CUDA lacks is told apart."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from support import machines, nets
from support.command import onnxnoise, refused

from onnxnoise.errors import ProviderError
from onnxnoise.runtime import cuda, providers
from onnxnoise.runtime.providers import available_providers, find_provider
from onnxnoise.runtime.session import Session, to_device, to_host

CPU = find_provider("cpu")
ASK = """
from onnxnoise.runtime.providers import find_provider
try:
    print(find_provider("cuda"))
except Exception as error:
    print(type(error).__name__, error)
"""
LOOK = """
from pathlib import Path
from onnxnoise.runtime import cuda
from onnxnoise.runtime import optimizer
from onnxnoise.runtime import providers
for fault in cuda.faults(Path({capi!r}), {version!r}, built_in=True):
    print(fault.code, fault)
"""
gpu_build = pytest.mark.skipif(not machines.GPU_BUILD, reason="this ONNX Runtime is no Linux build with CUDA")
compiler = pytest.mark.skipif(
    machines.COMPILER is None, reason="needs a C compiler to make libraries that the system loads"
)


def look(site_folder: Path, libraries: Path) -> list[str]:
    """The faults that a fresh Python finds on such a machine, code and message, one a line."""
    code = LOOK.format(capi=str(site_folder / "onnxruntime" / "capi"), version=onnxruntime.cuda_version)
    return machines.python(code, site_folder=site_folder, libraries=libraries).splitlines()


def test_the_cpu_provider_is_proven() -> None:
    assert find_provider("cpu") == find_provider("CPU") == find_provider("CPUExecutionProvider") == CPU
    assert (CPU.name, CPU.device, CPU.note) == ("CPUExecutionProvider", "cpu", "")


def test_a_provider_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ProviderError, match=r"unknown execution provider 'nope'; .*CPUExecutionProvider"):
        find_provider("nope")


def test_a_provider_of_another_build_is_refused() -> None:
    (other,) = (
        {"DmlExecutionProvider", "CoreMLExecutionProvider"}
        - set(available_providers())
        - ({"DmlExecutionProvider"} if sys.platform == "darwin" else {"CoreMLExecutionProvider"})
    )
    with pytest.raises(ProviderError, match=f"has no {other}; it has .*CPUExecutionProvider"):
        find_provider(other)


@gpu_build
def test_a_provider_that_can_not_be_loaded_is_refused_with_the_loaders_reason(tmp_path: Path) -> None:
    machines.broken(tmp_path / "lib", "libnvinfer.so.10", "libcudart.so.13", "libcudart.so.12")
    said = machines.python(
        ASK.replace('"cuda"', '"TensorrtExecutionProvider"'),
        site_folder=machines.packages(tmp_path / "site", "onnxruntime-gpu"),
        libraries=tmp_path / "lib",
    )
    assert said.startswith("ProviderError TensorrtExecutionProvider does not work here: ")
    assert ".so" in said
    assert said.count("\n") == 1  # what ONNX Runtime and protobuf print stays away


def test_without_a_gpu_cuda_ends_with_code_4_and_the_reason(tmp_path: Path) -> None:
    driver = cuda.driver()
    if driver is not None and driver.gpus:
        pytest.skip("there is a GPU here; test_cuda.py uses it")
    files = nets.bench_files(tmp_path)
    reason = "is a build without CUDA" if not machines.GPU_BUILD else "driver"
    refused(
        onnxnoise("bench", files.model, "--data", files.data, "--provider", "cuda"), 4, "CUDA can't be used", reason
    )


@gpu_build
@compiler
@pytest.mark.parametrize(
    ("driver", "code", "words"),
    [
        (None, "no_driver", ["no NVIDIA driver: libcuda.so.1 can't be loaded", "install NVIDIA's driver"]),
        ({"error": 100}, "no_gpu", ["the NVIDIA driver shows no GPU (cuInit: error 100)", "nvidia-smi"]),
        ({"gpus": 0}, "no_gpu", ["the NVIDIA driver shows no GPU (cuInit: error 0)", "CUDA_VISIBLE_DEVICES"]),
        ({"cuda": 11040}, "old_driver", ["the NVIDIA driver 580.65.06 runs CUDA up to 11.4", "install a newer driver"]),
    ],
)
def test_a_driver_that_will_not_do_is_told_apart(
    tmp_path: Path, driver: dict[str, int] | None, code: str, words: list[str]
) -> None:
    if driver is None:
        machines.broken(tmp_path / "lib", "libcuda.so.1")
    else:
        machines.driver(tmp_path / "lib", **driver)
    first, *_ = look(machines.packages(tmp_path / "site", "onnxruntime-gpu"), tmp_path / "lib")
    assert first.startswith(code)
    assert [word for word in words if word not in first] == [], first


@gpu_build
@compiler
def test_missing_libraries_are_named(tmp_path: Path) -> None:
    """First one of CUDA's, then cuDNN, which the provider's file does not even name, then all are there and no good."""
    lib, folder = tmp_path / "lib", machines.packages(tmp_path / "site", "onnxruntime-gpu")
    machines.driver(lib)
    major = onnxruntime.cuda_version.split(".")[0]
    cublas, *others = (f"libcublas.so.{major}", f"libcublasLt.so.{major}", f"libcudart.so.{major}", "libcurand.so.10")
    for name in others:
        machines.library(lib, name)
    machines.broken(lib, cublas, "libcudnn.so.9")
    (found,) = look(folder, lib)
    assert found.startswith(f"missing_library {cublas}, libcudnn.so.9 can't be loaded (")
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in found

    machines.library(lib, cublas)
    (found,) = look(folder, lib)
    assert found.startswith("missing_library libcudnn.so.9 can't be loaded (")
    said = machines.python(ASK.replace('"cuda"', '"auto"'), site_folder=folder, libraries=lib)
    assert "name='CPUExecutionProvider'" in said
    assert "NVIDIA Made-Up 1 is not used: CUDA can't be used: libcudnn.so.9 can't be loaded (" in said

    machines.library(lib, "libcudnn.so.9")
    assert look(folder, lib) == []
    said = machines.python(ASK, site_folder=folder, libraries=lib)
    assert "CUDAExecutionProvider does not work here: " in said
    assert "libonnxruntime_providers_cuda.so: undefined symbol: cu" in said


@gpu_build
def test_a_build_without_cuda_is_told_from_two_builds(tmp_path: Path) -> None:
    machines.broken(tmp_path / "lib", "libcuda.so.1")
    first, second = look(machines.packages(tmp_path / "one", "onnxruntime", cuda=False), tmp_path / "lib")
    assert first.startswith(
        "cpu_package onnxruntime is a build without CUDA; `pip uninstall -y onnxruntime`, then `pip install"
    )
    assert second.startswith("no_driver")
    both = machines.packages(tmp_path / "two", "onnxruntime", "onnxruntime-gpu", cuda=False)
    first, *_ = look(both, tmp_path / "lib")
    assert first.startswith("two_packages onnxruntime")
    assert (
        "are both installed and overwrite each other's files; `pip uninstall -y onnxruntime onnxruntime-gpu`" in first
    )


def test_what_a_provider_that_is_not_there_prints_stays_away(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = nets.bench_files(tmp_path)
    outcome = onnxnoise("bench", files.model, "--data", files.data, "--provider", "VitisAIExecutionProvider")
    refused(outcome, 4, "VitisAIExecutionProvider")
    assert capfd.readouterr() == ("", "")


def test_a_proof_compares_with_numpy() -> None:
    """A provider that ran the graph on other weights would be refused: the proof's numbers are not all alike."""
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    model = onnx.parser.parse_model(providers._PROOF)
    for name, shape in (("k", (2, 3, 4, 4)), ("m", (2, 2))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    ones = to_host(Session(model.SerializeToString(), {}, CPU).run({"x": to_device(x, CPU)})["y"])
    np.testing.assert_allclose(ones, np.full((1, 2), 2 * x.sum()), rtol=1e-4)
