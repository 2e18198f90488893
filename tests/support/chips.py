"""Hits of real chips: a population of draws and images, recorded once, from which runs whose truth is known are resampled.

Recorded from the bundled ResNet-20 on the first 400 images of its sample, 300 draws a cell, all of them in `fixtures/chips.npz` as
packed bits. `python tests/support/chips.py` measures it anew (eight minutes of processor time). Of the cells in which intervals
were studied, the one of another ResNet-20 (`group`, SNR 10, 41 % lost) can't be recorded from the bundled network; `group` at
SNR 5, which loses as much, stands for it.

A run draws its chips and its images with replacement, so that A of the whole population is the truth of what it estimates, and a
chip of the population is as one of many.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onnxnoise.results.run_hits import RunHits
from onnxnoise.run.runner import bench
from onnxnoise.spec import BenchSpec
from onnxnoise.words import Policy, Sweep

Hits = npt.NDArray[np.bool_]
FILE = Path(__file__).parent.parent / "fixtures" / "chips.npz"
DRAWS, IMAGES = 300, 400


@dataclass(frozen=True)
class Recording:
    """One cell to record."""

    name: str
    bn: Policy
    sweep: Sweep
    snr: float


RECORDINGS = (
    Recording("group, SNR 10", "group", "all", 10.0),
    Recording("group, SNR 5", "group", "all", 5.0),
    Recording("affine, SNR 5", "affine", "all", 5.0),
    Recording("bn1 alone, SNR 5", "group", "single", 5.0),
)


@dataclass(frozen=True)
class Population:
    """All chips and images of one cell: hits (draws, images) and clean hits (images,); `truth` is A over all of them."""

    name: str
    hits: Hits
    clean: Hits

    @property
    def truth(self) -> float:
        return float(self.hits.mean() / self.clean.mean())

    @property
    def spread(self) -> float:
        """The standard deviation of the chips' own A on all images."""
        return float((self.hits.mean(axis=1) / self.clean.mean()).std())

    def chunked(self, random: np.random.Generator, shape: tuple[int, int, int]) -> list[npt.NDArray[np.int64]]:
        """Clean hits, hits lost and hits gained, each (runs, draws), of runs whose draws meet `size` fresh images each.

        `shape` is (runs, draws, size).
        """
        rows, columns = (
            random.integers(len(self.hits), size=(*shape[:2], 1)),
            random.integers(self.clean.size, size=shape),
        )
        noisy, clean = self.hits[rows, columns], self.clean[columns]
        return [np.count_nonzero(each, axis=2) for each in (clean, clean & ~noisy, noisy & ~clean)]


def populations() -> tuple[Population, ...]:
    """The recorded cells."""
    with np.load(FILE) as kept:
        clean = _unpacked(kept["clean"])
        return tuple(Population(each.name, _unpacked(kept[each.name]), clean) for each in RECORDINGS)


def _unpacked(packed: npt.NDArray[np.uint8]) -> Hits:
    return np.unpackbits(packed, axis=-1, count=IMAGES).view(np.bool_)


def record(folder: Path) -> None:
    """Measure every cell into run files in `folder`, which it takes up where they are there, and write them to FILE."""
    kept: dict[str, npt.NDArray[np.uint8]] = {}
    for each in RECORDINGS:
        out = folder / f"{each.bn}-{each.sweep}.sqlite"
        layers = "bn1" if each.sweep == "single" else None
        bench(
            BenchSpec(
                "resnet20-cifar10",
                snrs=(each.snr,),
                sweeps=(each.sweep,),
                draws=DRAWS,
                layers=layers,
                bn=each.bn,
                limit=IMAGES,
                out=str(out),
            )
        )
        with RunHits.opened(out) as run:
            found = run.side(each.sweep, run.selected if layers else (None,), each.snr, "top1", IMAGES)
            assert found is not None
            kept[each.name] = np.packbits(found[1].hits.astype(np.bool_)[:DRAWS], axis=1)
            kept["clean"] = np.packbits(found[1].clean)
    np.savez_compressed(FILE, **kept)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        record(Path(scratch))
