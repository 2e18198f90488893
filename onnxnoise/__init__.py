"""Measures how an image classifier's accuracy falls when its weights are stored with noise, layer by layer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxnoise.chip import Chip, apply
    from onnxnoise.digital import Plan, plan
    from onnxnoise.errors import OnnxNoiseError
    from onnxnoise.gating import gate
    from onnxnoise.margins import Margins, margin
    from onnxnoise.measured import compare
    from onnxnoise.rankings import Comparison
    from onnxnoise.records import NoiseLayer, Result
    from onnxnoise.reports import report
    from onnxnoise.results import to_json
    from onnxnoise.rows import load
    from onnxnoise.runner import bench
    from onnxnoise.spec import BenchSpec
    from onnxnoise.subject import open_model
    from onnxnoise.verdicts import GateVerdict

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
    "Chip": "chip",
    "Comparison": "rankings",
    "GateVerdict": "verdicts",
    "Margins": "margins",
    "NoiseLayer": "records",
    "OnnxNoiseError": "errors",
    "Plan": "digital",
    "Result": "records",
    "apply": "chip",
    "bench": "runner",
    "compare": "measured",
    "gate": "gating",
    "load": "rows",
    "margin": "margins",
    "open_model": "subject",
    "plan": "digital",
    "report": "reports",
    "to_json": "results",
}


def __getattr__(name: str) -> object:
    """Imports what is asked for, so that `import onnxnoise` and the command line's help take no time."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
