"""Standard output and error of a command: who reads them, and for how long, changes nothing in what is measured or decided."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Sink(io.RawIOBase):
    """Writes to a file descriptor as long as that can be; what is written after goes nowhere, and `failed` says why.

    A reader who left is no failure: `onnxnoise ... | head` has what it wanted.
    """

    def __init__(self, descriptor: int, failed: OSError | None = None) -> None:
        self._descriptor, self._gone = descriptor, failed is not None
        self.failed = failed

    def write(self, content: Any) -> int:
        if not self._gone:
            try:
                return os.write(self._descriptor, content)
            except OSError as error:
                self._gone = True
                if error.errno not in (errno.EPIPE, errno.ESHUTDOWN):
                    self.failed = error
        return memoryview(content).nbytes

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return not self._gone and os.isatty(self._descriptor)


class Output(io.TextIOWrapper):
    """A standard stream in its own encoding; characters that the encoding lacks are replaced."""

    def __init__(self, descriptor: int, encoding: str | None, failed: OSError | None = None) -> None:
        self.sink = _Sink(descriptor, failed)
        super().__init__(io.BufferedWriter(self.sink), encoding=encoding, errors="replace", line_buffering=True)


@contextmanager
def steady() -> Iterator[None]:
    """Make standard output and error Outputs in the block, also where the shell has closed them (`>&-`).

    A closed descriptor is given to the null device: else it would become that of the next file that is opened, the run file
    perhaps, and whatever a library prints would end in there.
    """
    closed = [descriptor for descriptor in (0, 1, 2) if not _is_open(descriptor)]
    for _ in closed:
        os.open(os.devnull, os.O_RDWR)  # the lowest that is free
    before = sys.stdout, sys.stderr
    made: list[Output] = []
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or descriptor in closed:
            error = OSError(errno.EBADF, os.strerror(errno.EBADF))
            made.append(Output(descriptor, "utf-8", error))
        elif type(stream) is io.TextIOWrapper and _descriptor(stream) == descriptor:
            stream.flush()
            made.append(Output(descriptor, stream.encoding))
        else:
            continue  # somebody's own
        setattr(sys, name, made[-1])
    try:
        yield
    finally:
        for output in made:
            output.flush()
        sys.stdout, sys.stderr = before


def failure() -> OSError | None:
    """Why what was printed until now did not get to standard output; None where it did, or the reader left."""
    sys.stdout.flush()
    return sys.stdout.sink.failed if isinstance(sys.stdout, Output) else None


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _descriptor(stream: io.TextIOWrapper) -> int | None:
    try:
        return stream.fileno()
    except OSError:
        return None
