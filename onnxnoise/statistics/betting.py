"""Evidence that a mean is above or below a limit, from chunks of images that met draws of their own, at any time.

A rule says that an accuracy is at least some limit L: over chips and images like these, hits are at least L times the hits
without noise. Chunk k of m images has met one draw and has h_k hits, c_k without noise. Somebody who doubts that the rule
holds would take fair bets on x_k = (h_k - L c_k) / m, which lies in [-L, 1] and has mean 0 or less where the truth is L or
less, whatever is known of the chunks before. So bet: begin with a capital of 1 and put the same share of it on every chunk.
With stake lambda in (0, 1/L) the capital after n chunks is

    prod_k (1 + lambda x_k)            E_n = the mean of it over a grid of stakes

which never falls to 0 and, where the truth is at or below L, is a supermartingale: the chance that it ever reaches 1/e is at
most e (Ville's inequality). It is the evidence that the rule holds: "31 to 1". The rule passes as soon as it is 1/e, for a
rule of confidence 1 - e; it fails as soon as the evidence from -x_k, with stakes in (0, 1), is. Nothing is assumed of the
distribution, so rare chips that collapse need no rule of their own, and one may look as often as one likes (I. Waudby-Smith
and A. Ramdas, Estimating means of bounded random variables by betting, JRSS B 86, 2024; a grid of stakes is their diversified
Kelly bettor).

**Other limits.** An accuracy as a fraction of 1 has m in the place of c_k; its drop d has x_k = (h_k - c_k + d m) / m, and a
baseline its own hits b_k on the same chunk. All are `gains - L * bases`.

**Bounds.** The limits that are not rejected at error e make an interval that holds at any time: `low` is the largest limit
that has evidence 1/e that the truth is above it.

**Several layers.** A rule about every one of several layers passes when each has the evidence: where one layer is below its
limit, the smallest E_n is no larger than that layer's own. It fails by the mean of their evidence against it, which is
evidence that not all of them hold, however they depend on each other (V. Vovk and R. Wang, E-values: calibration, combination
and applications, Annals of Statistics 49, 2021, proposition 3.1).

**What is assumed.** The chunks are dealt at random, and a chunk meets a fresh draw each time. As long as no chunk has come
twice, the evidence is about chips and images like these. Later rounds meet the same images again with fresh draws: from there
on these images stand for all, and strictly the evidence is about chips on these. Chips that hardly differ would only repeat
what these images said. So evidence from later rounds counts only where the images agree by themselves: each chunk's mean over
its draws is one observation of a one-sided t test at the rule's error. That what is said of images like these still holds in
95 % of cases is measured, and bounds the draws that a gate takes (`most_draws`).

**Draws that all met all images** (a crossed run) are dealt afterwards: draw d gets the d-th of as many chunks, then another,
once around. The evidence is the mean of E_n over these deals, again a mean of fair bets; it may be looked at once, when all
draws are there. Few draws can't prove much: n draws whose accuracy is A show at most (A / L)^n to 1, however many images.

**Noise in which nothing is random** (few bits) has one chip. Its images, in a random order, are the chunks, one image each: the
evidence is about images like these.

Measured with the limit at the truth over all chips and images, after all the draws that a gate takes
(tests/statistics/test_betting.py): false passes in 0 to 4 % of runs, for 60 to 2,000 images; of chips that are all alike in 0
to 6 %, for 20 to 2,000 images. Uniform stakes need a fifth
fewer chunks than geometric ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxnoise.statistics.distributions import quantile

Array = npt.NDArray[np.float64]

CHUNK_IMAGES = 50
"""The images of a chunk where a gate lays them down."""

MOST_DRAWS, FEWEST_DRAWS, DRAWS_PER_IMAGE = 400, 100, 0.25
"""A gate gives up after MOST_DRAWS draws of a cell, 20,000 passes: with few images sooner, after one draw for every four images,
yet not before FEWEST_DRAWS.
"""

FEWEST_CHUNKS = 20
"""The chunks that few images are cut into, at least."""

_FIRST_LOOK = 5
"""The draws before the first look: fewer decide nothing, unless the limit is a few percent of the clean accuracy."""

_STAKES = np.arange(1, 41) / 41.0
"""Stakes as shares of the largest one, at which the capital could be lost with one chunk."""

_SMALLEST_RANGE = 1e-9
"""The least loss that stakes are sized for, where a limit leaves no loss at all."""

MOST_DEALS = 24
"""The deals that the evidence of a crossed run is averaged over, at most."""

MOST_EVIDENCE = 1e300
_HALVINGS = 20


def chunk_images(images: int) -> int:
    """The images of a chunk: CHUNK_IMAGES, fewer where there would be fewer than FEWEST_CHUNKS chunks."""
    return max(1, min(CHUNK_IMAGES, images // FEWEST_CHUNKS))


def most_draws(images: int) -> int:
    """The draws of a cell after which a gate of so many images gives up, unless it is told otherwise."""
    return max(FEWEST_DRAWS, min(MOST_DRAWS, round(DRAWS_PER_IMAGE * images)))


def next_look(draws: int, most: int) -> int | None:
    """The number of draws at the next look at the evidence, about a tenth more than `draws`; None when the `most` are there."""
    if draws >= most:
        return None
    return min(most, draws + max(2, draws // 10) if draws else _FIRST_LOOK)


@dataclass(frozen=True, eq=False)
class Bets:
    """The chunks of one place, to be bet on: `gains` and `bases` (deals, chunks) are shares of a chunk's images.

    `value` is the estimate that is held against the limit. A gain is at least `floor` (0, or -1 where clean hits are taken
    off it) and at most 1; a base is from `least_base` (1 where it is the images themselves) to 1. `at_once` says that all
    chunks are there together: the evidence counts when it is complete, not at any time before. `starts` tells the chunks
    apart and `sizes` has the images of each, by draw: evidence from images that come again counts only where the images
    themselves, at the error `error`, agree (empty: every chunk is new). With `one_chip` nothing is random, and each chunk is
    one image.
    """

    value: float
    gains: Array
    bases: Array
    floor: float = 0.0
    least_base: float = 0.0
    highest: float = math.inf
    at_once: bool = False
    starts: tuple[int, ...] = ()
    sizes: tuple[float, ...] = ()
    error: float = 0.05
    one_chip: bool = False

    @property
    def draws(self) -> int:
        """The number of draws, one for each chunk; one where there is `one_chip`."""
        return 1 if self.one_chip else self.chunks

    @property
    def chunks(self) -> int:
        """The number of chunks."""
        return int(self.gains.shape[1])

    @property
    def possible(self) -> tuple[float, float]:
        """The lowest and the highest value that there can be."""
        return self.floor, min(self.highest, 1.0 + self.floor if self.least_base else math.inf)

    def above(self, limit: float) -> Array:
        """Log E_n for "the truth is above `limit`" after each chunk (chunks,), or (1,) after all where they are at once."""
        return self._counted(self.gains - limit * self.bases, limit - self.floor)

    def below(self, limit: float) -> Array:
        """Log E_n for "the truth is below `limit`", as `above`."""
        return self._counted(limit * self.bases - self.gains, 1.0 - limit * self.least_base)

    def _counted(self, wins: Array, most_lost: float) -> Array:
        """The evidence after each chunk, up to the first chunk that comes again where its images don't agree."""
        logs = log_capital(wins, most_lost, at_once=self.at_once)
        new = len(set(self.starts))
        if self.at_once or new == len(self.starts) or self._images_agree(wins[0], most_lost):
            return logs
        return logs[:new]

    def _images_agree(self, wins: Array, most_lost: float) -> bool:
        """Whether the mean win over chunks of images is above 0 by a t test, with one image more that loses all there is."""
        _, chunk = np.unique(self.starts, return_inverse=True)
        sizes = np.asarray(self.sizes)
        met = np.bincount(chunk, sizes)
        means = np.bincount(chunk, wins * sizes) / met
        images = np.bincount(chunk, sizes) / np.bincount(chunk)
        if len(means) < 2:
            return False
        share = images / images.sum()
        mean = float((share * means).sum()) - most_lost / images.sum()
        spread = float((share**2 * (means - (share * means).sum()) ** 2).sum()) * len(means) / (len(means) - 1)
        spread += (most_lost / images.sum()) ** 2
        return bool(mean > quantile(1.0 - self.error, len(means) - 1) * math.sqrt(spread))


