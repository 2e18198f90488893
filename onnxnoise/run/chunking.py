"""Chooses how many images a chunk of a chunked run gets: from the costs of a draw and of an image, and from how much each varies.

With b the variance between draws and w the variance within a draw, over its images, a cell of n draws on m fresh images each has
the variance (b + w/m) / n and costs n (c + m) image passes, c being what it costs to make a draw and its sessions. To any
precision the cost is least at the m that minimizes (c + m)(b + w/m), about sqrt(c w / b) (W. Cochran, Sampling Techniques, 1977,
section 10.6). The minimum is flat, so m is one of `SIZES`; each divides the next, so that models with chunks of different sizes
can still be compared chunk by chunk. A pilot of `_DRAWS` draws on `_IMAGES` images measures b, w and c.

m is chosen once, when a run file is made, and lies in its table of chunks from then on. The parts of a run that are measured into
several files, or by machines that this one doesn't know, must agree on it before anything is measured: shards and clusters have
`ANYWHERE`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from onnxnoise.engine.sweep import ChunkSweep
from onnxnoise.records import Tally, Variant
from onnxnoise.results.tallies import unpacked
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.jobs import decoded

SIZES = (16, 32, 64)
"""The images that a chunk may have."""

RARE = 32
"""The most images of a chunk where some chips may collapse: the pilot's few draws don't show it, and draws are what tells."""

ANYWHERE = 32
"""The images of a chunk where no machine's clock may decide."""

FEWEST_CHUNKS = 16
"""The fewest chunks into which few images are cut: an interval has one degree of freedom less than there are chunks."""

_SMALLEST = 4
"""The images of a chunk where there are few in all, so that a draw is not made for a single image."""

_DRAWS, _IMAGES, _LEVELS, _LAYERS = 8, 32, 3, 4
"""The size of the pilot: draws, images, levels, and layers where only single ones bear noise."""

_COSTS = (2.0, 100.0)
"""The least and the most image passes that a draw can sensibly cost."""

Array = npt.NDArray[np.float64]


def chunk_images(experiment: Experiment, images: int, most: Callable[[], int]) -> int:
    """The number of images in a chunk of a new run file, of `images` in all, no more than the `most` that fit the memory.

    A fixed batch is never cut. Raises what measuring a few images raises.
    """
    spec, fixed = experiment.spec, experiment.subject.network.image.batch or 1
    bound = min(most(), max(images // FEWEST_CHUNKS, min(_SMALLEST, images)))
    wanted = bound
    if bound > SIZES[0]:
        elsewhere = spec.shard is not None or spec.cluster is not None
        wanted = min(bound, ANYWHERE if elsewhere else _best(experiment.here))
        wanted = min(wanted, RARE) if experiment.collapsing else wanted
    return max(fixed, wanted // fixed * fixed)


def best_size(cost: float, between: float, within: float) -> int:
    """The size of `SIZES` at which a precision costs least; `cost` of a draw is in image passes, variances are of one draw."""
    return min(SIZES, key=lambda size: (cost + size) * (between + within / size))


def variances(hits: Sequence[npt.NDArray[np.bool_]], clean: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """(between draws, within a draw over images) of cells' hits, each (draws, images), less A times the clean hits (images,).

    They are sums over the cells, by the mean squares of the two-way layout; a negative estimate counts as 0.
    """
    between = within = 0.0
    for each in hits:
        draws, images = each.shape
        values: Array = each - each.sum() / max(draws * clean.sum(), 1) * clean
        by_draw, by_image = values.mean(axis=1), values.mean(axis=0)
        rest = values - by_draw[:, None] - by_image + values.mean()
        ms_rest = float(np.square(rest).sum()) / ((draws - 1) * (images - 1))
        between += max(float(by_draw.var(ddof=1)) - ms_rest / images, 0.0)
        within += max(float(by_image.var(ddof=1)) - ms_rest / draws, 0.0) + ms_rest
    return between, within


def _best(experiment: Experiment) -> int:
    """The best size for the sweep of all layers, or of single ones where only these are asked for, at some of the levels."""
    spec, layers = experiment.spec, experiment.subject.layers
    levels = spec.swept[:: -(-len(spec.swept) // _LEVELS)]
    variants = [Variant(level, draw) for level in levels for draw in range(_DRAWS)]
    some = [layer.index for layer in layers[:: -(-len(layers) // _LAYERS)]]
    images = decoded(experiment.images, range(_IMAGES))
    with ChunkSweep(
        experiment.subject.network,
        experiment.noise,
        experiment.provider,
        experiment.batches(images.pixels),
        images.labels,
        0,
    ) as sweep:
        sweep.clean()
        clean, an_image = _timed(lambda: [[sweep.clean()]], experiment)
        if spec.sweeps == ("single",):
            noisy, spent = _timed(lambda: sweep.single(dict.fromkeys(some, variants)), experiment)
        else:
            noisy, spent = _timed(lambda: sweep.all(variants, layers), experiment)
    an_image = max(an_image / _IMAGES, 1e-9)
    cost = spent / len(noisy) / an_image - _IMAGES
    cells: dict[tuple[int | None, float], list[npt.NDArray[np.bool_]]] = {}
    for tally in noisy:
        cells.setdefault((tally.layer, tally.level), []).append(unpacked(tally.top1, tally.images))
    found = variances([np.array(each) for each in cells.values()], unpacked(clean[0].top1, clean[0].images))
    return best_size(min(max(cost, _COSTS[0]), _COSTS[1]), *found)


def _timed(passes: Callable[[], Iterable[Sequence[Tally]]], experiment: Experiment) -> tuple[list[Tally], float]:
    """The tallies, and the seconds that they took: on CPUs of processor time, which other programs don't lengthen."""
    clock = time.perf_counter if experiment.provider.own_memory else time.process_time
    began = clock()
    tallies = list(chain.from_iterable(passes()))
    return tallies, clock() - began
