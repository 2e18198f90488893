"""Decodes images in threads ahead of whoever consumes them: in order, and in bounded memory."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from onnxnoise.machine import cores
from onnxnoise.records import ImageChunk, Labels, Pixels

AHEAD_BYTES = 256 << 20  # pixels decoded ahead, whatever the chunk


def stream(
    ranges: Sequence[range], decode: Callable[[int], Pixels], labels: Labels, side: int, threads: int | None = None
) -> Iterator[ImageChunk]:
    """One chunk for each range of positions, in order, while `decode` (position -> uint8 (side, side, 3)) runs ahead.

    At most one chunk, and at most 256 MiB, is decoded ahead. `threads` None: one for each core. What `decode` raises is
    raised here; closing the generator ends the threads.
    """
    threads = threads or cores().threads
    longest = max((len(positions) for positions in ranges), default=0)
    window = max(2 * threads, min(longest, AHEAD_BYTES // (side * side * 3)))
    waiting = itertools.chain.from_iterable(ranges)
    ahead: deque[Future[Pixels]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="onnxnoise-decode")
    try:
        for positions in ranges:
            pixels = np.empty((len(positions), side, side, 3), np.uint8)
            for row in range(len(positions)):
                ahead.extend(pool.submit(decode, index) for index in itertools.islice(waiting, window - len(ahead)))
                pixels[row] = ahead.popleft().result()
            ahead.extend(pool.submit(decode, index) for index in itertools.islice(waiting, window - len(ahead)))
            yield ImageChunk(positions.start, pixels, labels[positions.start : positions.stop])
    finally:
        pool.shutdown(cancel_futures=True)
