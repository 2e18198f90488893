"""Skips the tests marked `cuda` where no GPU can be used, with the reason that a user would get; lets tests hear Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import pytest

from onnxnoise.errors import ProviderError
from onnxnoise.runtime.providers import find_provider


def pytest_configure() -> None:
    """Hear Ctrl-C, which a shell's background job ignores: tests send it, to this process and to their own."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked:
        return
    try:
        find_provider("cuda")
    except ProviderError as error:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=str(error)))
