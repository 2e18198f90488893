"""Parquet as Hugging Face stores image data sets: a column of images, one of labels, in one file or many; read row by row."""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from onnxnoise.data.datasets import Dataset
from onnxnoise.data.input import InputSpec
from onnxnoise.data.pixels.decode import decode
from onnxnoise.data.pixels.stream import stream
from onnxnoise.data.sources.base import DataLayout, ImageSource
from onnxnoise.data.sources.files import check_download, entries
from onnxnoise.data.sources.items import MAX_FILE_BYTES
from onnxnoise.data.sources.labels import NO_LABELS, by_name, checked, some
from onnxnoise.data.sources.tars import BRACES, expand_braces
from onnxnoise.errors import DataError, UsageError
from onnxnoise.files import first_bytes, is_file
from onnxnoise.machine import cores
from onnxnoise.records import ImageChunk, Labels, Pixels

SUFFIX, MAGIC = ".parquet", b"PAR1"
IMAGES = ("image", "img", "images", "jpg", "png", "picture", "photo")
LABELS = ("label", "labels", "fine_label", "cls", "class", "target")
"""Names of columns, those that are taken first first; Hugging Face's own schema comes before them."""
_SHARD = re.compile(r"^(?P<split>.*?)-?\d+(?:-of-\d+)?(?:-[0-9a-f]{16})?$")
_SPLITS = ("validation", "val", "valid", "test")
_ROWS, _BUFFER = 16, 1 << 20
"""Rows and bytes that are read at a time, so that a file of one row group of any size takes as little memory."""


@dataclass(frozen=True)
class Columns:
    """The columns of a file: `image`, `inner` the field of its struct or None where it holds the bytes; `label`; class names.

    `label` is None where labels don't count.
    `in_words` says that labels are names themselves, not numbers.
    """

    image: str
    inner: str | None
    label: str | None
    names: tuple[str, ...]
    in_words: bool


@dataclass(frozen=True, eq=False)
class ParquetImages(ImageSource):
    """The rows of `files`, whose first images have the positions `starts` and which all have the `columns`.

    `groups` has the rows at which each file's row groups begin.
    """

    files: tuple[Path, ...]
    starts: tuple[int, ...]
    columns: Columns
    groups: tuple[tuple[int, ...], ...]

    @property
    def in_order(self) -> bool:
        return True

    def chunks(self, ranges: Sequence[range], *, threads: int | None = None) -> Iterator[ImageChunk]:
        """One ImageChunk for each range, in order; rows are read one after the other and decoded in threads."""
        ahead = 4 * (threads or cores().threads)
        encoded = self._encoded(ranges)
        return stream(ranges, self._decode, self.labels, self.shape, threads, encoded=encoded, most=ahead)

    def _decode(self, encoded: tuple[str, bytes]) -> Pixels:
        where, content = encoded
        if len(content) > MAX_FILE_BYTES:
            raise DataError(f"{where}: {len(content)} bytes are too many for an image")
        return decode(content, where, self.spec)

    def _encoded(self, ranges: Sequence[range]) -> Iterator[tuple[str, bytes]]:
        """(place, bytes) of each image of the ranges, from one pass over each file as long as they ascend."""
        reader: Iterator[bytes | None] = iter(())
        file, at = -1, 0
        for position in (position for positions in ranges for position in positions):
            number = int(np.searchsorted(self.starts, position, side="right")) - 1
            row = position - self.starts[number]
            if number != file or row < at or any(at < start <= row for start in self.groups[number]):
                reader, file, at = _rows(self.files[number], self.columns, row), number, row
            where = f"{self.files[number]}: row {row}"
            content: bytes | None = None
            while at <= row:
                content, at = next(reader, None), at + 1
            if content is None:
                raise DataError(
                    f"{where}: has no bytes of an image, only a path or nothing: embed the images "
                    "(datasets: Dataset.map or save with embed_external_files=True)"
                )
            yield where, content


def has_parquet(path: Path, _: Dataset) -> bool:
    """Whether a file begins like Parquet or is called so, a folder holds some, or `path` is a pattern of them."""
    if path.is_dir():
        return bool(_inside(path))
    if is_file(path):
        return first_bytes(path, 4) == MAGIC or path.suffix == SUFFIX
    return path.suffix == SUFFIX and ("*" in str(path) or BRACES.search(str(path)) is not None)


