"""The door to ONNX Runtime: a provider is proven or refused with the reason, and a session says what it runs where."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from support import graphs, machines, nets
from support.command import onnxnoise, refused

from onnxnoise.errors import ModelError, ProviderError
from onnxnoise.runtime import cuda, session
from onnxnoise.runtime.session import Session, find_provider, to_device, to_host

CPU = find_provider("cpu")
ASK = """
from onnxnoise.runtime.session import find_provider
try:
    print(find_provider("cuda"))
except Exception as error:
    print(type(error).__name__, error)
"""
LOOK = """
from pathlib import Path
from onnxnoise.runtime import cuda
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
        - set(session.available_providers())
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
    provider = machines.RUNTIME / "capi" / "libonnxruntime_providers_cuda.so"
    wanted = [name for name in cuda.needed(provider) if name.startswith("libcu") and name != "libcuda.so.1"]
    assert any(name.startswith("libcublas.so") for name in wanted)
    for name in wanted[1:]:
        machines.library(lib, name)
    machines.broken(lib, wanted[0], "libcudnn.so.9")
    (found,) = look(folder, lib)
    assert found.startswith(f"missing_library {wanted[0]}, libcudnn.so.9 can't be loaded (")
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in found

    machines.library(lib, wanted[0])
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


@compiler
def test_the_libraries_that_a_file_asks_for_are_read_from_it(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("ELF files are Linux'")
    machines.library(tmp_path / "lib", "libsecond.so.7", "int second(void) { return 2; }")
    machines.library(tmp_path / "lib", "libthird.so.1", "int third(void) { return 3; }")
    first = machines.library(
        tmp_path / "lib",
        "libfirst.so",
        "int second(void); int third(void); int first(void) { return second() + third(); }",
        *(str(tmp_path / "lib" / name) for name in ("libsecond.so.7", "libthird.so.1")),
    )
    assert [name for name in cuda.needed(first) if name != "libc.so.6"] == ["libsecond.so.7", "libthird.so.1"]
    (tmp_path / "text").write_text("no library")
    assert cuda.needed(tmp_path / "text") == ()


def small(text: str, **values: object) -> bytes:
    return graphs.model(text, values).SerializeToString()


def test_a_session_never_runs_on_another_provider(capfd: pytest.CaptureFixture[str]) -> None:
    """A provider that this build has and that does not work here: by itself ONNX Runtime would take the CPU."""
    there = [
        name for name in session.available_providers() if name not in ("CPUExecutionProvider", "AzureExecutionProvider")
    ]
    stub = small("(float[2] x) => (float[2] y) { y = Relu (x) }")
    for name in there:
        try:
            find_provider(name)
        except ProviderError:
            with pytest.raises((ProviderError, ModelError)):
                Session(stub, {}, session.Provider(name, "cpu"))
    assert capfd.readouterr().out == ""


def test_a_session_says_which_provider_runs_what() -> None:
    stub = small("(float[2, 3] x, float[3, 4] w) => (float[2, 4] z) { y = MatMul (x, w)  a = Relu (y)  z = Relu (a) }")
    assert Session(stub, {}, CPU, optimized=False).placement() == {
        "CPUExecutionProvider": Counter({"Relu": 2, "MatMul": 1})
    }


def test_a_run_is_timed_after_a_warm_up() -> None:
    stub = small("(float[64, 300] x, float[300, 300] w) => (float[64, 300] y) { y = MatMul (x, w) }")
    matrix = Session(stub, {}, CPU)
    taken = matrix.seconds({"x": to_device(np.ones((64, 300), np.float32), CPU)}, runs=5)
    assert 0 < taken < 1


def test_a_graph_that_can_not_run_is_refused_with_the_reason() -> None:
    with pytest.raises(ModelError, match=r"ONNX Runtime can't run the graph: .*Nothing"):
        Session(small("(float[2] x) => (float[2] y) { y = Nothing (x) }"), {}, CPU)
    whole = Session(small("(float[N] x, float[3] w) => (float[N] y) { y = Add (x, w) }"), {}, CPU)
    with pytest.raises(ModelError, match=r"ONNX Runtime failed while running the graph: .*Add"):
        whole.run({"x": to_device(np.ones(2, np.float32), CPU)})


def test_values_can_be_written_to_a_given_place() -> None:
    double = Session(small("(float[3] x) => (float[3] y) { y = Add (x, x) }"), {}, CPU)
    place = np.zeros(3, np.float32)
    double.run({"x": to_device(np.arange(3, dtype=np.float32), CPU)}, {"y": to_device(place, CPU)})
    assert place.tolist() == [0, 2, 4]


def test_weights_that_do_not_fit_into_the_graph_come_from_a_file_beside_it(tmp_path: Path) -> None:
    """What happens past 2 GB of computed weights, on a small graph: the optimizer's result is the same."""
    text = """(float[N, 40] x, float[50, 40] w, float[10, 50] v) => (float[N, 10] y)
    { t = Transpose (w)  a = MatMul (x, t)  b = Relu (a)  u = Transpose (v)  y = MatMul (b, u) }"""
    stub = small(text)
    inside = session.normalize(stub, tmp_path, "small.onnx")
    (tmp_path / "scratch").mkdir()
    beside = session._optimized(stub, tmp_path, tmp_path / "scratch", beside="weights")
    large = [t.name for t in beside.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert large
    assert (tmp_path / "scratch" / "weights").stat().st_size > 4 * 50 * 40
    onnx.load_external_data_for_model(beside, str(tmp_path / "scratch"))
    assert [node.op_type for node in beside.graph.node] == [node.op_type for node in inside.graph.node]
    expected = graphs.initializers(inside)
    assert {name: value.tobytes() for name, value in graphs.initializers(beside).items()} == {
        name: value.tobytes() for name, value in expected.items()
    }


def test_a_model_too_large_for_a_message_is_saved_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first try fails as ONNX Runtime does past 2 GB; the second is the real thing."""
    real, tries = session._optimized, []

    def limited(stub: bytes, folder: Path, scratch: Path, *, beside: str | None = None) -> onnx.ModelProto:
        tries.append(beside)
        if beside is None:
            raise RuntimeError("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Protobuf serialization failed.")
        return real(stub, folder, scratch, beside=beside)

    stub = small("(float[N, 40] x, float[50, 40] w) => (float[N, 50] y) { t = Transpose (w)  y = MatMul (x, t) }")
    expected = graphs.initializers(session.normalize(stub, tmp_path, "small.onnx"))
    monkeypatch.setattr(session, "_optimized", limited)
    found = graphs.initializers(session.normalize(stub, tmp_path, "small.onnx"))
    assert tries == [None, "weights"]
    assert {name: value.tobytes() for name, value in found.items()} == {n: v.tobytes() for n, v in expected.items()}


def test_what_a_provider_that_is_not_there_prints_stays_away(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = nets.bench_files(tmp_path)
    outcome = onnxnoise("bench", files.model, "--data", files.data, "--provider", "VitisAIExecutionProvider")
    refused(outcome, 4, "VitisAIExecutionProvider")
    assert capfd.readouterr() == ("", "")


def test_a_proof_compares_with_numpy() -> None:
    """A provider that ran the graph on other weights would be refused: the proof's numbers are not all alike."""
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    model = onnx.parser.parse_model(session._PROOF)
    for name, shape in (("k", (2, 3, 4, 4)), ("m", (2, 2))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    ones = to_host(Session(model.SerializeToString(), {}, CPU).run({"x": to_device(x, CPU)})["y"])
    np.testing.assert_allclose(ones, np.full((1, 2), 2 * x.sum()), rtol=1e-4)
