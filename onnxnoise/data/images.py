"""Opens the images that a card's model is judged on, as a stream of ImageChunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from onnxnoise import formats
from onnxnoise.data.cards import Card
from onnxnoise.data.datasets import KNOWN, Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.layouts import OF_PICTURES, layouts_of
from onnxnoise.data.sources.base import DataLayout, ImageSource
from onnxnoise.data.sources.bundled import manifests, open_bundled
from onnxnoise.data.sources.class_folders import SPLITS, images_in
from onnxnoise.data.sources.files import entries
from onnxnoise.data.sources.in_memory import open_in_memory
from onnxnoise.data.sources.label_list import list_in
from onnxnoise.data.sources.labels import CLEAN, NO_LABELS
from onnxnoise.data.sources.unlabelled import open_unlabelled
from onnxnoise.errors import CardError, DataError, UsageError
from onnxnoise.files import first_bytes, is_file, kind_of_file
from onnxnoise.formats import mistaken
from onnxnoise.spec import OwnData
from onnxnoise.text import counted, did_you_mean

_READABLE = (
    *(formats.EMPTY, formats.GZIP, formats.TAR, formats.ZIP, formats.NUMPY, formats.PICKLE, formats.PARQUET),
    *(formats.PARQUET_FOLDER, formats.JSON, formats.IMAGE, formats.CARD, formats.RULES),
)
"""Files that a layout may read, or that are named only where none does."""


def open_images(
    data: str | Path | OwnData | None,
    card: Card,
    *,
    channels: int | None = 3,
    labels: str | Path | None = None,
    most: int | None = None,
) -> ImageSource:
    """The images of `data`: a path, a bundled set's name, what a program gives, or None for the bundled set of the
    card's data set.

    `channels` are those of the model's images, None where it takes arrays of another rank. `labels` is a file of labels for
    layouts that have them in a file of their own, or `clean`: then labels don't count, and any folder of pictures will do. The
    first `most` images will do (None: all are wanted); of what has no known end no more are looked at.

    Of all layouts of the data set, in the registry's order, the first that recognizes the path opens it; in a folder that
    holds a folder `val`, that one is looked at first. Raises UsageError for None where nothing is bundled, and for a bundled
    set of other images than the card's; DataError or CardError where no layout recognizes the data, or they can't be used, and
    CardError where the card leaves its classes out and has not been `counted`.
    """
    dataset, spec = card.dataset, replace(card.input, channels=channels)
    if dataset is None:
        raise CardError(f"{card.path}: leaves out its classes, and no model says how many there are: write them down")
    dataset = replace(dataset, labelled=labels != CLEAN)
    _check_labels(labels)
    if data is None:
        for name, manifest in manifests().items():
            if manifest.dataset == dataset.name:
                return open_bundled(Path(name), dataset, spec)
        raise UsageError(
            f"no images of {dataset.name}, which {card.path} asks for, come with the package: pass --data. "
            f"It takes {_taken(dataset)}"
        )
    if isinstance(data, OwnData):
        if labels not in (None, CLEAN):
            raise UsageError("labels: the data given has its own; leave out one of the two")
        return open_in_memory(data.value, dataset, spec)
    path = Path(data)
    try:
        there = path.exists()
    except OSError as error:
        raise DataError(f"{data}: can't be looked at: {error.strerror}") from error
    if there and not path.is_dir() and not path.is_file():
        raise DataError(f"{data}: is {kind_of_file(path.stat().st_mode)}; only regular files and folders are read")
    if there and (other := mistaken(path, "images", besides=_READABLE)):
        raise DataError(f"{data}: {other}. For {dataset.name} --data takes {_taken(dataset)}")
    if labels == CLEAN and path.is_dir() and (source := _unlabelled(path, dataset, spec)):
        return source
    for place in _places(path):
        for layout in layouts_of(dataset):
            if layout.recognizes(place, dataset):
                if layout.opens_first and labels in (None, CLEAN):
                    return layout.opens_first(place, most, dataset, spec)
                return _opened(layout, place, dataset, spec, None if labels == CLEAN else labels)
    if not there:
        raise DataError(
            f"{data}: there is no such file or folder, and no bundled set of that name ({', '.join(manifests())}). "
            f"For {dataset.name} --data takes {_taken(dataset)}"
        )
    other = mistaken(path, "images", besides=(formats.EMPTY,))
    near = did_you_mean(dataset.name, KNOWN) if dataset.by_model else ""
    raise DataError(
        f"{data}: not recognized as images of {dataset.name}{near}{f': it {other}' if other else ''}. "
        f"Looked for: {_taken(dataset)}. Found: {_found(path)}{_without_labels(path)}"
    )


def _check_labels(labels: str | Path | None) -> None:
    """Raise UsageError for labels that are no file and may be a slip for `clean`."""
    if labels is None or labels == CLEAN or is_file(Path(labels)):
        return
    if meant := did_you_mean(str(labels).lower(), [CLEAN]):
        raise UsageError(f"--labels {labels}: there is no such file{meant}")


def _unlabelled(path: Path, dataset: Dataset, spec: InputSpec) -> ImageSource | None:
    """The pictures of a folder whose labels don't count, None where a layout's own reader must open it, as of CIFAR's files."""
    if any(layout.recognizes(path, dataset) for layout in layouts_of(dataset) if layout not in OF_PICTURES):
        return None
    return open_unlabelled(path, dataset, spec)


