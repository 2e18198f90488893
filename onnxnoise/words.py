"""The words that flags, files and records share, with their choices and defaults; without NumPy, so that help takes no time."""

from __future__ import annotations

from typing import Literal, get_args

Sweep = Literal["single", "cumulative", "all"]
Policy = Literal["group", "raw", "affine", "fold", "clean"]
SigmaScope = Literal["tensor", "layer"]
Analog = Literal["all", "kernels"]
"""The initializers that bear noise: all of a layer's, or only the kernels of convolutions, dense and recurrent layers."""

Compensation = Literal["none", "drift", "bn"]
"""The compensation of a chip's noise: nothing, one drift factor a layer, or batch-norm statistics that are recomputed."""

Metric = Literal["top1", "top5"]
Kind = Literal["conv", "dense", "batchnorm", "norm", "recurrent", "embedding", "scale", "parameter"]

SWEEPS: tuple[Sweep, ...] = get_args(Sweep)
POLICIES: tuple[Policy, ...] = get_args(Policy)
SIGMA_SCOPES: tuple[SigmaScope, ...] = get_args(SigmaScope)
ANALOG: tuple[Analog, ...] = get_args(Analog)
COMPENSATIONS: tuple[Compensation, ...] = get_args(Compensation)
METRICS: tuple[Metric, ...] = get_args(Metric)

PYTHON = "python:"
"""The beginning of data, or noise, that a function in a file gives: python:FILE.py:NAME."""

DEFAULT_SEED = 40
PAPER_SNRS = (100.0, 10.0, 5.0, 2.5, 1.67, 1.0)
"""The paper's noise of 1, 10, 20, 40, 60 and 100 percent."""
