"""Parquet files as Hugging Face stores image data sets: columns, names, shards and splits, and what can't be used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from support.imaging import card, flat_color, levels

from onnxnoise.data.dealing import dealt
from onnxnoise.data.images import open_images
from onnxnoise.errors import DataError, UsageError

NAMES = ["yield", "stop", "go"]


def table(
    count: int,
    *,
    names: Sequence[str] = (),
    first: int = 0,
    columns: tuple[str, str] = ("image", "label"),
    labels: Sequence[Any] | None = None,
    plain: bool = False,
) -> pyarrow.Table:
    """Images of the grey levels `first` and up, labelled 0, 1, 2 in turn."""
    content = [flat_color(first + i) for i in range(count)]
    images = content if plain else [{"bytes": each, "path": f"{i}.png"} for i, each in enumerate(content)]
    kind = pyarrow.binary() if plain else pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    given = [(first + i) % 3 for i in range(count)] if labels is None else list(labels)
    made = pyarrow.table({columns[0]: pyarrow.array(images, kind), columns[1]: pyarrow.array(given)})
    features = {columns[0]: {"_type": "Image"}, columns[1]: {"names": list(names), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return made.replace_schema_metadata(metadata) if names else made


def written(path: Path, made: pyarrow.Table, rows: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(made, path, row_group_size=rows)
    return path


def opened(data: Path | str, classes: object = 3):
    folder = Path("cards")
    folder.mkdir(exist_ok=True)
    return open_images(data, card(folder, f'[input]\ndataset = "signs"\nsize = 8\nclasses = {json.dumps(classes)}'))


def read(source, ranges: Sequence[range] | None = None) -> tuple[list[int], list[int]]:
    chunks = list(source.chunks(ranges or [range(len(source))], threads=2))
    return levels(chunks), [int(label) for chunk in chunks for label in chunk.labels]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("columns", [("image", "label"), ("img", "fine_label"), ("photo", "cls")])
@pytest.mark.parametrize("plain", [True, False])
def test_columns_and_ranges(columns: tuple[str, str], plain: bool) -> None:
    source = opened(written(Path("a.parquet"), table(41, columns=columns, plain=plain), rows=10))
    assert read(source) == (list(range(41)), [i % 3 for i in range(41)])
    ranges = [range(7, 12), range(38, 41), range(0), range(2, 5), range(40, 41)]
    assert read(source, ranges)[0] == [position for each in ranges for position in each]
    assert (source.name, source.classes, len(source)) == ("signs", 3, 41)


def test_class_names_of_the_schema_are_held_against_the_card() -> None:
    file = written(Path("a.parquet"), table(6, names=NAMES))
    assert read(opened(file))[1] == [0, 1, 2, 0, 1, 2]
    assert read(opened(file, ["go", "none", "stop", "yield"]))[1] == [3, 2, 0, 3, 2, 0]
    with pytest.raises(DataError, match=r"column label: class name 'yield' is none of the 3.*the closest is 'yields'"):
        opened(file, ["yields", "stop", "go"])
    with pytest.raises(DataError, match=r"has 3 class names \(yield, stop, go\), but signs has 4 classes; is one of"):
        opened(file, 4)
    with pytest.raises(DataError, match="'stop' is the name of two classes"):
        opened(written(Path("b.parquet"), table(6, names=["stop", "go", "stop"])))
    words = written(Path("c.parquet"), table(3, labels=["stop", "go", "stop"]))
    assert read(opened(words, 2))[1] == [1, 0, 1]
    assert read(opened(words, NAMES))[1] == [1, 2, 1]


def test_shards_of_a_folder_s_split() -> None:
    for number in range(3):
        written(Path(f"d/data/test-{number:05}-of-00003.parquet"), table(5, first=5 * number))
        written(Path(f"d/data/train-{number:05}-of-00003.parquet"), table(5, first=100))
    for data in ("d", "d/data", "d/data/test-*.parquet", "d/data/test-{00000..00002}-of-00003.parquet"):
        assert read(opened(data)) == (list(range(15)), [i % 3 for i in range(15)])
    digest = opened("d").digest
    written(Path("d/data/validation-00000-of-00001.parquet"), table(5))
    with pytest.raises(DataError, match=r"Parquet files of 2 parts \(test, validation\): name the files of one"):
        opened("d")
    written(Path("d/data/test-00001-of-00003.parquet"), table(5, first=6))
    assert opened("d/data/test-*.parquet").digest != digest
    with pytest.raises(DataError, match=r"test-3\.parquet: there is no such file; is a shard missing"):
        opened("d/data/test-{0..3}.parquet".replace("0", "3"))
    for split in ("train", "test"):
        written(Path(f"e/default/{split}/0000.parquet"), table(4, first=50 * (split == "test")))
    assert read(opened("e"))[0] == [50, 51, 52, 53]


def test_a_name_has_one_number_in_all_shards() -> None:
    """Rows sorted by class: no shard has all names, and each number is a name's place among those of all files."""
    for number, words in enumerate((["go", "go", "stop"], ["stop", "yield", "yield"])):
        written(Path(f"d/test-{number:05}-of-00002.parquet"), table(3, labels=words))
    assert read(opened("d"))[1] == [0, 0, 1, 1, 2, 2]
    assert read(opened("d", NAMES))[1] == [2, 2, 1, 1, 0, 0]
    with pytest.raises(DataError, match=r"d: column label: has 3 class names \(go, stop, yield\), but signs has 2"):
        opened("d", 2)  # as many as each shard has
    with pytest.raises(DataError, match=r"d: column label: class name 'yield' is none of the 2"):
        opened("d", ["stop", "go"])
    written(Path("d/test-00001-of-00002.parquet"), table(3))
    with pytest.raises(DataError, match=r"test-00001.*has other columns or class names than .*test-00000"):
        opened("d")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (table(3).drop_columns(["image"]), r"has no column of images.*its columns are label \(int64\)"),
        (table(3).drop_columns(["label"]), r"has no column of labels \(looked for label, "),
        (table(3, labels=[0, 1, 7]), r"column label: row 2 has label 7; those of signs are 0 to 2$"),
        (table(3, labels=[1, 2, 3]), r"row 2 has label 3.*they run from 1 up.*background class"),
        (table(3, labels=[-1, -1, -1]), r"row 0 has label -1; .*no label, as in a test part"),
        (table(3, labels=[0, None, 1]), r"row 1 has no label"),
        (table(3).slice(0, 0), r"has no images"),
    ],
)
def test_files_that_can_t_be_used(made: pyarrow.Table, expected: str) -> None:
    with pytest.raises(DataError, match=rf"a\.parquet: .*{expected}"):
        opened(written(Path("a.parquet"), made))


