"""Memory and cores as the system's own files have them, in both versions of the control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onnxnoise import machine

GB = 1 << 30


def made(folder: Path, **files: str) -> tuple[Path, Path]:
    """(proc, cgroups) with such files; `__` stands for a slash, `_dot_` for a dot."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "proc", folder / "cgroup"


def meminfo(total: int, available: int) -> str:
    return f"MemTotal:       {total >> 10} kB\nMemFree:          123 kB\nMemAvailable:   {available >> 10} kB\n"


def test_memory_of_this_machine() -> None:
    found = machine.memory()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert found.total is not None
    assert abs(found.total - total) < total / 50
    assert found.available is None or 0 < found.available <= found.total
    assert found.budget == min(2 * GB, (found.usable or total) // 2)


def test_without_a_limit_the_machine_counts(tmp_path: Path) -> None:
    found = machine.memory(*made(tmp_path, proc__meminfo=meminfo(3 * GB, GB), proc__self__cgroup="0::/\n"))
    assert found == machine.Memory(3 * GB, GB, None)
    assert (found.usable, found.budget) == (3 * GB, 3 * GB // 2)


def test_a_containers_limit_halves_the_budget(tmp_path: Path) -> None:
    """Version 2: the least of the group's own limit and those above it; "max" is none."""
    places = made(
        tmp_path,
        proc__meminfo=meminfo(64 * GB, 60 * GB),
        proc__self__cgroup="0::/pod/job/step\n",
        cgroup__pod__memory_dot_max=f"{8 * GB}\n",
        cgroup__pod__job__memory_dot_max=f"{3 * GB}\n",
        cgroup__pod__job__step__memory_dot_max="max\n",
    )
    found = machine.memory(*places)
    assert found == machine.Memory(64 * GB, 60 * GB, 3 * GB)
    assert found.budget == 3 * GB // 2


def test_version_1_of_the_control_groups(tmp_path: Path) -> None:
    """It writes a huge number where there is no limit."""
    places = made(
        tmp_path,
        proc__meminfo=meminfo(64 * GB, 60 * GB),
        proc__self__cgroup="9:name=systemd:/\n4:memory:/job\n1:cpu,cpuacct:/job\n0::/\n",
        cgroup__memory__memory_dot_limit_in_bytes="9223372036854771712\n",
        cgroup__memory__job__memory_dot_limit_in_bytes=f"{5 * GB}\n",
        **{
            "cgroup__cpu,cpuacct__job__cpu_dot_cfs_quota_us": "150000\n",
            "cgroup__cpu,cpuacct__job__cpu_dot_cfs_period_us": "100000\n",
            "cgroup__cpu,cpuacct__cpu_dot_cfs_quota_us": "-1\n",
            "cgroup__cpu,cpuacct__cpu_dot_cfs_period_us": "100000\n",
        },
    )
    assert machine.memory(*places).limit == 5 * GB
    assert machine.cores(*places).quota == 1.5


@pytest.mark.parametrize(("text", "quota"), [("max 100000\n", None), ("50000 100000\n", 0.5), ("400000 100000\n", 4)])
def test_a_containers_share_of_the_processor(tmp_path: Path, text: str, quota: float | None) -> None:
    found = machine.cores(*made(tmp_path, proc__self__cgroup="0::/job\n", cgroup__job__cpu_dot_max=text))
    assert found.quota == quota
    assert 1 <= found.usable <= found.total


@pytest.mark.parametrize(("usable", "quota", "threads"), [(8, None, 8), (8, 2.5, 3), (2, 16, 2), (4, 0.5, 1)])
def test_threads_are_what_pays(usable: int, quota: float | None, threads: int) -> None:
    assert machine.Cores(16, usable, quota).threads == threads


def test_a_system_without_these_files_is_no_error(tmp_path: Path) -> None:
    found = machine.memory(tmp_path / "none", tmp_path / "none")
    assert (found.available, found.limit) == (None, None)
    assert machine.Memory(None, None, None).budget == 2 * GB
    assert machine.processor(tmp_path / "none")


def test_the_processors_name(tmp_path: Path) -> None:
    made(tmp_path, proc__cpuinfo="processor\t: 0\nmodel name\t: Made  Up(R) 9 CPU\nmodel name\t: Made  Up(R) 9 CPU\n")
    assert machine.processor(tmp_path / "proc") == "Made Up(R) 9 CPU"
