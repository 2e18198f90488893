"""Examines this machine for onnxnoise: versions, providers that really work, devices, memory, and problems to repair."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata

from onnxnoise import machine
from onnxnoise.errors import ProviderError
from onnxnoise.runtime import cuda
from onnxnoise.runtime.base import CPU
from onnxnoise.runtime.providers import available_providers, cuda_faults, find_provider

SCHEMA = "onnxnoise/doctor/1"

_OURS = "onnxnoise"
_SHOWN = ("onnxnoise", "onnx", "onnx-ir", "numpy", "pillow", "typer", "rich")
_EXTRAS = re.compile(r"\bextra\s*==")
_AT_LEAST = re.compile(r"^([A-Za-z0-9._-]+)\s*\(?[^;]*?>=\s*([0-9][0-9.]*)")


@dataclass(frozen=True)
class Installed:
    """A Python package; `version` is None where it is missing."""

    name: str
    version: str | None


@dataclass(frozen=True)
class Optional:
    """A package that only some commands need."""

    name: str
    version: str | None
    needed_for: str
    extra: str


@dataclass(frozen=True)
class ProviderState:
    """An execution provider that this build of ONNX Runtime has; `reason` says why it is not usable, empty where it is."""

    name: str
    usable: bool
    reason: str


@dataclass(frozen=True)
class Problem:
    """Something to repair."""

    found: str
    remedy: str


@dataclass(frozen=True)
class Examination:
    """All findings about a machine, sizes in bytes. `auto` is the provider that --provider auto takes, None where none works."""

    system: str
    python: str
    packages: tuple[Installed, ...]
    optional: tuple[Optional, ...]
    providers: tuple[ProviderState, ...]
    auto: str | None
    processor: str
    cores: machine.Cores
    threads: int
    driver: cuda.Driver | None
    memory: machine.Memory
    budget: int
    problems: tuple[Problem, ...]

    @property
    def works(self) -> bool:
        """Whether anything can be measured here at all."""
        return any(each.usable and each.name == CPU for each in self.providers)


_OPTIONAL = (
    ("distributed", "bench --cluster", "cluster"),
    ("altair", "report, charts", "report"),
    ("vl-convert-python", "report, charts as PNG and SVG", "report"),
)


def examine() -> Examination:
    """Look at this machine. Each provider is proven by running a small graph on it."""
    providers = tuple(_state(name) for name in available_providers())
    driver, memory, cores = cuda.driver(), machine.memory(), machine.cores()
    try:
        chosen = find_provider("auto")
        auto, note = chosen.name, chosen.note
    except ProviderError as error:
        auto, note = None, str(error)
    runtimes = [Installed(package.name, package.version) for package in cuda.packages()]
    return Examination(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        packages=(*(Installed(name, _version(name)) for name in _SHOWN), *runtimes),
        optional=tuple(Optional(name, _version(name), use, extra) for name, use, extra in _OPTIONAL),
        providers=providers,
        auto=auto,
        processor=machine.processor(),
        cores=cores,
        threads=cores.threads,
        driver=driver,
        memory=memory,
        budget=memory.budget,
        problems=tuple(_problems(providers, note, memory)),
    )


def to_json(found: Examination) -> str:
    return json.dumps({"schema": SCHEMA, "works": found.works, **asdict(found)}, indent=2) + "\n"


def _state(name: str) -> ProviderState:
    try:
        find_provider(name)
    except ProviderError as error:
        return ProviderState(name, False, str(error))
    return ProviderState(name, True, "")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _problems(providers: tuple[ProviderState, ...], note: str, memory: machine.Memory) -> Iterator[Problem]:
    for state in providers:
        if state.name == CPU and not state.usable:
            yield Problem(state.reason, "reinstall ONNX Runtime: `pip install --force-reinstall onnxruntime`")
    for fault in cuda_faults():
        if fault.code == "two_packages":
            yield Problem(fault.found, fault.remedy)
    if note:
        yield Problem("a GPU is here and can't be used", note)
    yield from _requirements()
    yield from _doubles()
    simd = _version("pillow-simd")
    if simd is not None:
        yield Problem(
            f"pillow-simd {simd} is installed: a fork that overwrites Pillow's files and is behind its version",
            "`pip uninstall -y pillow-simd pillow`, then `pip install pillow`",
        )
    if memory.available is not None and memory.available < memory.budget:
        yield Problem(
            f"only {memory.available / 1e9:.1f} GB of memory is free, less than the {memory.budget / 1e9:.1f} GB that a run "
            "may use by default",
            "end other programs, or give bench a smaller --memory",
        )


def _requirements() -> Iterator[Problem]:
    """The problem of each package that is older than onnxnoise's own metadata asks for."""
    for line in (metadata.requires(_OURS) or ()) if _version(_OURS) else ():
        found = _AT_LEAST.match(line)
        if found is None or _EXTRAS.search(line):
            continue
        have = _version(found[1])
        if have is not None and _numbers(have) < _numbers(found[2]):
            yield Problem(
                f"{found[1]} {have} is too old: onnxnoise needs {found[2]}",
                f"`pip install -U '{found[1]}>={found[2]}'`",
            )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+", maxsplit=1)[0])[:3])


def _doubles() -> Iterator[Problem]:
    """The problem of each package that onnxnoise needs and that lies in several folders of the path; Python takes the first."""
    for name in (*_SHOWN[:5], "onnxruntime", "onnxruntime-gpu"):
        places = {str(each.locate_file("")): each.version for each in metadata.distributions(name=name)}
        if len(places) > 1:
            listed = ", ".join(f"{version} in {folder}" for folder, version in places.items())
            yield Problem(
                f"{name} is installed {len(places)} times: {listed}", f"`pip uninstall {name}` until one is left"
            )
