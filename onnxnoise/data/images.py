"""Opens the images that a card's model is judged on, as a stream of ImageChunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from onnxnoise.data.cards import Card, Dataset, InputSpec
from onnxnoise.data.sources import cifar, imagenet
from onnxnoise.data.sources.bundled import Manifest, manifests
from onnxnoise.errors import DataError, UsageError
from onnxnoise.records import ImageChunk

FORMS: dict[Dataset, str] = {
    "imagenet": imagenet.FORMS,
    "cifar10": "test_batch.bin, the python version's test_batch, their folder or their cifar-10-*.tar.gz",
    "cifar100": "test.bin, the python version's test, their folder or their cifar-100-*.tar.gz",
}


class ImageSource(Protocol):
    """Labelled images in a fixed order, resized and cropped for one model.

    `name` is for results, `classes` the number of the data's, `highest_label` the highest of its images' labels for the model,
    `digest` a SHA-256 that identifies the data (CIFAR: of the binary records; ImageNet: of each image's name, size and label).
    `len()` is the number of images.
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


def open_images(data: str | Path | None, card: Card) -> ImageSource:
    """The images of `data`: a path, a bundled set's name, or None for the bundled set of the card's data set.

    Raises UsageError: None where nothing is bundled, or a bundled set of other images than the card's. Raises DataError
    and CardError: the data, or the bundled manifest, can't be used.
    """
    spec = card.input
    if data is None:
        for manifest in manifests().values():
            if manifest.dataset == spec.dataset:
                return _open_bundled(manifest, spec)
        raise UsageError(
            f"no images of {spec.dataset}, which {card.path} asks for, come with the package: pass --data. "
            f"It takes {FORMS[spec.dataset]}"
        )
    path = Path(data)
    if not path.exists():
        bundled = manifests()
        if str(data) in bundled:
            manifest = bundled[str(data)]
            if manifest.dataset != spec.dataset:
                raise UsageError(f"--data {data} has images of {manifest.dataset}; {card.path} asks for {spec.dataset}")
            return _open_bundled(manifest, spec)
        if "{" not in str(data):
            raise DataError(
                f"{data}: there is no such file or folder, and no bundled set of that name ({', '.join(bundled)}). "
                f"For {spec.dataset} --data takes {FORMS[spec.dataset]}"
            )
    return _open(path, spec)


def _open(path: Path, spec: InputSpec, name: str | None = None) -> ImageSource:
    if spec.dataset == "imagenet":
        return imagenet.open_imagenet(path, spec)
    return cifar.open_cifar(path, spec.dataset, spec, name)


def _open_bundled(manifest: Manifest, spec: InputSpec) -> ImageSource:
    source = _open(manifest.file, spec, manifest.name)
    if source.digest != manifest.sha256 or len(source) != manifest.images:
        raise DataError(
            f"{manifest.file}: is not what its manifest says: {len(source)} images, SHA-256 {source.digest}; "
            "install the package again"
        )
    return source
