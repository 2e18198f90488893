"""Calls into ONNX Runtime while the main thread waits beside them, since Python hears Ctrl-C only outside of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread, get_ident
from typing import TypeVar

Made = TypeVar("Made")

_under_way: set[int] = set()
"""The threads that are inside ONNX Runtime."""


def is_running() -> bool:
    """Whether any thread of this process is inside ONNX Runtime."""
    return bool(_under_way)


@contextmanager
def inside() -> Iterator[None]:
    """Count this thread among those inside ONNX Runtime for the block."""
    _under_way.add(get_ident())
    try:
        yield
    finally:
        _under_way.discard(get_ident())


def attended(call: Callable[[], Made]) -> Future[Made]:
    """The result to come of a call that a thread of its own makes; who waits for it still hears Ctrl-C."""
    made: Future[Made] = Future()

    def work() -> None:
        try:
            made.set_result(call())
        except BaseException as error:
            made.set_exception(error)

    Thread(target=work, name="onnxnoise-call", daemon=True).start()
    return made
