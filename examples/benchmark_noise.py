"""Times noise models on one tensor: a draw's random arrays, and the noisy weights of one level, beside gaussian noise."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from onnxnoise.noise import FROM_FILES, MODELS
from onnxnoise.noise.base import Weights
from onnxnoise.noise.models import chain_of, parse_chain
from onnxnoise.records import NoiseSetting

_SHAPE = (512, 1024)
_MORE = ("stuck:high=0.1", "bitflip:bits=4", "bitflip:bits=32", "hermes:devices=1")


def noise(_: argparse.Namespace) -> None:
    """Each noise model on one tensor: nanoseconds of processor time a weight, the best of nine, and ratios to gaussian noise.

    A draw is its random arrays and the noisy weights of one level; a further level of it shares what the level has no part in.
    """
    w = np.random.default_rng(0).normal(0, 0.1, _SHAPE).astype(np.float32)
    weights = Weights(w, float(w.std()))
    print(
        f"noise of {w.size:,} weights, ns a weight: random arrays, noisy weights, a further level; times a gaussian draw: "
        "all, a random array"
    )
    of_gaussian = 0.0
    for name in [*(each for each in MODELS if each not in FROM_FILES), *_MORE]:
        chain = chain_of(NoiseSetting(parse_chain(name)))
        level = chain.levels[-1]
        drawn = chain.draw(40, 0, 1, 0, w.shape)
        arrays = max(1, sum(array.size for array in drawn[0]) // w.size)
        drawing = _best(lambda chain=chain: chain.draw(40, 0, 1, 0, w.shape)) / w.size  # type: ignore[misc]
        making = _best(lambda c=chain, d=drawn, at=level: c.at(weights, d, at)) / w.size  # type: ignore[misc]
        over = chain.over(weights, drawn)
        further = _best(lambda over=over, at=level: over(at)) / w.size  # type: ignore[misc]
        whole = drawing + making
        of_gaussian = of_gaussian or whole
        print(
            f"  {name:18} {drawing * 1e9:6.1f} {making * 1e9:6.1f} {further * 1e9:6.1f}   x {whole / of_gaussian:5.2f}   "
            f"x {whole / of_gaussian / arrays:4.2f} ({arrays})"
        )


def _best(run: Callable[[], object]) -> float:
    times = []
    for _ in range(9):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)
