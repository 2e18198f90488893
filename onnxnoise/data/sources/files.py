"""Files and folders as every layout looks at them: first bytes, entries in a fixed order, and files that may be images."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from onnxnoise.data.sources.items import Item
from onnxnoise.errors import DataError

NOT_IMAGES = frozenset(
    [
        ".txt",
        ".md",
        ".csv",
        ".tsv",
        ".json",
        ".xml",
        ".yaml",
        ".yml",
        ".html",
        ".db",
        ".ini",
        ".sh",
        ".py",
        ".mat",
        ".gz",
    ],
)


def first_bytes(file: Path, count: int) -> bytes:
    """The first `count` bytes of a file; no bytes where it isn't a file or can't be read."""
    try:
        with file.open("rb") as content:
            return content.read(count)
    except OSError:
        return b""


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name, without hidden files. Raises DataError where it can't be read."""
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: can't be read: {error.strerror}") from error


def may_be_image(name: str) -> bool:
    """Whether a file's suffix leaves it possible that it is an image; only decoding tells whether it is one."""
    return PurePosixPath(name).suffix.lower() not in NOT_IMAGES


def image_files(folder: Path, *, besides: str | None = None) -> list[os.DirEntry[str]]:
    """The files of a folder that may be images. Raises DataError where another folder than `besides` is in it."""
    files = []
    for entry in entries(folder):
        if entry.is_dir():
            if entry.name == besides:
                continue
            raise DataError(f"{entry.path}: is a folder where images were expected")
        if may_be_image(entry.name):
            files.append(entry)
    return files


def item_of(entry: os.DirEntry[str], name: str, label: int) -> Item:
    """The image in a file, called `name` in the data set. Raises DataError where the file can't be looked at."""
    try:
        return Item(Path(entry.path), name, label, entry.stat().st_size)
    except OSError as error:
        raise DataError(f"{entry.path}: can't be read: {error.strerror}") from error
