"""Hits: whether the label of an image ranks first, or among the first five, by the image's logits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxnoise.records import Bits, Labels


def judge(logits: npt.NDArray[np.floating], labels: Labels) -> tuple[Bits, Bits, Bits]:
    """(top-1 hits, top-5 hits, rows that are not all finite), each (images,), of logits (images, classes).

    Ties go to the lowest index; a row that is not all finite is never a hit. With five classes or fewer top-5 has no bits.
    """
    own = logits[np.arange(len(labels)), labels][:, None]
    lower = np.arange(logits.shape[1])[None, :] < labels[:, None]
    with np.errstate(invalid="ignore"):
        rank = (logits > own).sum(axis=1) + ((logits == own) & lower).sum(axis=1)
    nonfinite = ~np.isfinite(logits).all(axis=1)
    top5 = (rank < 5) & ~nonfinite if logits.shape[1] > 5 else np.zeros(0, bool)
    return (rank == 0) & ~nonfinite, top5, nonfinite
