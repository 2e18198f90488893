"""The interface of every layout of labelled images: a quick look that recognizes it, and a source that streams its images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxnoise.data.datasets import Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.records import ImageChunk, Labels


@dataclass(frozen=True, eq=False)
class ImageSource(ABC):
    """Labelled images, or other arrays, in a fixed order, resized and cropped for one model.

    `name` is for results, `classes` the number of the data's classes. `digest` is a SHA-256 that identifies the data: of CIFAR's
    binary records, of an array's pixels and labels, or of each image file's name, size and label. `labels` (images,) are the
    classes that the model should give: the data's, after the card's `label_offset`. `len()` is the number of images.
    """

    name: str
    classes: int
    digest: str
    spec: InputSpec
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image in a chunk: (height, width, channels) of pixels."""
        return (*self.spec.sides, self.spec.channels or 1)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the numbers in a chunk: uint8 for pixels."""
        return np.dtype(np.uint8)

    @property
    def is_picture(self) -> bool:
        """Whether chunks have pixels, which the card prepares; else numbers of any shape."""
        return True

    @property
    def in_order(self) -> bool:
        """Whether images are read fastest from first to last, since all that lies before one must be read or unpacked too."""
        return False

    @property
    def highest_label(self) -> int:
        return int(self.labels.max())

    @abstractmethod
    def chunks(self, ranges: Sequence[range], *, threads: int | None = None) -> Iterator[ImageChunk]:
        """One ImageChunk for each range of positions (step 1), in order; `threads` None: one for each core.

        Raises DataError, naming it, for an image that can't be read or decoded, when its chunk is due.
        """


@dataclass(frozen=True)
class DataLayout:
    """One way in which people keep labelled images.

    `takes` says to a person what `--data` must be for it. `recognizes` tells from a path, which need not exist, whether this
    layout is there; it looks at names and first bytes only, and also recognizes damaged files of this layout, so that `opens`
    can say what is wrong. `opens` returns the images of the data set there, prepared as the InputSpec says, and raises
    DataError for images that can't be used. `datasets` names the data sets that come in this layout; empty means any.
    `opens_with`, where there is one, takes the path of the labels too, where they lie in a file of their own; `opens_first` the
    number of images from the first on that will do, where there may be no end of them.
    """

    takes: str
    recognizes: Callable[[Path, Dataset], bool]
    opens: Callable[[Path, Dataset, InputSpec], ImageSource]
    datasets: tuple[str, ...] = ()
    opens_with: Callable[[Path, Path, Dataset, InputSpec], ImageSource] | None = None
    opens_first: Callable[[Path, int | None, Dataset, InputSpec], ImageSource] | None = None
