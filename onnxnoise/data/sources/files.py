"""Files and folders as every layout looks at them: first bytes, entries in a fixed order, and files that may be images."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from onnxnoise.data.sources.items import Item
from onnxnoise.errors import DataError
from onnxnoise.files import first_bytes, open_file
from onnxnoise.formats import bad_download

LEFTOVERS = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"))
"""Folders that operating systems leave."""

GZIP, PICKLE = b"\x1f\x8b", b"\x80"
"""The first bytes of a file that is packed with gzip, and of a pickle of protocol 2 or later."""

MOST_EMPTY_LINES = 10_000

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
        ".zip",
        ".parquet",
        ".arrow",
        ".npz",
        ".npy",
        ".pkl",
        ".onnx",
        ".toml",
    ],
)


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name, without hidden files. Raises DataError where it can't be read."""
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: can't be read: {error.strerror}") from error


def is_leftover(name: str) -> bool:
    """Whether a path inside a data set is hidden, or in a folder, that operating systems leave; none of it is an image."""
    return any(part in LEFTOVERS or (part.startswith(".") and part != "..") for part in PurePosixPath(name).parts)


def check_download(file: Path) -> None:
    """Raise DataError for a Git LFS pointer, or a web page in the place of a download."""
    if found := bad_download(first_bytes(file, 512)):
        raise DataError(f"{file}: {found}")


def first_unpacked(file: Path, count: int) -> bytes:
    """The first `count` bytes of what a file holds, packed with gzip or not; none where it can't be read or is damaged there."""
    head = first_bytes(file, count)
    if not head.startswith(GZIP):
        return head
    try:
        with open_file(file) as raw, gzip.GzipFile(fileobj=raw) as packed:
            return packed.read(count)
    except (OSError, EOFError, ValueError, zlib.error):
        return b""


def text_lines(file: Path, most: int, what: str) -> Iterator[tuple[int, str]]:
    """(number from 1, text without its end) of each line of a UTF-8 file of at most `most` bytes, which should be a `what`.

    Raises DataError: the file can't be read, is larger, is not text, or has thousands of empty lines in a row.
    """
    check_download(file)
    empty = 0
    try:
        with io.TextIOWrapper(open_file(file), "utf-8-sig") as lines:
            size = os.fstat(lines.fileno()).st_size
            if size > most:
                raise DataError(f"{file}: {size:,} bytes; this is no {what}, which has {most:,} at most")
            for number, line in enumerate(lines, 1):
                empty = 0 if line.strip() else empty + 1
                if empty > MOST_EMPTY_LINES:
                    raise DataError(f"{file}, line {number}: over {MOST_EMPTY_LINES:,} empty lines; this is no {what}")
                yield number, line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{file}: can't be read as text: {reason}") from error


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
