"""The tables that `onnxnoise doctor` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from onnxnoise.cli.output.terminal import plain_table, print_table
from onnxnoise.text import safe, shortened

if TYPE_CHECKING:
    from onnxnoise.runtime.doctor import Examination, ProviderState


_MEANT = ("CPUExecutionProvider", "CUDAExecutionProvider")
_LONGEST_REASON = 90


def examination(console: Console, found: Examination) -> None:
    """Print versions, devices and memory one a line, a table of providers, and each problem with what to do about it."""
    for key, value in _facts(found):
        console.print(Text.assemble((f"{key}: ", "bold"), safe(value)))
    table = plain_table()
    for heading in ("provider", "works", ""):
        table.add_column(heading, overflow="fold")
    for state in found.providers:
        chosen = "what --provider auto takes" if state.name == found.auto else ""
        works = Text("yes", "green") if state.usable else Text("no", "red")
        table.add_row(safe(state.name), works, safe(_reason(state) or chosen))
    print_table(console, table, 0)
    console.print()
    for problem in found.problems:
        line = Text.assemble(("problem: ", "bold red"), safe(problem.found), "; ", safe(problem.remedy))
        console.print(line)
    if not found.works:
        console.print("nothing can be measured here: not even the CPU provider works")
    elif not found.problems:
        console.print("no problems found")


def _reason(state: ProviderState) -> str:
    """The reason why a provider doesn't work, whole only of those that people ask for by name."""
    if state.name in _MEANT:
        return state.reason
    return shortened(state.reason.removeprefix(f"{state.name} does not work here: "), _LONGEST_REASON)


def _facts(found: Examination) -> Iterator[tuple[str, str]]:
    yield "system", f"{found.system}, {found.python}"
    yield "packages", ", ".join(f"{each.name} {each.version or 'missing'}" for each in found.packages)
    for part in found.optional:
        missing = f"missing; `pip install 'onnxnoise[{part.extra}]'`"
        yield f"for {part.needed_for}", f"{part.name} {part.version or missing}"
    quota = f", {found.cores.quota:g} at a time" if found.cores.quota is not None else ""
    yield (
        "processor",
        (
            f"{found.processor}; {found.cores.usable} of {found.cores.total} cores{quota}; a run uses {found.threads} threads"
        ),
    )
    memory = found.memory
    limit = f", limited to {_size(memory.limit)} by the container or job" if memory.limit is not None else ""
    yield (
        "memory",
        (
            f"{_size(memory.total)}, {_size(memory.available)} free{limit}; a run keeps to about {_size(found.budget)} "
            "and the model (--memory)"
        ),
    )
    if found.driver is None:
        yield "GPU", "no NVIDIA driver"
        if any(each.name == "onnxruntime-gpu" and each.version for each in found.packages):
            yield (
                "to save 260 MB",
                "`pip uninstall -y onnxruntime-gpu && pip install onnxruntime` puts ONNX Runtime's CPU build in the place of "
                "the one for GPUs; all else stays as it is",
            )
        return
    version = found.driver.version or "of unknown version"
    yield "NVIDIA driver", f"{version}, runs CUDA up to {found.driver.cuda[0]}.{found.driver.cuda[1]}"
    for i, gpu in enumerate(found.driver.gpus):
        yield f"GPU {i}", f"{gpu.name}, {_size(gpu.memory_bytes)}, compute capability {gpu.capability}"
    if not found.driver.gpus:
        yield "GPU", f"none (cuInit: error {found.driver.error})"


def _size(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e9:.1f} GB"
