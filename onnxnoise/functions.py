"""Runs a user's Python file as a module, whose functions give images or make noise."""

from __future__ import annotations

import hashlib
import sys
import traceback
from pathlib import Path
from types import FunctionType, ModuleType


def module_of(file: str, code: bytes) -> ModuleType:
    """The module that the code of a file makes, with the files beside it importable. Raises whatever the code raises."""
    path = Path(file).absolute()
    module = ModuleType(f"onnxnoise_file_{hashlib.sha256(code).hexdigest()[:12]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look for the names in their annotations
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
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
