"""Images in tar files, read where they lie, without unpacking: ILSVRC2012's own tar, and webdataset shards."""

from __future__ import annotations

import itertools
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from onnxnoise.data.datasets import IMAGENET, Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.sources.base import DataLayout
from onnxnoise.data.sources.devkit import ground_truth_beside, ground_truth_labels
from onnxnoise.data.sources.files import entries, first_bytes
from onnxnoise.data.sources.ilsvrc import is_validation_image, source_name, validation_label
from onnxnoise.data.sources.items import IMAGE_SUFFIXES, ImageItems, Item, open_items
from onnxnoise.errors import DataError

VALIDATION_TAR = "ILSVRC2012_img_val.tar"
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
MAX_SHARDS = 100_000
MAX_LABEL_BYTES = 64


def has_tars(path: Path, _: Dataset) -> bool:
    """Whether `path` is a tar by its name or header, a folder that holds one, or a pattern with braces."""
    if path.is_dir():
        return any(entry.name.lower().endswith(".tar") for entry in entries(path))
    if not path.is_file():
        return BRACES.search(str(path)) is not None
    return path.name.lower().endswith(SUFFIXES) or first_bytes(path, 512)[257:262] == b"ustar"


def open_tars(data: Path, dataset: Dataset, spec: InputSpec) -> ImageItems:
    """The images of a tar, of the tars of a folder, or of all that a pattern with braces stands for, in their order.

    In a folder with ImageNet's validation tar, only that tar is read. Raises DataError as `list_tars` does.
    """
    if data.is_dir():
        tars = [Path(entry.path) for entry in entries(data) if entry.name.lower().endswith(".tar")]
        tars = [path for path in tars if path.name == VALIDATION_TAR] or tars
    else:
        tars = [data] if data.is_file() else expand_braces(str(data))
    items = list_tars(tars, dataset)
    return open_items(data, items, dataset, spec, source_name(dataset, (item.name for item in items)))


def list_tars(paths: Iterable[Path], dataset: Dataset) -> list[Item]:
    """The images of one or more tars, in their order. Raises DataError for a missing, compressed, damaged or unlabelled one."""
    return [item for path in paths for item in _list_tar(path, dataset)]


def expand_braces(pattern: str) -> list[Path]:
    """The paths that a pattern with braces stands for, such as the ten of `shard-{000..009}.tar`."""
    match = BRACES.search(pattern)
    if match is None:
        return [Path(pattern)]
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < MAX_SHARDS:
        raise DataError(f"{pattern}: {match[0]} must count upward, over {MAX_SHARDS} shards at most")
    head, tail = pattern[: match.start()], pattern[match.end() :]
    width = len(match[1])
    return [path for number in range(first, last + 1) for path in expand_braces(f"{head}{number:0{width}}{tail}")]


def _list_tar(path: Path, dataset: Dataset) -> list[Item]:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; is a shard missing, or does the pattern count too far?")
    try:
        with path.open("rb") as file:
            start, size = file.read(6), path.stat().st_size
        if start.startswith(COMPRESSED):
            raise DataError(f"{path}: is compressed, so images can't be read out of its middle: decompress it first")
        with tarfile.open(path, "r:") as archive:
            members = [member for member in archive if member.isfile()]
            for member in members:
                if member.issparse() or not 0 <= member.size <= size - member.offset_data:
                    raise DataError(f"{path}: {member.name}: is cut short or sparse: is the tar truncated?")
            if dataset.name == IMAGENET.name and any(is_validation_image(member.name) for member in members):
                return list(_validation_images(path, members))
            return list(_samples(path, archive, members, dataset.classes))
    except (OSError, EOFError, ValueError, OverflowError, RecursionError, tarfile.TarError) as error:
        raise DataError(f"{path}: can't be read as a tar, or is damaged or truncated: {error}") from error


def _validation_images(path: Path, members: Iterable[tarfile.TarInfo]) -> Iterator[Item]:
    truth = ground_truth_beside(path.parent)
    labels = None if truth is None else ground_truth_labels(truth)
    for member in members:
        label = validation_label(member.name, labels)
        if label is None:
            raise DataError(f"{path}: {member.name}: is none of the 50,000 validation images, so it has no known label")
        yield Item(path, member.name, label, member.size, member.offset_data)


def _samples(path: Path, archive: tarfile.TarFile, members: Iterable[tarfile.TarInfo], classes: int) -> Iterator[Item]:
    """The samples of a webdataset: consecutive members `key.jpg` and `key.cls`; other suffixes are more about the sample."""
    for key, group in itertools.groupby(members, key=_key):
        image: tarfile.TarInfo | None = None
        label: int | None = None
        for member in group:
            suffix = member.name.rpartition(".")[2].lower()
            if suffix == "cls":
                label = _label(path, archive, member, classes)
            elif suffix in IMAGE_SUFFIXES:
                image = member
        if image is None and label is None:
            continue
        if image is None or label is None:
            missing = "image" if image is None else "label, .cls"
            raise DataError(
                f"{path}: sample {key} has no {missing}; a webdataset sample is KEY.jpg and KEY.cls together"
            )
        yield Item(path, image.name, label, image.size, image.offset_data)


def _key(member: tarfile.TarInfo) -> str:
    folder, _, file = member.name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _label(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, classes: int) -> int:
    content = archive.extractfile(member)
    text = content.read(MAX_LABEL_BYTES).decode("ascii", "replace").strip() if content else ""
    if not text.isdecimal() or int(text) >= classes:
        raise DataError(f"{path}: {member.name}: {text!r} is no class from 0 to {classes - 1}")
    return int(text)


LAYOUT = DataLayout("webdataset tars (one, a folder of them, or NAME-{0000..0009}.tar)", has_tars, open_tars)
