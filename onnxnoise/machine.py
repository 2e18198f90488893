"""The machine as far as this process may use it: processor, cores and memory, within the limits of a container or job."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

_BUDGET = 2 << 30
_NONE = 1 << 60
"""Bytes; version 1 of the control groups writes a number beyond this where there is no limit."""

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """Sizes in bytes, None where the system doesn't tell; `limit` is the control group's (container, job), None without one."""

    total: int | None
    available: int | None
    limit: int | None

    @property
    def usable(self) -> int | None:
        """The smaller of the machine's memory and the limit."""
        known = [size for size in (self.total, self.limit) if size is not None]
        return min(known) if known else None

    @property
    def budget(self) -> int:
        """Bytes that a run may use without --memory: 2 GiB, or half of `usable` where that is less."""
        return _BUDGET if self.usable is None else min(_BUDGET, self.usable // 2)


def memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> Memory:
    """The memory at this moment, read anew at each call; `proc` and `cgroups` are the mount points on Linux."""
    found = {
        key: int(size) << 10 for key, size in re.findall(r"^(\w+):\s+(\d+) kB$", _text(proc / "meminfo"), re.MULTILINE)
    }
    return Memory(found.get("MemTotal") or _physical(), found.get("MemAvailable"), _limit(proc, cgroups))


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None


def _limit(proc: Path, cgroups: Path) -> int | None:
    sizes = [text for _, text in _controls("memory", "memory.max", "memory.limit_in_bytes", proc, cgroups)]
    limits = [int(text) for text in sizes if text.isdigit()]
    return min((limit for limit in limits if limit < _NONE), default=None)


@dataclass(frozen=True)
class Cores:
    """Numbers of cores: `total` in the machine, `usable` by this process (its affinity), `quota` for the container's time."""

    total: int
    usable: int
    quota: float | None

    @property
    def threads(self) -> int:
        """The number of threads that can be busy at a time."""
        return max(1, min(self.usable, ceil(self.quota or self.usable)))


def cores(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> Cores:
    total = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    quotas = []
    for folder, text in _controls("cpu", "cpu.max", "cpu.cfs_quota_us", proc, cgroups):
        quota, period = [*text.split(), _text(folder / "cpu.cfs_period_us").strip()][:2]
        if quota.isdigit() and period.isdigit():  # version 2 writes "max" for none, version 1 -1
            quotas.append(int(quota) / int(period))
    return Cores(total, usable, min(quotas, default=None))


def _controls(controller: str, new: str, old: str, proc: Path, cgroups: Path) -> Iterator[tuple[Path, str]]:
    """(folder, text) of a control file, for this process' control group and those above it, in both versions' file systems."""
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root, name = (cgroups / controllers, old) if controllers else (cgroups, new)
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            folder = root.joinpath(*parts[:depth])
            text = _text(folder / name).strip()
            if text:
                yield folder, text


def processor(proc: Path = _PROC) -> str:
    """The processor's name, or at least its architecture."""
    found = re.search(r"^model name\s*:\s*(.+)$", _text(proc / "cpuinfo"), re.MULTILINE)
    return " ".join(found[1].split()) if found else platform.processor() or platform.machine()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