def log_capital(wins: Array, most_lost: float, *, at_once: bool = False) -> Array:
    """Log of the mean over stakes and deals of prod(1 + stake x), after each chunk (chunks,), or (1,) after all of them.

    `wins` (deals, chunks) are at least -most_lost. Sums of logarithms, so that nothing overflows or is lost.
    """
    stakes = _STAKES / max(most_lost, _SMALLEST_RANGE)
    logs = np.log1p(stakes[:, None, None] * wins[None])
    logs = logs.sum(axis=-1, keepdims=True) if at_once else logs.cumsum(axis=-1)
    return _log_mean(logs.reshape(-1, logs.shape[-1]))


def _log_mean(logs: Array) -> Array:
    """Log of the mean over rows of exp(logs), which may be too large or too small to write down."""
    top = logs.max(axis=0)
    mean: Array = top + np.log(np.exp(logs - top).mean(axis=0))
    return mean


def most(logs: Array) -> float:
    """The evidence that counts, as a logarithm: the most that there was at any time."""
    return float(logs.max()) if logs.size else 0.0


def bounds(bets: Bets, error: float) -> tuple[float, float]:
    """(low, high): one-sided bounds of the value at an error, which hold at any time."""
    lowest, highest = bets.possible
    return (
        _bound(bets, error, lowest, bets.value, above=True),
        _bound(bets, error, min(highest, bets.value + 2.0), bets.value, above=False),
    )


