"""Noise models: what one draw of an initializer is, and what a level makes of it. One model a file, and a line here for each.

Importing this list loads no NumPy, so that flags can name the models in their help.
"""

from __future__ import annotations

MODELS = (
    "gaussian",
    "relative",
)
"""The noise models by the names that `--noise` takes; the file of a model is named like it and ends with `MODEL = its class`."""
