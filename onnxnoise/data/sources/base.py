"""What every layout of labelled images offers: a quick look that recognizes it, and a source that streams its images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from onnxnoise.data.datasets import Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.records import ImageChunk


class ImageSource(Protocol):
    """Labelled images in a fixed order, resized and cropped for one model.

    `name` is for results, `classes` the number of the data's classes, `highest_label` the highest of its images' labels for
    the model, `digest` a SHA-256 that identifies the data: of CIFAR's binary records, of an array's pixels and labels, or of
    each image file's name, size and label. `len()` is the number of images.
    """

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> int: ...
    @property
    def highest_label(self) -> int: ...
    @property
    def digest(self) -> str: ...
    def __len__(self) -> int: ...
    def chunks(self, ranges: Sequence[range], *, threads: int | None = None) -> Iterator[ImageChunk]:
        """One ImageChunk for each range of positions (step 1), in order. DataError: an image can't be decoded."""
        ...


@dataclass(frozen=True)
class DataLayout:
    """One way in which people keep labelled images.

    `takes` says to a person what `--data` is given then. `recognizes` tells from a path, which need not exist, whether this
    layout is there; it looks at names and first bytes only, and takes what is damaged but plainly meant, so that `opens` can
    say what is wrong. `opens` returns the images of the data set there, prepared as the InputSpec says, and raises DataError
    for what can't be used. `datasets` names the data sets that come in this layout; empty means any.
    """

    takes: str
    recognizes: Callable[[Path, Dataset], bool]
    opens: Callable[[Path, Dataset, InputSpec], ImageSource]
    datasets: tuple[str, ...] = ()
