"""Synthetic families of draws whose true accuracy is known, to hold intervals and gates against.

An image has a margin, its distance from being misread, normal over images: those near zero are the fragile ones. A
draw shifts all margins (the draw effect), those of each class apart (classes fail together), and each image's by its
own amount (the interaction); what is left above zero is a hit. A collapsed draw calls every image one class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

Floats = npt.NDArray[np.float64]


CLASSES = 10


MARGIN = 1.28  # mean margin in standard deviations over images: a clean accuracy of 0.90


@dataclass(frozen=True)
class Family:
    """One regime; shifts and noise in standard deviations of the margin over images."""

    name: str
    shift: Callable[[Floats], Floats]  # quantile function of the draw effect
    noise: float  # standard deviation of the interaction of draw and image
    by_class: float  # standard deviation of the shift of one class in one draw
    collapse: float = 0.0  # share of draws that call every image one class
    images: int = 500
    layers: int = 1  # averaged, as in A_avr; all meet the same images

    @cached_property
    def chance(self) -> tuple[Floats, Floats]:
        """Margins on a grid, and the share of draws in which an image with that margin is a hit."""
        margins = np.linspace(MARGIN - 6.5, MARGIN + 6.5, 13_001)
        shifts = np.atleast_1d(self.shift((np.arange(400) + 0.5) / 400))
        blur = np.hypot(self.noise, self.by_class)
        alive = np.mean([ndtr((margins - shift) / blur) for shift in shifts], axis=0)
        return margins, (1.0 - self.collapse) * alive + self.collapse / CLASSES

    @cached_property
    def truth(self) -> float:
        """A over all images and draws."""
        margins, chance = self.chance
        weights = np.exp(-0.5 * (margins - MARGIN) ** 2)
        return float((weights * chance).sum() / weights.sum() / ndtr(MARGIN))

    def sample(
        self, random: np.random.Generator, runs: int, draws: int
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], Floats]:
        """Hits (runs, layers, draws, images), clean hits (runs, images), A over all draws on these images (runs,)."""
        margin = random.normal(MARGIN, 1.0, (runs, self.images))
        label = random.integers(CLASSES, size=(runs, 1, 1, self.images))
        shape = (runs, self.layers, draws)
        shift = self.shift(random.random(shape))[..., None] + self.by_class * random.standard_normal((*shape, CLASSES))
        noise = random.standard_normal((*shape, self.images), dtype=np.float32)
        shifts = np.take_along_axis(shift, np.broadcast_to(label, noise.shape), axis=-1)
        hits = margin[:, None, None, :] + self.noise * noise > shifts
        said = random.integers(CLASSES, size=(*shape, 1))
        hits = np.where(random.random((*shape, 1)) < self.collapse, label == said, hits)
        clean = margin > 0.0
        return hits, clean, np.interp(margin, *self.chance).sum(axis=1) / clean.sum(axis=1)

    def changes(
        self, random: np.random.Generator, margin: Floats, label: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Hits lost and gained (runs, chunks) where each chunk of images (runs, chunks, images) meets one draw of its own."""
        shape = margin.shape[:2]
        shift = self.shift(random.random(shape))[..., None] + self.by_class * random.standard_normal((*shape, CLASSES))
        noise = random.standard_normal(margin.shape, dtype=np.float32)
        hits = margin + np.float32(self.noise) * noise > np.take_along_axis(shift.astype(np.float32), label, axis=-1)
        said = random.integers(CLASSES, size=(*shape, 1))
        hits = np.where(random.random((*shape, 1)) < self.collapse, label == said, hits)
        return np.count_nonzero((margin > 0) & ~hits, axis=2), np.count_nonzero((margin <= 0) & hits, axis=2)


FAMILIES = (
    Family("normal", lambda u: 0.5 + 0.35 * ndtri(u), noise=0.6, by_class=0.2),
    Family("average of 4", lambda u: 0.5 + 0.35 * ndtri(u), noise=0.6, by_class=0.2, images=250, layers=4),
    Family("skewed", lambda u: 0.2 - 0.5 * np.log1p(-u), noise=0.5, by_class=0.2),
    Family("cliff 0.5", lambda u: 0.2 + 0.1 * ndtri(u), noise=0.4, by_class=0.1, collapse=0.5),
    Family("cliff 0.3", lambda u: 0.2 + 0.1 * ndtri(u), noise=0.4, by_class=0.1, collapse=0.3),
    Family("nearly perfect", lambda u: 0.01 + 0.005 * ndtri(u), noise=0.02, by_class=0.005, images=1000),
    Family("but one in 2000", lambda u: 0.003 + 0.002 * ndtri(u), noise=0.005, by_class=0.002, images=1000),
)


# Out of reach of ten draws, and known to be: what a run has not seen, no interval around its mean can tell
BEYOND = (
    Family("cliff 0.2", lambda u: 0.2 + 0.1 * ndtri(u), noise=0.4, by_class=0.1, collapse=0.2),
    Family("cliff 0.1", lambda u: 0.2 + 0.1 * ndtri(u), noise=0.4, by_class=0.1, collapse=0.1),
    Family("heavy tail", lambda u: 0.2 * np.exp(ndtri(u)), noise=0.3, by_class=0.1),
)