def test_images_without_bytes_and_damaged_ones_are_named_by_their_row() -> None:
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    for content, expected in ((None, "has no bytes of an image, only a path"), (b"no image", "is no image")):
        rows = [{"bytes": flat_color(1), "path": "a"}] * 5 + [{"bytes": content, "path": "b.png"}]
        file = written(Path("a.parquet"), pyarrow.table({"image": pyarrow.array(rows, kind), "label": [0] * 6}))
        with pytest.raises(DataError, match=rf"a\.parquet: row 5: {expected}"):
            read(opened(file))


def test_truncated_and_foreign_files() -> None:
    whole = written(Path("a.parquet"), table(20)).read_bytes()
    for content in (whole[: len(whole) // 2], whole[:8], b"PAR1", b"something else"):
        Path("a.parquet").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.parquet: can't be read as Parquet, or is damaged or truncated"):
            opened("a.parquet")


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(Path("a.parquet"), table(3))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"Parquet needs pyarrow .*pip install 'onnxnoise\[parquet\]'"):
        opened(file)


def test_a_single_row_group_is_read_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch is larger than what is read at a time, whatever the row group."""
    file = written(Path("a.parquet"), table(200), rows=200)
    sizes = []
    whole = parquet.ParquetFile.iter_batches

    def counted(self, *args, **options):
        for batch in whole(self, *args, **options):
            sizes.append((batch.num_rows, options["columns"]))
            yield batch

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", counted)
    assert read(opened(file), [range(100), range(100, 200)])[0] == list(range(200))
    images = [rows for rows, columns in sizes if columns != ["label"]]
    assert max(images) <= 16
    assert sum(images) == 200


def test_dealt_images_are_read_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunks of a random order, whatever the row groups; each group is opened once for all that is asked for together."""
    passes = []
    whole = parquet.ParquetFile.iter_batches

    def counted(self, *args, **options):
        passes.append(options.get("row_groups"))
        yield from whole(self, *args, **options)

    for rows in (7, 60):
        source = opened(written(Path("a.parquet"), table(60), rows=rows))
        mixed = dealt(source, 60, 3)
        monkeypatch.setattr(parquet.ParquetFile, "iter_batches", counted)
        ranges = [range(0, 20), range(20, 35), range(35, 60)]
        assert read(mixed, ranges)[0] == list(mixed.positions)
        monkeypatch.setattr(parquet.ParquetFile, "iter_batches", whole)
    assert passes.count([0]) == 1
