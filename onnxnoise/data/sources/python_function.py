"""Images from the user's own code: `python:FILE.py:NAME` names a function that gives pairs (image, label)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnxnoise.data.datasets import Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.sources.base import DataLayout
from onnxnoise.data.sources.pairs import Given, PairImages, open_pairs
from onnxnoise.errors import DataError
from onnxnoise.files import read_file
from onnxnoise.functions import functions_of, line_of, module_of
from onnxnoise.text import did_you_mean
from onnxnoise.words import PYTHON

MAX_BYTES = 1 << 20


def is_function(path: Path, _: Dataset) -> bool:
    """Whether it is `python:FILE.py:NAME`."""
    return str(path).startswith(PYTHON)


def open_function(path: Path, dataset: Dataset, spec: InputSpec) -> PairImages:
    """The images of the function, all of them: `open_first` without an end."""
    return open_first(path, None, dataset, spec)


def open_first(path: Path, most: int | None, dataset: Dataset, spec: InputSpec) -> PairImages:
    """The images of the function, which is called without arguments each time that its images are read again.

    It gives a list, a data set of pairs with a length, or yields them: then it is read no further than its first `most` images.
    The digest is of the file's bytes, the function's name, and all images and labels that are read. Raises DataError where the
    file or the function isn't there, and for whatever it raises.
    """
    file, separator, name = str(path)[len(PYTHON) :].rpartition(":")
    if not separator or not name.isidentifier():
        raise DataError(
            f"{path}: must be {PYTHON}FILE.py:NAME, NAME a function in the file that gives pairs (image, label)"
        )
    try:
        code = read_file(file, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: can't be read: {getattr(error, 'strerror', None) or error}") from error
    if len(code) > MAX_BYTES:
        raise DataError(
            f"{file}: has more than {MAX_BYTES >> 20} MiB; a Python file has less: keep images and numbers in files beside it"
        )
    identity = hashlib.sha256(code + b"\0" + name.encode()).digest()
    given = Given(_function(file, code, name), f"{file}:{name}", labelled=dataset.labelled)
    return open_pairs(given, dataset, spec, identity, most)


def _function(file: str, code: bytes, name: str) -> Callable[[], Any]:
    try:
        module = module_of(file, code)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        line = line_of(file, error)
        at = f", line {line}" if line else ""
        raise DataError(f"{file}{at}: raises {type(error).__name__} when it is run: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        functions = functions_of(module)
        what = "is no function" if hasattr(module, name) else f"isn't there{did_you_mean(name, functions)}"
        raise DataError(f"{file}: {name} {what}; its functions are {', '.join(functions[:20]) or 'none'}")
    return found  # type: ignore[no-any-return]


LAYOUT = DataLayout(
    "python:FILE.py:NAME, a function that gives pairs (image, label)",
    is_function,
    open_function,
    opens_first=open_first,
)