def open_parquet(data: Path, dataset: Dataset, spec: InputSpec) -> ParquetImages:
    """The images of a Parquet file, of the shards of a folder's one split, or of all that a pattern stands for.

    A label is the column's number; with names in the schema and in the card, the position of its name in the card; of a column
    of names without any in the card, the position among the sorted names of all files. The digest is of the files' sizes,
    their row groups and the labels. Raises UsageError without pyarrow, and DataError for files that can't be used, naming
    column or row.
    """
    files = _files(data)
    digest, labels, columns, counts, groups = hashlib.sha256(), [], None, [], []
    for file in files:
        with _errors(file):
            found, values, about, begins = _opened(file, labelled=dataset.labelled)
        if columns is not None and found != columns:
            raise DataError(
                f"{file}: has other columns or class names than {files[0]}; shards of one set have the same"
            )
        columns = found
        counts.append(len(values))
        groups.append(begins)
        digest.update(about)
        labels.append(values)
    if columns is None or not sum(counts):
        raise DataError(f"{data}: has no images")
    starts = (0, *accumulate(counts))
    truth = _labels(data, files, labels, columns, dataset)
    digest.update(truth.astype("<i8").tobytes())
    return ParquetImages(
        name=dataset.name,
        classes=dataset.classes,
        digest=digest.hexdigest(),
        spec=spec,
        labels=truth + spec.label_offset,
        files=tuple(files),
        starts=starts[:-1],
        columns=columns,
        groups=tuple(groups),
    )


def _parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            f"--data: Parquet needs pyarrow ({error}); `pip install 'onnxnoise[parquet]'` brings it"
        ) from error
    return parquet


class _errors:  # noqa: N801 (it reads as what it does)
    """Make a DataError of whatever pyarrow raises for a damaged file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, DataError | UsageError):
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{self.file}: can't be read as Parquet, or is damaged or truncated: {said}") from error


def _opened(file: Path, *, labelled: bool) -> tuple[Columns, list[Any], bytes, tuple[int, ...]]:
    """The columns of a file, its labels as they stand there, what the digest has of it, and the first rows of its row groups."""
    check_download(file)
    with _parquet().ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False) as opened:
        columns = _columns(file, opened.schema_arrow, labelled=labelled)
        labels: list[Any] = [0] * opened.metadata.num_rows
        if columns.label is not None:
            batches = opened.iter_batches(batch_size=1 << 16, columns=[columns.label])
            labels = [value for batch in batches for value in batch.column(0).to_pylist()]
        if len(labels) != opened.metadata.num_rows:
            raise DataError(f"{file}: has {opened.metadata.num_rows} rows, but {len(labels)} labels")
        if None in labels:
            raise DataError(f"{file}: row {labels.index(None)} has no {columns.label}")
        begins = [0]
        about = [file.stat().st_size, opened.metadata.num_rows]
        for number in range(opened.num_row_groups):
            group = opened.metadata.row_group(number)
            begins.append(begins[-1] + group.num_rows)
            parts = (group.column(each) for each in range(group.num_columns))
            sizes = [(each.total_compressed_size, each.total_uncompressed_size) for each in parts]
            about += [group.num_rows, *(size for both in sizes for size in both)]
    return columns, labels, repr(about).encode(), tuple(begins[:-1])


def _rows(file: Path, columns: Columns, first: int) -> Iterator[bytes | None]:
    """The bytes of each row's image from number `first` on."""
    with _errors(file), _parquet().ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False) as opened:
        sizes = [opened.metadata.row_group(number).num_rows for number in range(opened.num_row_groups)]
        groups = [number for number, (_, end) in enumerate(pairwise((0, *accumulate(sizes)))) if end > first]
        skip = first - sum(sizes[: groups[0]]) if groups else 0
        column = f"{columns.image}.{columns.inner}" if columns.inner else columns.image
        for batch in opened.iter_batches(batch_size=_ROWS, row_groups=groups, columns=[column], use_threads=False):
            values = batch.column(0)
            if columns.inner:
                values = values.field(0)
            for row in range(skip, len(values)):
                yield values[row].as_py()
            skip = max(0, skip - len(values))