def evidence(log: float) -> float:
    """The evidence whose logarithm is given, as "31 to 1"; at most MOST_EVIDENCE, which JSON can hold."""
    return MOST_EVIDENCE if log >= math.log(MOST_EVIDENCE) else math.exp(log)


def against_all(places: Sequence[tuple[Bets, float]], count: int) -> float:
    """The evidence, as a logarithm, that not every place is at its limit or above: the mean over `count` places.

    `places` are those that were measured, as (Bets, limit); the others still have their capital of 1, and one with fewer
    draws than others keeps what it has.
    """
    each = [bets.below(limit) for bets, limit in places]
    longest = max(logs.size for logs in each)
    table = np.zeros((count, longest))
    for row, logs in zip(table, each, strict=False):
        row[:] = np.pad(logs, (0, longest - logs.size), mode="edge")
    return most(_log_mean(table))


def _bound(bets: Bets, error: float, end: float, value: float, *, above: bool) -> float:
    """The limit between `end` and `value` from which on evidence is short of 1 / error; `end` where it is short everywhere."""
    needed = -math.log(error)

    def rejected(limit: float) -> bool:
        return most(bets.above(limit) if above else bets.below(limit)) >= needed

    if not rejected(end + (1e-12 if above else -1e-12)):
        return end
    far, near = end, value
    for _ in range(_HALVINGS):
        middle = (far + near) / 2.0
        far, near = (middle, near) if rejected(middle) else (far, middle)
    return far


def dealt_afterwards(gains: Array, bases: Array) -> tuple[Array, Array]:
    """Draws that met all images, (draws, images) each, as shares of chunks (deals, draws): the top of this file says how.

    Images are in the order in which they are dealt. Chunks differ by one image at most; images that are fewer than draws make
    as many chunks as there are, and draws beyond them aren't used.
    """
    draws, images = gains.shape
    used = min(draws, images)
    ends = np.linspace(0, images, used + 1).round().astype(np.int64)
    sizes = np.diff(ends)
    by_chunk = [np.add.reduceat(each[:used], ends[:-1], axis=1) / sizes for each in (gains, bases)]
    rows = np.arange(used)
    turns = range(0, used, -(-used // MOST_DEALS))
    turned = [np.array([each[rows, (rows + turn) % used] for turn in turns]) for each in by_chunk]
    return turned[0], turned[1]
