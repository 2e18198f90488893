"""Opens files that people or other files name: regular ones alone, since a pipe, a device or a socket may never end; and looks
at the place of files to write.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

from onnxnoise.errors import RunFileError

_NOT_REGULAR = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_file(path: str | Path) -> io.BufferedReader:
    """Open a regular file, or a link to one, for reading bytes.

    Raises OSError where it can't be opened, is a folder (IsADirectoryError), or is no regular file; never waits for a writer.
    """
    _check(Path(path).stat().st_mode, path)  # opening a device may already do something
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        _check(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: str | Path, most: int) -> bytes:
    """The bytes of a regular file, the first `most` + 1 where it has more. Raises OSError as `open_file`."""
    with open_file(path) as file:
        return file.read(most + 1)


def first_bytes(path: Path, count: int) -> bytes:
    """The first `count` bytes of a file; none where it can't be read or is no regular file."""
    try:
        return read_file(path, count)[:count]
    except (OSError, ValueError):
        return b""


def is_file(path: Path) -> bool:
    """Whether a regular file, or a link to one, lies at a path; nothing does where the system can't take the path at all."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_there(path: Path) -> bool:
    """Whether something lies at a path that is no folder, be it a regular file or not."""
    try:
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):
        return False


def check_output(path: Path, option: str) -> None:
    """Raise RunFileError for a file to write that is a folder, or whose folder can't be made since a file is in the way.

    `option` is the flag that names the file. Nothing is made: `make_place` does that once there is something to write.
    """
    if path.is_dir():
        raise RunFileError(f"{path}: is a folder; name a file in it with {option}")
    there = next((folder for folder in path.absolute().parents if folder.exists()), None)
    if there is not None and not there.is_dir():
        raise RunFileError(f"{path}: can't be written: {there} is no folder; name another file with {option}")


def make_place(path: Path) -> None:
    """Make the folder of a file to write, and those above it; raises OSError where that can't be done."""
    path.parent.mkdir(parents=True, exist_ok=True)


def kind_of_file(mode: int) -> str:
    """The kind of file that a mode (`st_mode`) says, with its article."""
    return _NOT_REGULAR.get(stat.S_IFMT(mode), "a folder" if stat.S_ISDIR(mode) else "a file")


def _check(mode: int, path: str | Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"it is {kind_of_file(mode)}; only regular files are read", str(path))
