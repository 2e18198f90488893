"""Decodes images in threads ahead of whoever consumes them: in order, and in bounded memory."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from typing import Any, TypeVar

import numpy as np

from onnxnoise.machine import cores
from onnxnoise.records import ImageChunk, Labels, Pixels

AHEAD_BYTES = 256 << 20  # pixels decoded ahead, whatever the chunk

Encoded = TypeVar("Encoded")
"""The type of what stands for an image that is still to be decoded: its position, or its bytes."""


def stream(
    ranges: Sequence[range],
    decode: Callable[[Encoded], Pixels],
    labels: Labels,
    shape: tuple[int, ...],
    threads: int | None = None,
    *,
    encoded: Iterable[Encoded] | None = None,
    most: int | None = None,
) -> Iterator[ImageChunk]:
    """One chunk for each range of positions, in order, while `decode` (-> uint8 of `shape`) runs ahead.

    `encoded` has what is to be decoded, for all positions in the order of the ranges; by default it is the positions themselves.
    At most one chunk, 256 MiB, and `most` images are decoded ahead. `threads` None: one for each core. What `decode` raises is
    raised here; closing the generator ends the threads.
    """
    threads = threads or cores().threads
    longest = max((len(positions) for positions in ranges), default=0)
    window = max(2 * threads, min(longest, AHEAD_BYTES // prod(shape), most or longest))
    waiting: Iterator[Any] = itertools.chain.from_iterable(ranges) if encoded is None else iter(encoded)
    ahead: deque[Future[Pixels]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="onnxnoise-decode")
    try:
        for positions in ranges:
            pixels = np.empty((len(positions), *shape), np.uint8)
            for row in range(len(positions)):
                ahead.extend(pool.submit(decode, each) for each in itertools.islice(waiting, window - len(ahead)))
                pixels[row] = ahead.popleft().result()
            ahead.extend(pool.submit(decode, each) for each in itertools.islice(waiting, window - len(ahead)))
            yield ImageChunk(positions.start, pixels, labels[positions.start : positions.stop])
    finally:
        pool.shutdown(cancel_futures=True)
