"""Runs a user's Python file as a module, whose functions give images or make noise."""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, get_ident
from types import FunctionType, ModuleType
from typing import Any

_inside: Counter[int] = Counter()
"""The threads in which a user's code runs, and how deep."""
_turn = Lock()


class _ByThread:
    """Standard output, which for threads in which a user's code runs is standard error."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr if _inside[get_ident()] else self.own, name)


@contextmanager
def printing_aside() -> Iterator[None]:
    """A block in which a user's code prints to standard error: standard output has nothing but the command's result.

    Other threads print where they did (contextlib.redirect_stdout is for all threads, and two that overlap undo each other).
    """
    me = get_ident()
    with _turn:
        if not _inside:
            sys.stdout = _ByThread(sys.stdout)
        _inside[me] += 1
    try:
        yield
    finally:
        with _turn:
            _inside[me] -= 1
            if not _inside[me]:
                del _inside[me]
            if not _inside and isinstance(sys.stdout, _ByThread):
                sys.stdout = sys.stdout.own


def module_of(file: str, code: bytes) -> ModuleType:
    """The module that the code of a file makes, with the files beside it importable. Raises whatever the code raises."""
    path = Path(file).absolute()
    module = ModuleType(f"onnxnoise_file_{hashlib.sha256(code).hexdigest()[:12]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look for the names in their annotations
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    with printing_aside():
        exec(compile(code, file, "exec"), module.__dict__)
    return module


def line_of(file: str, error: BaseException) -> int | None:
    """The line of the file in which an error was raised, or that is no Python; None where it is none of the file's."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno
    lines = [each.lineno for each in traceback.extract_tb(error.__traceback__) if each.filename == file]
    return lines[-1] if lines else None


def functions_of(module: ModuleType) -> list[str]:
    """The names of a module's functions, in the order in which they are defined."""
    return [name for name, value in vars(module).items() if isinstance(value, FunctionType)]
