"""Keeps the output of ONNX Runtime's C++ code from the user's terminal."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def quiet() -> Iterator[Callable[[], str]]:
    """Catch all that is printed to standard error, or Python's standard output, in the block; yields a function to read it.

    ONNX Runtime's log level doesn't cover this: protobuf, provider libraries and `preload_dlls` print on their own.
    """
    printed = io.StringIO()
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file, redirect_stdout(printed):
        os.dup2(file.fileno(), 2)

        def said() -> str:
            size = os.fstat(file.fileno()).st_size
            return printed.getvalue() + os.pread(file.fileno(), size, 0).decode(errors="replace")

        try:
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)
