"""Finds the files that come with the package: model cards and data sets, in a wheel or in a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Folder = Literal["model_cards", "datasets"]


def folder(name: Folder) -> Path:
    """The folder `name` inside the package (a wheel), else beside it (a checkout)."""
    package = Path(__file__).resolve().parents[1]
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def bundled(name: Folder) -> dict[str, Path]:
    """The bundled TOML files of a folder by name (the file's stem), sorted."""
    return {path.stem: path for path in sorted(folder(name).glob("*.toml"))}
