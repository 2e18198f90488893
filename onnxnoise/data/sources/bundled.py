"""The image sets that come with the package: their manifests, and the check of their data against these."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from onnxnoise.data import resources
from onnxnoise.data.datasets import Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.sources.base import DataLayout, ImageSource
from onnxnoise.data.sources.cifar.files import FORMS
from onnxnoise.data.sources.cifar.images import open_cifar
from onnxnoise.data.toml import read_tables
from onnxnoise.errors import CardError, DataError, UsageError

KEYS = {
    "dataset": ("name", "dataset", "file", "images", "sha256", "title", "source", "license", "attribution", "chosen"),
}


@dataclass(frozen=True)
class Manifest:
    """The description of a bundled set: it has `images` CIFAR records in `file`, beside the manifest.

    `dataset` is the name of the data set that they are from, `sha256` (hexadecimal) is of the uncompressed records, and
    `chosen` says how these records were chosen.
    """

    name: str
    dataset: str
    file: Path
    images: int
    sha256: str
    title: str | None
    source: str | None
    license: str | None
    attribution: str | None
    chosen: str | None


def manifests() -> dict[str, Manifest]:
    """The bundled image sets by name. Raises CardError for a manifest that can't be used."""
    return {name: load_manifest(path) for name, path in resources.bundled("datasets").items()}


def load_manifest(path: Path) -> Manifest:
    """Reads a manifest. Raises CardError, naming file and key, for whatever is unknown, missing or impossible."""
    table = read_tables(path, KEYS)["dataset"]
    dataset, file = table.choice("dataset", tuple(FORMS)), table.text("file")
    images, sha256 = table.integer("images", 1, 10**9), table.text("sha256")
    if dataset is None or not file or images is None or not sha256:
        raise CardError(f"{path}: [dataset] must have dataset, file, images and sha256")
    if PurePosixPath(file).name != file:
        raise table.error("file", "a file's name: it lies beside the manifest")
    return Manifest(
        name=table.text("name") or path.stem,
        dataset=dataset,
        file=path.parent / file,
        images=images,
        sha256=sha256,
        title=table.text("title"),
        source=table.text("source"),
        license=table.text("license"),
        attribution=table.text("attribution"),
        chosen=table.text("chosen"),
    )


def is_bundled(path: Path, _: Dataset) -> bool:
    """Whether nothing lies at `path` and it is the name of a bundled set."""
    return not path.exists() and str(path) in manifests()


def open_bundled(path: Path, dataset: Dataset, spec: InputSpec) -> ImageSource:
    """The images of the bundled set that `path` names.

    Raises UsageError for images of another data set, DataError for damaged ones, and CardError for a damaged manifest.
    """
    manifest = manifests()[str(path)]
    if manifest.dataset != dataset.name:
        raise UsageError(f"--data {path} has images of {manifest.dataset}; the card asks for {dataset.name}")
    source = open_cifar(manifest.file, dataset, spec, manifest.name)
    if source.digest != manifest.sha256 or len(source) != manifest.images:
        raise DataError(
            f"{manifest.file}: is not what its manifest says: {len(source)} images, SHA-256 {source.digest}; "
            "install the package again"
        )
    return source


LAYOUT = DataLayout("a bundled set", is_bundled, open_bundled)
