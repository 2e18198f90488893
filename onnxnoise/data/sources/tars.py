"""Images in tar files, read where they lie, without unpacking: ILSVRC2012's own tar, and webdataset shards."""

from __future__ import annotations

import itertools
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO, cast

from onnxnoise.data.datasets import IMAGENET, Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.sources.base import DataLayout
from onnxnoise.data.sources.files import GZIP, check_download, entries, is_leftover
from onnxnoise.data.sources.imagenet.devkit import ground_truth_beside, ground_truth_labels
from onnxnoise.data.sources.imagenet.ilsvrc import is_validation_image, source_name, validation_label
from onnxnoise.data.sources.items import IMAGE_SUFFIXES, ImageItems, Item, open_items
from onnxnoise.data.sources.labels import NO_LABELS, not_in_card
from onnxnoise.errors import DataError
from onnxnoise.files import first_bytes, is_file, open_file
from onnxnoise.text import shortened

VALIDATION_TAR = "ILSVRC2012_img_val.tar"
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
COMPRESSED = (GZIP, b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
BRACES = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
MAX_SHARDS = 100_000
MAX_LABEL_BYTES = 64
MAX_JSON_BYTES = 1 << 20
JSON_KEYS = ("label", "cls", "class", "class_id", "class_index", "target")
"""Keys of a sample's JSON that may say its class, the first of them that is there."""
MAX_HEADER_BYTES = 1 << 20


def has_tars(path: Path, _: Dataset) -> bool:
    """Whether `path` is a tar by its name or header, a folder that holds one, or a pattern with braces."""
    if path.is_dir():
        return any(entry.name.lower().endswith(".tar") for entry in entries(path))
    if not is_file(path):
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
        tars = [data] if is_file(data) else expand_braces(str(data))
    items = list_tars(tars, dataset)
    return open_items(data, items, dataset, spec, source_name(dataset, (item.name for item in items)))


def list_tars(paths: Iterable[Path], dataset: Dataset) -> list[Item]:
    """The images of one or more tars, in their order. Raises DataError for a missing, compressed, damaged or unlabelled one."""
    return [item for path in paths for item in _list_tar(path, dataset)]


def expand_braces(pattern: str) -> list[Path]:
    """`shard-{000..009}.tar` as the ten paths that it stands for; of several braces the last counts fastest."""
    ranges = list(BRACES.finditer(pattern))
    total = 1
    for match in ranges:
        total *= max(0, int(match[2]) - int(match[1]) + 1)
        if not 0 < total <= MAX_SHARDS:
            raise DataError(
                f"{shortened(pattern, 200)}: {match[0]} must count upward, and all braces stand for {MAX_SHARDS:,} shards at most"
            )
    texts = BRACES.split(pattern)[::3]
    numbers = itertools.product(*(range(int(match[1]), int(match[2]) + 1) for match in ranges))
    return [
        Path(texts[0] + "".join(f"{n:0{len(m[1])}}{text}" for n, m, text in zip(each, ranges, texts[1:], strict=True)))
        for each in numbers
    ]


def _list_tar(path: Path, dataset: Dataset) -> list[Item]:
    if not is_file(path):
        raise DataError(f"{path}: there is no such file; is a shard missing, or does the pattern count too far?")
    check_download(path)
    try:
        with open_file(path) as file:
            if file.read(6).startswith(COMPRESSED):
                raise DataError(
                    f"{path}: is compressed, so images can't be read out of its middle: decompress it first"
                )
            file.seek(0)
            members = _members(path, file)
            if dataset.name == IMAGENET.name and any(is_validation_image(member.name) for member in members):
                return list(_validation_images(path, members))
            return list(_samples(path, file, members, dataset))
    except (OSError, EOFError, ValueError, OverflowError, RecursionError, tarfile.TarError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: can't be read as a tar, or is damaged or truncated: {reason}") from error


class _Headers:
    """A tar's file as the reader of its headers sees it, who would take a name of any length into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.read_bytes, self.seek, self.tell = file.read, file.seek, file.tell

    def read(self, count: int) -> bytes:
        if count > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"it has a header of {count:,} bytes")
        return self.read_bytes(count)


def _members(path: Path, file: BinaryIO) -> list[tarfile.TarInfo]:
    """The files of a tar, in its order, without those that operating systems leave.

    Raises DataError for whatever would make members vanish without a word: links, data that is cut short or sparse, a damaged
    header, which ends a reader's way through the tar, a missing end, and members after it.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    found = []
    with tarfile.open(fileobj=cast("IO[bytes]", _Headers(file)), mode="r:") as archive:
        for member in archive:
            where = f"{path}: {member.name}"
            if member.isdir() or is_leftover(member.name):
                continue
            if not member.isfile():
                kind = "a hard link" if member.islnk() else "a symbolic link" if member.issym() else "no file"
                raise DataError(
                    f"{where}: is {kind}; a tar of images must hold their own bytes, as GNU tar packs them with "
                    "--dereference --hard-dereference"
                )
            if member.issparse() or not 0 <= member.size <= size - member.offset_data:
                raise DataError(f"{where}: is cut short or sparse: is the tar truncated?")
            found.append(member)
        _check_end(path, file, archive.offset, found)
    return found


def _check_end(path: Path, file: BinaryIO, end: int, members: Sequence[tarfile.TarInfo]) -> None:
    """Raise DataError unless empty blocks, which end a tar, follow its last member, and no other tar follows them."""
    last = f"after {members[-1].name}" if members else "at its beginning"
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if block.count(0) != tarfile.BLOCKSIZE:
        fault = (
            "it has a damaged header" if len(block) == tarfile.BLOCKSIZE else "it ends without the mark of a tar's end"
        )
        raise DataError(f"{path}: {fault} {last}, byte {end:,}: is the tar damaged or truncated?")
    while rest := file.read(1 << 20):
        if rest.count(0) == len(rest):
            continue
        for start in range(0, len(rest), tarfile.BLOCKSIZE):
            block = rest[start : start + tarfile.BLOCKSIZE]
            if block[257:262] == b"ustar":
                raise DataError(
                    f"{path}: another tar follows its end ({last}): name the tars apart, not joined into one file"
                )


def _validation_images(path: Path, members: Iterable[tarfile.TarInfo]) -> Iterator[Item]:
    truth = ground_truth_beside(path.parent)
    labels = None if truth is None else ground_truth_labels(truth)
    seen: set[str] = set()
    for member in members:
        label = validation_label(member.name, labels)
        if label is None:
            raise DataError(f"{path}: {member.name}: is none of the 50,000 validation images, so it has no known label")
        name = member.name.rpartition("/")[2]
        if name in seen:
            raise DataError(f"{path}: {member.name}: is in the tar twice")
        seen.add(name)
        yield Item(path, member.name, label, member.size, member.offset_data)


def _samples(path: Path, file: BinaryIO, members: Iterable[tarfile.TarInfo], dataset: Dataset) -> Iterator[Item]:
    """The samples of a webdataset: consecutive members `key.jpg` and `key.cls`, or `key.json` where there is no `cls`.

    Other suffixes are more about the sample.
    """
    seen: set[str] = set()
    for key, group in itertools.groupby(members, key=_key):
        image: tarfile.TarInfo | None = None
        label: tarfile.TarInfo | None = None
        about: tarfile.TarInfo | None = None
        for member in group:
            suffix = member.name.rpartition(".")[2].lower()
            before = label if suffix == "cls" else image if suffix in IMAGE_SUFFIXES else None
            if before is not None:
                raise DataError(
                    f"{path}: {member.name}: is the second {'label' if suffix == 'cls' else 'image'} of sample {key}, after "
                    f"{before.name}; a webdataset sample is one KEY.jpg and one KEY.cls"
                )
            if suffix == "cls":
                label = member
            elif suffix in IMAGE_SUFFIXES:
                image = member
            elif suffix == "json":
                about = member
        if image is None and label is None:
            continue
        label = label or about if dataset.labelled else None
        if image is None and not dataset.labelled:
            continue
        if image is None or (label is None and dataset.labelled):
            missing = "image" if image is None else "label, .cls or .json"
            raise DataError(
                f"{path}: sample {key} has no {missing}; a webdataset sample is KEY.jpg and KEY.cls together, or KEY.json"
                + ("" if image is None else f". {NO_LABELS}")
            )
        if key in seen:
            raise DataError(
                f"{path}: {image.name}: sample {key} was there before; a webdataset sample's files follow each other, and each "
                "sample has a KEY of its own"
            )
        seen.add(key)
        number = _label(path, file, label, dataset) if label else 0
        yield Item(path, image.name, number, image.size, image.offset_data)


def _key(member: tarfile.TarInfo) -> str:
    folder, _, file = member.name.rpartition("/")
    stem = file.partition(".")[0]
    return f"{folder}/{stem}" if folder else stem


def _label(path: Path, file: BinaryIO, member: tarfile.TarInfo, dataset: Dataset) -> int:
    """The class that a `.cls`, a number, or a `.json` says."""
    where, classes = f"{path}: {member.name}", dataset.classes
    in_json = member.name.lower().endswith(".json")
    if member.size > (MAX_JSON_BYTES if in_json else MAX_LABEL_BYTES):
        raise DataError(f"{where}: {member.size:,} bytes are no label, a class from 0 to {classes - 1}")
    file.seek(member.offset_data)
    content = file.read(member.size)
    said = _in_json(content, where) if in_json else content.decode("ascii", "replace").strip()
    if said in dataset.names:
        return dataset.names.index(said)
    if not said.isdecimal() or len(said) > 9 or int(said) >= classes:
        hint = ": do the labels count from 1, or has the data a background class?" if said == str(classes) else ""
        if not said.lstrip("-").isdecimal():
            hint = ': put the names of the classes into the card, classes = ["...", ...], in the order of the model\'s'
            hint = f": {not_in_card(said, dataset)}" if dataset.names else hint
        raise DataError(f"{where}: {said[:80]!r} is no class from 0 to {classes - 1}{hint}")
    return int(said)


def _in_json(content: bytes, where: str) -> str:
    """The label in a sample's JSON, as text."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is no JSON: {shortened(str(error), 200)}") from error
    if isinstance(found, dict):
        key = next((key for key in JSON_KEYS if isinstance(found.get(key), int | str)), None)
        if key is None:
            raise DataError(f"{where}: says no class: looked for {', '.join(JSON_KEYS)}")
        found = found[key]
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise DataError(f"{where}: says no class, but {shortened(str(found), 80)}")
    return shortened(str(found), 200)


LAYOUT = DataLayout(
    "webdataset tars (one, a folder of them, or NAME-{0000..0009}.tar)",
    has_tars,
    open_tars,
)
