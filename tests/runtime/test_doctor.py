"""The doctor's findings, against this machine and against folders of packages that are wrong in one way each."""

from __future__ import annotations

import io
import os
import platform
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from rich.console import Console
from support import machines
from support.command import onnxnoise

from onnxnoise import machine
from onnxnoise.cli.output import doctor as shown
from onnxnoise.runtime import cuda, doctor
from onnxnoise.runtime.doctor import Examination, Problem, ProviderState


@pytest.fixture(scope="module")
def found() -> Examination:
    return doctor.examine()


def printed(found: Examination, width: int = 200) -> str:
    out = io.StringIO()
    shown.examination(Console(file=out, width=width), found)
    return out.getvalue()


def test_versions_are_those_that_are_imported(found: Examination) -> None:
    versions = {each.name: each.version for each in found.packages}
    assert versions["numpy"] == np.__version__
    assert versions["onnxnoise"] == metadata.version("onnxnoise")
    assert onnxruntime.__version__ in [version for name, version in versions.items() if "onnxruntime" in name]
    assert found.python.endswith(platform.python_version())


def test_each_provider_of_this_build_is_proven_or_has_a_reason(found: Examination) -> None:
    assert [each.name for each in found.providers] == onnxruntime.get_available_providers()
    assert all(each.usable == (each.reason == "") for each in found.providers)
    assert found.works
    assert found.auto in [each.name for each in found.providers if each.usable]


def test_the_machine_is_this_one(found: Examination) -> None:
    assert found.cores.total == os.cpu_count()
    assert 1 <= found.threads <= found.cores.usable
    assert found.budget <= 2 << 30
    assert found.processor


def test_json_is_what_was_found(found: Examination) -> None:
    outcome = onnxnoise("doctor", "--json", "-")
    assert outcome.code == 0
    assert outcome.json["schema"] == "onnxnoise/doctor/1"
    assert outcome.json["works"] is True
    assert outcome.json["budget"] == found.budget
    assert {each["name"]: each["usable"] for each in outcome.json["providers"]} == {
        each.name: each.usable for each in found.providers
    }
    assert set(outcome.json["memory"]) == {"total", "available", "limit"}


def test_a_person_sees_the_same_and_the_file_is_written(tmp_path: Path) -> None:
    outcome = onnxnoise("doctor", "--json", tmp_path / "doctor.json")
    assert outcome.code == 0
    for part in (
        "CPUExecutionProvider",
        f"numpy {np.__version__}",
        "memory: ",
        "processor: ",
        "what --provider auto takes",
    ):
        assert part in outcome.out
    assert '"schema": "onnxnoise/doctor/1"' in (tmp_path / "doctor.json").read_text()


def problems(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    """What is found with one more folder at the beginning of Python's path."""
    before = doctor.examine().problems
    monkeypatch.syspath_prepend(folder)
    return [each for each in doctor.examine().problems if each not in before]


def test_a_package_that_is_too_old_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machines.distribution(tmp_path, "Pillow", "9.5.0", "PIL/__init__.py")
    old, twice = problems(tmp_path, monkeypatch)
    assert old == Problem("pillow 9.5.0 is too old: onnxnoise needs 11", "`pip install -U 'pillow>=11'`")
    assert twice.found.startswith(f"pillow is installed 2 times: 9.5.0 in {tmp_path}, ")
    assert twice.remedy == "`pip uninstall pillow` until one is left"


@pytest.mark.parametrize(
    ("have", "least", "older"),
    [
        ("9.5.0", "11", True),
        ("11", "11", False),
        ("11.0.0", "11", False),
        ("1.9", "1.10", True),
        ("2.4.6+cu130", "2.4.6", False),
    ],
)
def test_versions_compare_by_their_numbers(have: str, least: str, older: bool) -> None:
    assert (doctor._numbers(have) < doctor._numbers(least)) == older


def test_pillow_simd_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machines.distribution(tmp_path, "Pillow-SIMD", "9.5.0.post2", "PIL/__init__.py")
    (problem,) = problems(tmp_path, monkeypatch)
    assert problem.found.startswith("pillow-simd 9.5.0.post2 is installed")
    assert "pip uninstall -y pillow-simd pillow" in problem.remedy


def test_two_builds_of_onnx_runtime_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machines.distribution(tmp_path, "onnxruntime_directml", "1.24.1", "onnxruntime/__init__.py")
    machines.distribution(tmp_path, "onnxruntime-extensions", "0.14", "onnxruntime_extensions/__init__.py")
    (problem,) = problems(tmp_path, monkeypatch)
    assert problem.found.startswith("onnxruntime-directml 1.24.1 and onnxruntime")
    assert "are both installed" in problem.found
    assert "extensions" not in problem.found + problem.remedy


def test_little_memory_is_a_problem(found: Examination) -> None:
    (problem,) = doctor._problems((), "", machine.Memory(64 << 30, 1 << 30, None))
    assert problem.found.startswith("only 1.1 GB of memory is free, less than the 2.1 GB")
    assert "--memory" in problem.remedy


def test_a_gpu_that_can_not_be_used_is_a_problem_with_its_reason() -> None:
    note = "NVIDIA Made-Up 1 is not used: CUDA can't be used: libcudnn.so.9 can't be loaded"
    assert list(doctor._problems((), note, machine.Memory(None, None, None))) == [
        Problem("a GPU is here and can't be used", note)
    ]


def test_where_not_even_the_cpu_works_the_exit_code_is_4(found: Examination, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = replace(
        found, providers=(ProviderState("CPUExecutionProvider", False, "it computes wrongly"),), auto=None
    )
    monkeypatch.setattr(doctor, "examine", lambda: nothing)
    outcome = onnxnoise("doctor")
    assert outcome.code == 4
    assert "it computes wrongly" in outcome.out
    assert "nothing can be measured here" in outcome.out
    assert "the CPU provider does not work here" in outcome.error


def test_gpus_limits_and_problems_are_shown(found: Examination) -> None:
    everything = replace(
        found,
        driver=cuda.Driver("580.65.06", (13, 0), 0, (cuda.Gpu("NVIDIA H100 \x1b[31m", 85_000_000_000, "9.0"),)),
        memory=machine.Memory(64_000_000_000, None, 8_000_000_000),
        cores=machine.Cores(16, 8, 2.5),
        threads=3,
        problems=(Problem("two things overwrite each other", "remove one"),),
    )
    text = printed(everything)
    assert "GPU 0: NVIDIA H100 \N{REPLACEMENT CHARACTER}[31m, 85.0 GB, compute capability 9.0" in text
    assert "NVIDIA driver: 580.65.06, runs CUDA up to 13.0" in text
    assert "64.0 GB, unknown free, limited to 8.0 GB by the container or job" in text
    assert "8 of 16 cores, 2.5 at a time; a run uses 3 threads" in text
    assert "problem: two things overwrite each other; remove one" in text
    assert "no problems found" not in text
    assert "no NVIDIA driver" in printed(replace(found, driver=None))


def test_a_missing_optional_package_says_how_to_get_it(found: Examination) -> None:
    text = printed(replace(found, optional=(doctor.Optional("distributed", None, "bench --cluster", "cluster"),)))
    assert "for bench --cluster: distributed missing; `pip install 'onnxnoise[cluster]'`" in text


def test_long_reasons_wrap_inside_the_table(found: Examination) -> None:
    text = printed(replace(found, providers=(ProviderState("CPUExecutionProvider", False, "word " * 60),)), width=80)
    table = text[text.index("provider ") :]
    assert all(len(line) <= 80 for line in table.splitlines())
    assert table.count("word") == 60