def _columns(file: Path, schema: Any, *, labelled: bool) -> Columns:
    """The columns with images and, where they are `labelled`, labels.

    Raises DataError, listing the columns, where there are none or it isn't clear which.
    """
    import pyarrow

    features = _features(schema)
    binary = [name for name in schema.names if _is_binary(pyarrow, schema.field(name).type)]
    declared = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    usable = [name for name in declared if name in binary] or [name for name in IMAGES if name in binary]
    usable = usable or (binary if len(binary) == 1 else [])
    said = f"its columns are {some(f'{name} ({schema.field(name).type})' for name in schema.names)}"
    if not usable:
        raise DataError(
            f"{file}: has no column of images, as a struct of bytes and path or as bytes (looked for {', '.join(IMAGES)}); {said}"
        )
    kind = schema.field(usable[0]).type
    inner = "bytes" if pyarrow.types.is_struct(kind) else None
    if not labelled:
        return Columns(usable[0], inner, None, (), in_words=False)
    kinds = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    whole = [name for name in schema.names if _is_label(pyarrow, schema.field(name).type)]
    named = [name for name in LABELS if name in whole]
    labels = [name for name in named if name in kinds] or (kinds if len(kinds) == 1 else []) or named
    if not labels:
        raise DataError(f"{file}: has no column of labels (looked for {', '.join(LABELS)}); {said}. {NO_LABELS}")
    names = features.get(labels[0], {}).get("names") or ()
    return Columns(
        image=usable[0],
        inner=inner,
        label=labels[0],
        names=tuple(str(name) for name in names),
        in_words=not pyarrow.types.is_integer(_values(pyarrow, schema.field(labels[0]).type)),
    )


def _features(schema: Any) -> Mapping[str, Any]:
    """The features that Hugging Face writes into a schema's metadata: a table by column, empty where there are none."""
    try:
        written = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = written["info"]["features"]
        return {name: each for name, each in features.items() if isinstance(each, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _is_binary(arrow: Any, kind: Any) -> bool:
    if arrow.types.is_struct(kind):
        position = kind.get_field_index("bytes")
        return position >= 0 and _is_binary(arrow, kind.field(position).type)
    return bool(arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind))


def _is_label(arrow: Any, kind: Any) -> bool:
    kind = _values(arrow, kind)
    return bool(arrow.types.is_integer(kind) or arrow.types.is_string(kind) or arrow.types.is_large_string(kind))


def _values(arrow: Any, kind: Any) -> Any:
    """The type of a column's values, in a dictionary or not."""
    return kind.value_type if arrow.types.is_dictionary(kind) else kind


def _labels(
    data: Path, files: Sequence[Path], written: Sequence[list[Any]], columns: Columns, dataset: Dataset
) -> Labels:
    """The labels of all files from 0: numbers, or the positions of names; a name has one number in all files."""
    if columns.in_words:
        words = [word for values in written for word in values]
        found = by_name(sorted({*words}), dataset, f"{data}: column {columns.label}")
        return np.array([found[word] for word in words], np.int64)
    own = Dataset(dataset.name, len(columns.names)) if columns.names else dataset
    found = by_name(columns.names, dataset, f"{files[0]}: column {columns.label}") if columns.names else {}
    numbers = [
        checked(np.array(values, np.int64), own, f"{file}: column {columns.label}", lambda row: f"row {row}")
        for file, values in zip(files, written, strict=True)
    ]
    truth = np.concatenate(numbers)
    return np.array([found[name] for name in columns.names], np.int64)[truth] if found else truth


def _inside(folder: Path, deep: int = 3) -> list[Path]:
    """The Parquet files of a folder and those inside it, sorted."""
    found = []
    for entry in entries(folder):
        if entry.is_dir():
            found += _inside(Path(entry.path), deep - 1) if deep > 1 else []
        elif entry.name.endswith(SUFFIX):
            found.append(Path(entry.path))
    return found


def _files(data: Path) -> list[Path]:
    """The files of one split, in order. Raises DataError where a pattern means none, or a folder has several splits."""
    if is_file(data):
        return [data]
    if not data.is_dir():
        files = (
            expand_braces(str(data))
            if BRACES.search(str(data))
            else [Path(each) for each in sorted(glob.glob(str(data)))]  # noqa: PTH207 (a whole pattern)
        )
        if not files or not all(map(is_file, files)):
            missing = next((file for file in files if not is_file(file)), data)
            raise DataError(f"{missing}: there is no such file; is a shard missing, or does the pattern count too far?")
        return files
    splits: dict[str, list[Path]] = {}
    for file in _inside(data):
        match = _SHARD.match(file.stem)
        split = match["split"] if match else file.stem
        splits.setdefault(split or file.parent.name, []).append(file)
    judged = {
        split: files for split, files in splits.items() if any(split.lower().startswith(each) for each in _SPLITS)
    }
    left = judged or splits
    if len(left) > 1:
        raise DataError(
            f"{data}: holds Parquet files of {len(left)} parts ({some(left)}): name the files of one, as "
            f"{data / '**' if len(data.parts) > 3 else data}/{next(iter(left))}-*.parquet"
        )
    return next(iter(left.values()))


LAYOUT = DataLayout(
    "Parquet files",
    has_parquet,
    open_parquet,
)
