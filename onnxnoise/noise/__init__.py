"""Noise models: the random arrays of one draw of an initializer, and the noisy values that a level makes of them.

Each model is one file, and one name in the list here. Importing the list loads no NumPy, so that flags can name the models
in their help.
"""

from __future__ import annotations

MODELS = (
    "gaussian",
    "relative",
    "proportional",
    "lognormal",
    "quantize",
    "bitflip",
    "stuck",
    "pcm",
    "hermes",
    "reram-wan",
    "reram-cmo",
    "afm",
    "pcm-joshi",
    "table",
    "python",
)
"""The noise models by the names that `--noise` takes; the file of a model is named like it and ends with `MODEL = its class`."""

FROM_FILES = ("table", "python")
"""The models that are made of a file of the user's."""
