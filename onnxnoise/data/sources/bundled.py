"""The image sets that come with the package: their manifests, and the check that the data are those."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from onnxnoise.data import resources
from onnxnoise.data.cards import DATASETS, Dataset
from onnxnoise.data.toml import read_tables
from onnxnoise.errors import CardError

KEYS = {
    "dataset": ("name", "dataset", "file", "images", "sha256", "title", "source", "license", "attribution", "chosen"),
}


@dataclass(frozen=True)
class Manifest:
    """`sha256` is of the uncompressed records, hexadecimal; `images` their number; `chosen` how they were."""

    name: str
    dataset: Dataset
    file: Path
    images: int
    sha256: str
    title: str | None
    source: str | None
    license: str | None
    attribution: str | None
    chosen: str | None


def manifests() -> dict[str, Manifest]:
    """The bundled image sets by name. Raises CardError: a manifest can't be used."""
    return {name: load_manifest(path) for name, path in resources.bundled("datasets").items()}


def load_manifest(path: Path) -> Manifest:
    """Raises CardError, naming file and key, for whatever is unknown, missing or impossible."""
    table = read_tables(path, KEYS)["dataset"]
    dataset, file = table.choice("dataset", DATASETS), table.text("file")
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
