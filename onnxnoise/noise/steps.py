"""One step of a chain: from the text that people type to the noise model, its level and its other parameters."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from onnxnoise.errors import UsageError
from onnxnoise.noise import MODELS
from onnxnoise.noise.base import NoiseModel
from onnxnoise.noise.table import curves
from onnxnoise.noise.times import seconds
from onnxnoise.noise.userfiles import UserFile
from onnxnoise.records import NoiseStep
from onnxnoise.text import did_you_mean, quoted

_BETWEEN = re.compile(r"\+(?=\s*[a-z-]+\s*(?::|\+|$))")
"""A plus between two steps: a name follows it, which a number such as 1e+3, or the rest of a file's name, is not."""

_FILE = re.compile(r"(.*?)((?:,\s*\w+\s*=[^,=]*)*)", re.DOTALL)
"""A file and its parameters."""


def model_class(name: str) -> type[NoiseModel]:
    """The class of a noise model, made with the step's parameters by name; raises UsageError for a model that is not known."""
    if name not in MODELS:
        raise UsageError(f"--noise: {quoted(name)} is not known{did_you_mean(name, MODELS)}; use {', '.join(MODELS)}")
    found: type[NoiseModel] = import_module(f"onnxnoise.noise.{name.replace('-', '_')}").MODEL
    return found


def texts_of(chain: str) -> list[str]:
    """The texts of a chain's steps."""
    return [part.strip() for part in _BETWEEN.split(chain)]


def step_of(text: str, *, read: bool = True) -> NoiseStep:
    """The step that a text names.

    Where `read`, a file of the user's is read, and its digest and whole path become parts of the step. Raises UsageError for a
    text that is no step, NoiseFileError for a file that can't be used.
    """
    name, colon, rest = text.partition(":")
    name = name.strip()
    model = model_class(name)
    takes = tuple(inspect.signature(model).parameters)
    file = ""
    if "file" in takes:
        found = _FILE.fullmatch(rest)
        file, rest = (found[1].strip(), found[2].lstrip(",")) if found else (rest, "")
        if not file:
            raise UsageError(
                f"--noise: {name} needs a file; write {name}:{'FILE.py:NAME' if name == 'python' else 'FILE'}"
            )
    level, parameters = _numbers(text, rest) if colon and rest else (None, {})
    step = NoiseStep(name, level, tuple(parameters.items()), file)
    if file and read:
        path, colon, function = file.rpartition(":") if name == "python" else (file, "", "")
        if name == "python" and not (path and function.isidentifier()):
            raise UsageError(f"--noise: {text[:60]!r} names no function; write python:FILE.py:NAME")
        found_file = UserFile.read(Path(path))
        step = NoiseStep(name, level, step.parameters, f"{found_file.path}{colon}{function}", found_file.sha256)
        if name == "table":
            step = _with_times(step)
    return _with_level(step, takes)


def made_of(step: NoiseStep) -> tuple[NoiseModel, float | None]:
    """(the noise model of a step, its level where one is written). Raises UsageError for parameters that it doesn't take."""
    model = model_class(step.name)
    takes = tuple(inspect.signature(model).parameters)
    numbers = [each for each in takes if each not in ("file", "sha256")]
    for name, _ in step.parameters:
        if name not in numbers:
            known = [_level_name(step.name), *numbers]
            raise UsageError(
                f"--noise: {step.name} has no parameter {name[:40]!r}{did_you_mean(name, known)}; "
                + (f"besides its level it takes {', '.join(numbers)}" if numbers else "it takes none besides its level")
            )
    files = {"file": step.file, "sha256": step.sha256} if "file" in takes else {}
    made = model(**files, **dict(step.parameters))
    return made, made.level.only if step.level is None else made.level.check(step.level, "--noise")


def _numbers(text: str, rest: str) -> tuple[float | None, dict[str, float]]:
    """(the number that stands alone, those with names); times are in seconds."""
    level: float | None = None
    parameters: dict[str, float] = {}
    for part in rest.split(","):
        key, equals, value = part.partition("=")
        time = seconds(value if equals else key)
        try:
            number = float(value if equals else key) if time is None else time
        except ValueError:
            raise UsageError(
                f"--noise: {text[:60]!r}: {part[:40]!r} is no parameter; write a level, or NAME=NUMBER"
            ) from None
        if not equals and level is not None:
            raise UsageError(f"--noise: {text[:60]!r} has two levels; write one, and other parameters as NAME=NUMBER")
        if key.strip() in parameters:
            raise UsageError(f"--noise: {text[:60]!r} gives {quoted(key)} twice; leave out one")
        if equals:
            parameters[key.strip()] = number
        else:
            level = number
    return level, parameters


def _with_times(step: NoiseStep) -> NoiseStep:
    """The step of a table with the table's first and last time among its parameters, for those who don't have the file."""
    times = [curve.t for curve in curves(step.file, step.sha256)]
    others = tuple(each for each in step.parameters if each[0] not in ("first", "last"))
    span = (("first", times[0]), ("last", times[-1])) if times[-1] else ()
    return replace(step, parameters=(*others, *span))


def _level_name(name: str) -> str:
    return model_class(name).level.name.lower()


def _with_level(step: NoiseStep, takes: tuple[str, ...]) -> NoiseStep:
    """The step with its level in its place where it was written by name, as `eta=0.05`."""
    named = _level_name(step.name)
    given = [(name, value) for name, value in step.parameters if name.lower() in (named, "level") and name not in takes]
    if not given:
        return step
    if step.level is not None:
        raise UsageError(f"--noise: {step.text[:60]!r} has two levels; write one")
    rest = tuple(pair for pair in step.parameters if pair not in given)
    return replace(step, level=given[0][1], parameters=rest)
