"""Flags from a TOML file (`--config`), so that a run's whole question can be kept; flags on the command line override them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxnoise.data.toml import read_document, shown
from onnxnoise.errors import InputError, UsageError
from onnxnoise.fields import Flag
from onnxnoise.flags import value_of
from onnxnoise.text import did_you_mean


def from_config(path: Path, flags: Mapping[str, Flag]) -> dict[str, Any]:
    """The texts of flags, by field, that a file has under the flags' names, as `sigma-scope = "layer"`.

    Lists stand for what commas separate, and paths are the file's where something lies there. Raises InputError, which names
    file and key, for a file that can't be read, an unknown key and a value that the flag does not take.
    """
    named = {key_of(field, each): field for field, each in flags.items()}
    found: dict[str, Any] = {}
    for key, value in read_document(path, "config file", InputError, "; name another with --config").items():
        field = named.get(key.replace("_", "-"))
        if field is None:
            raise InputError(
                f"{path}: {shown(key)} is no flag of this command{did_you_mean(key.replace('_', '-'), named)}; the keys are its "
                "flags without the dashes, and `--help` shows them"
            )
        found[field] = _text(path, key, flags[field], value)
        try:
            value_of(flags[field], found[field])
        except UsageError as error:
            raise InputError(f"{path}: {key} = {shown(value)}: {error}") from error
    return found


def key_of(field: str, each: Flag) -> str:
    """The key of a flag in a file: its longest name without dashes; an argument's is its field."""
    return each.name.lstrip("-") if each.names else field


def _text(path: Path, key: str, each: Flag, value: object) -> Any:
    """A value of the file as the command line has it: a bool for a switch, a list of texts for a flag that may be repeated."""
    if each.syntax == "switch":
        if not isinstance(value, bool):
            raise InputError(f"{path}: {key} = {shown(value)}: must be true or false")
        return value
    items = value if isinstance(value, list) else [value]
    if not items or any(isinstance(item, bool) or not isinstance(item, str | int | float) for item in items):
        raise InputError(f"{path}: {key} = {shown(value)}: must be a text, a number, or a list of these")
    texts = [_beside(path, item) if each.syntax in ("path", "text") else str(item) for item in items]
    return texts if each.many else ",".join(texts)


def _beside(path: Path, item: object) -> str:
    """A text, as a path beside the file where something lies there."""
    beside = path.parent / str(item)
    return str(beside) if str(item) and path.parent != Path() and beside.exists() else str(item)