def _opened(
    layout: DataLayout, place: Path, dataset: Dataset, spec: InputSpec, labels: str | Path | None
) -> ImageSource:
    if labels is None:
        return layout.opens(place, dataset, spec)
    if layout.opens_with is None:
        raise UsageError(f"--labels {labels}: {place} has labels of its own, as {layout.takes}; leave it out")
    return layout.opens_with(place, Path(labels), dataset, spec)


def _places(path: Path) -> Iterator[Path]:
    """The places to look at: first the folder `val` inside, unless a list beside it names the images in it."""
    if (path / "val").is_dir() and list_in(path) is None:
        yield path / "val"
    yield path


def _taken(dataset: Dataset) -> str:
    """A sentence about all that `--data` can be for a data set: first the layouts that are this data set's alone."""
    *others, last = (layout.takes for layout in sorted(layouts_of(dataset), key=lambda layout: not layout.datasets))
    return f"{'; '.join(others)}; or {last}"


def _without_labels(path: Path) -> str:
    """The way to use the parts of a data set, or pictures whose labels are nowhere to be seen, as the end of a message."""
    if not path.is_dir() or not next(images_in(path), None):
        return ""
    parts = [entry.name for entry in entries(path) if entry.is_dir()]
    split = parts and all(part.lower() in SPLITS for part in parts)
    return (
        f". These are parts of a data set: pass one of them, as {path / parts[0]}" if split else ""
    ) + f". {NO_LABELS}"


def _found(path: Path) -> str:
    """A description, for a person, of the file or folder at a path."""
    if not path.is_dir():
        head, size = first_bytes(path, 8), counted(path.stat().st_size, "byte")
        return f"{size} that begin with {head!r}" if head else f"a file of {size} that can't be read"
    inside = entries(path)
    folders = [entry.name for entry in inside if entry.is_dir()]
    kinds = Counter(PurePosixPath(entry.name).suffix or "no suffix" for entry in inside if not entry.is_dir())
    parts = []
    if kinds:
        common = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common(5))
        parts.append(f"{counted(kinds.total(), 'file')} ({common})")
    if folders:
        parts.append(
            f"{counted(len(folders), 'folder')} ({', '.join(folders[:5])}{', ...' if len(folders) > 5 else ''})"
        )
    return " and ".join(parts) or "an empty folder"
