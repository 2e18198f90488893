"""Measures how an image classifier's accuracy falls when its weights are stored with noise, layer by layer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxnoise.errors import OnnxNoiseError
    from onnxnoise.records import NoiseLayer, Result
    from onnxnoise.results import to_json
    from onnxnoise.runner import bench
    from onnxnoise.spec import BenchSpec
    from onnxnoise.subject import open_model

__all__ = ["BenchSpec", "NoiseLayer", "OnnxNoiseError", "Result", "bench", "open_model", "to_json"]

_HOMES = {
    "BenchSpec": "spec",
    "NoiseLayer": "records",
    "OnnxNoiseError": "errors",
    "Result": "records",
    "bench": "runner",
    "open_model": "subject",
    "to_json": "results",
}


def __getattr__(name: str) -> object:
    """Imports what is asked for, so that `import onnxnoise` and the command line's help take no time."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
