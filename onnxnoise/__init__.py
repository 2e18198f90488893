"""Measures how an image classifier's accuracy falls when its weights are stored with noise, layer by layer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxnoise.decisions.comparing.compare import compare
    from onnxnoise.decisions.comparing.records import Comparison
    from onnxnoise.decisions.design.chip import Chip, apply
    from onnxnoise.decisions.design.digital_layers import Plan, plan
    from onnxnoise.decisions.design.margins import Margins, margin
    from onnxnoise.decisions.gating.gate import gate
    from onnxnoise.decisions.gating.records import GateVerdict
    from onnxnoise.decisions.reporting import report
    from onnxnoise.errors import OnnxNoiseError
    from onnxnoise.records import NoiseLayer, Result
    from onnxnoise.results.as_json import to_json
    from onnxnoise.results.rows import load
    from onnxnoise.run.loading import open_model
    from onnxnoise.run.runner import bench
    from onnxnoise.spec import BenchSpec

__all__ = [
    "BenchSpec",
    "Chip",
    "Comparison",
    "GateVerdict",
    "Margins",
    "NoiseLayer",
    "OnnxNoiseError",
    "Plan",
    "Result",
    "apply",
    "bench",
    "compare",
    "gate",
    "load",
    "margin",
    "open_model",
    "plan",
    "report",
    "to_json",
]

# None of the functions is named like a module: an imported module would hide it.
_HOMES = {
    "BenchSpec": "spec",
    "Chip": "decisions.design.chip",
    "Comparison": "decisions.comparing.records",
    "GateVerdict": "decisions.gating.records",
    "Margins": "decisions.design.margins",
    "NoiseLayer": "records",
    "OnnxNoiseError": "errors",
    "Plan": "decisions.design.digital_layers",
    "Result": "records",
    "apply": "decisions.design.chip",
    "bench": "run.runner",
    "compare": "decisions.comparing.compare",
    "gate": "decisions.gating.gate",
    "load": "results.rows",
    "margin": "decisions.design.margins",
    "open_model": "run.loading",
    "plan": "decisions.design.digital_layers",
    "report": "decisions.reporting",
    "to_json": "results.as_json",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that `import onnxnoise` and the command line's help take no time."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
