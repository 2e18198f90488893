"""What `--data` is recognized as, what is said where it is not, and layouts that any data set can come in."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from support.imaging import card, flat_color, imagenet_card, levels, records, write, write_tar

from onnxnoise.data.cards import Card
from onnxnoise.data.images import open_images
from onnxnoise.data.layouts import LAYOUTS, layouts_of
from onnxnoise.errors import DataError, UsageError

THREE = '[input]\ndataset = "signs"\nsize = 8\nclasses = '


def own(folder: Path, classes: str = '["stop", "yield", "go on"]') -> Card:
    return card(folder, THREE + classes)


def read(source) -> tuple[list[int], list[int]]:
    chunks = list(source.chunks([range(len(source))], threads=2))
    return levels(chunks), [int(label) for chunk in chunks for label in chunk.labels]


def test_every_layout_says_what_data_takes(tmp_path: Path) -> None:
    assert len({layout.takes for layout in LAYOUTS}) == len(LAYOUTS)
    found = own(tmp_path)
    with pytest.raises(DataError) as error:
        open_images(write(tmp_path / "d", {"a.xyz": b"x", "b.xyz": b"x", "c": b"x", "in/d": b"x"}), found)
    for layout in layouts_of(found.dataset):
        assert layout.takes in str(error.value)
    assert "ILSVRC2012" not in str(error.value)
    assert "CIFAR" not in str(error.value)
    assert "/d: not recognized as images of signs. Looked for: " in str(error.value)
    assert str(error.value).endswith("Found: 3 files (2 .xyz, 1 no suffix) and 1 folder (in)")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"PAR2 and more", r"Found: 13 bytes that begin with b'PAR2 and'"),
        (b"", r"Found: a file of 0 bytes that can't be read"),
    ],
)
def test_a_file_that_no_layout_recognizes(tmp_path: Path, content: bytes, found: str) -> None:
    with pytest.raises(DataError, match=rf"x\.bin: not recognized as images of signs.*{found}"):
        open_images(write(tmp_path, {"x.bin": content}) / "x.bin", own(tmp_path))


def test_nothing_there_and_nothing_given(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no images of signs, which .*card\.toml asks for.*pass --data\. It takes"):
        open_images(None, own(tmp_path))
    with pytest.raises(DataError, match=r"nowhere: there is no such file or folder.*For signs --data takes"):
        open_images("nowhere", own(tmp_path))
    with pytest.raises(DataError, match="there is no such file or folder"):
        open_images("no{brace", own(tmp_path))
    with pytest.raises(DataError, match="can't be looked at: File name too long"):
        open_images("n" * 5000, own(tmp_path))
    with pytest.raises(UsageError, match="cifar10-sample has images of cifar10; the card asks for signs"):
        open_images("cifar10-sample", own(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    write(tmp_path, {"secret": b"x"})
    (tmp_path / "secret").chmod(0)
    with pytest.raises(DataError, match=r"secret: not recognized.*that can't be read"):
        open_images(tmp_path / "secret", own(tmp_path))


def test_cifar_is_recognized_by_content_under_any_name(tmp_path: Path) -> None:
    found, content = card(tmp_path, '[input]\ndataset = "cifar10"'), records(7)
    pickled = pickle.dumps({"data": content[:, 1:], "labels": content[:, 0].tolist()}, 4)
    files = write(tmp_path / "d", {"records": content.tobytes(), "pickle": pickled, "text": b"no records"})
    tar = write_tar(files / "tar", {"somewhere/data_batch_1.bin": b"x", "somewhere/test_batch.bin": content.tobytes()})
    digest = open_images(files / "records", found).digest
    assert [open_images(data, found).digest for data in (files / "pickle", tar)] == [digest, digest]
    with pytest.raises(DataError, match=r"text: not recognized as images of cifar10.*the test part of CIFAR-10"):
        open_images(files / "text", found)
    with pytest.raises(DataError, match="no whole number of CIFAR-10 records"):
        open_images(write(files, {"records": content.tobytes()[:-1]}) / "records", found)
    (files / "val.tar").write_bytes(write_tar(tmp_path / "t.tar", {"a.png": flat_color(3), "a.cls": b"9"}).read_bytes())
    assert open_images(files / "val.tar", found).highest_label == 9


@pytest.mark.parametrize("given", ["folder", "file"])
def test_a_list_for_own_classes_by_number_or_name(tmp_path: Path, given: str) -> None:
    lines = b"a.png 2\nval/b.png stop\nc.png\tgo on\n"
    files = {"a.png": flat_color(10), "val/b.png": flat_color(20), "c.png": flat_color(30), "val.txt": lines}
    folder = write(tmp_path / "d", files)
    source = open_images(folder if given == "folder" else folder / "val.txt", own(tmp_path))
    assert read(source) == ([10, 20, 30], [2, 0, 2])
    assert (source.name, source.classes, source.highest_label) == ("signs", 3, 2)
    with pytest.raises(
        DataError, match=r"line 1: 'a\.png 2' is not NAME LABEL with LABEL from 0 to 1 or the name of a"
    ):
        open_images(folder, own(tmp_path, "2"))


def test_a_list_that_names_no_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"val\.txt: has no images"):
        open_images(write(tmp_path / "d", {"val.txt": b"\n\n"}) / "val.txt", own(tmp_path))


def test_a_webdataset_of_own_classes(tmp_path: Path) -> None:
    shard = {"ILSVRC2012_val_00000001.png": flat_color(10), "ILSVRC2012_val_00000001.cls": b"2"}
    tar = write_tar(tmp_path / "x.tar", shard)
    assert read(open_images(tar, own(tmp_path))) == ([10], [2])
    with pytest.raises(DataError, match=r"'2' is no class from 0 to 1"):
        open_images(tar, own(tmp_path, "2"))


def test_the_folder_val_is_looked_at_first(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", {"val/x/a.png": flat_color(1), "train/x/b.png": flat_color(2)})
    write_tar(folder / "val" / "a.tar", {"a.png": flat_color(5), "a.cls": b"1"})
    write_tar(folder / "b.tar", {"b.png": flat_color(6), "b.cls": b"2"})
    assert read(open_images(folder, own(tmp_path))) == ([5], [1])
    (folder / "val" / "a.tar").unlink()
    (folder / "val" / "x" / "a.png").unlink()
    assert read(open_images(folder, own(tmp_path))) == ([6], [2])


def test_any_file_is_no_imagenet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.JPEG: not recognized as images of imagenet"):
        open_images(write(tmp_path, {"a.JPEG": flat_color(1)}) / "a.JPEG", imagenet_card(tmp_path))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"\n" * 20_000, "line 10001: over 10,000 empty lines; this is no list of images"),
        (b"a.png 1\n" + b" \n" * 20_000, "line 10002: over 10,000 empty lines"),
        (b"a.png " + b"9" * 5000, "is not NAME LABEL"),
        (b"n" * 5000 + b" 1", "there is no n"),
        (b"a\0.png 1", "there is no a"),
        (b"\xff\xfe", "can't be read as text"),
    ],
)
def test_lists_of_any_content_are_refused_at_once(tmp_path: Path, content: bytes, found: str) -> None:
    folder = write(tmp_path / "d", {"val.txt": content, "a.png": flat_color(1)})
    with pytest.raises(DataError) as error:
        open_images(folder, own(tmp_path))
    assert found in str(error.value)


def test_a_list_of_hundreds_of_megabytes_is_not_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", {"a.png": flat_color(1)})
    with (folder / "val.txt").open("wb") as file:
        file.truncate(300_000_000)
    with pytest.raises(DataError, match="300,000,000 bytes; this is no list of images, which has 134,217,728 at most"):
        open_images(folder, own(tmp_path))


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("labels.csv", b"a.png,2\nb.png,0\nc.png,1\n"),
        ("labels.csv", b"id,filename,width,label\n1,a.png,8,2\n2,b.png,8,stop\n3,c.png,8,1\n"),
        ("labels.csv", b'label;path\ngo on;"a.png"\nstop;b.png\nyield;c.png\n'),
        ("labels.csv", b"\xef\xbb\xbfpath\tlabel\r\na.png\t2\r\nb.png\t0\r\nc.png\tyield\r\n"),
        ("val_map.txt", b"a.png 2\nb.png, 0\nc.png,1\n"),
        ("val.txt", b"path label\na.png\tgo on\nb.png stop\nc.png 1\n"),
        ("other.csv", b"a.png,2\nb.png,0\nc.png,yield\n"),
    ],
)
def test_tables_with_and_without_titles(tmp_path: Path, name: str, lines: bytes) -> None:
    files = {"a.png": flat_color(10), "val/b.png": flat_color(20), "images/c.png": flat_color(30), ".DS_Store": b"x"}
    folder = write(tmp_path / "d", files | {name: lines})
    for data in (folder / name, *([folder] if name != "other.csv" else [])):
        assert read(open_images(data, own(tmp_path))) == ([10, 20, 30], [2, 0, 1])


def test_names_in_a_table_without_names_in_the_card_are_sorted(tmp_path: Path) -> None:
    files = {f"{i}.png": flat_color(i) for i in range(4)}
    folder = write(
        tmp_path / "d", files | {"labels.csv": b"id,breed\n0.png,pug\n1.png,beagle\n2.png,pug\n3.png,akita\n"}
    )
    assert read(open_images(folder, own(tmp_path, "3"))) == ([0, 1, 2, 3], [2, 1, 2, 0])
    with pytest.raises(
        DataError, match=r"labels\.csv: has 3 class names \(akita, beagle, pug\), but signs has 4 classes"
    ):
        open_images(folder, own(tmp_path, "4"))
    write(folder, {"labels.csv": b"path,label\n0.png,1\n1.png,3\n"})
    with pytest.raises(
        DataError, match=r"line 3: '1\.png,3' is not NAME LABEL.*count from 1, or has the data a background class"
    ):
        open_images(folder, own(tmp_path))
    write(folder, {"labels.csv": b"path,label\n../0.png,1\n"})
    with pytest.raises(DataError, match=r"line 2: \.\./0\.png points out of"):
        open_images(folder, own(tmp_path))
    write(folder, {"labels.csv": b"a,b,c\n0.png\n"})
    with pytest.raises(DataError, match=r"line 2: '0\.png' is not NAME LABEL"):
        open_images(folder, own(tmp_path))


def test_a_list_may_be_written_on_windows_or_leave_out_suffixes(tmp_path: Path) -> None:
    """As Kaggle's `id,breed` with images/ID.jpg; a name still can't point out of the folder."""
    files = {"images/a.jpg": flat_color(10), "images/b.c.png": flat_color(20), "in/c.png": flat_color(30)}
    folder = write(tmp_path / "d", files | {"labels.csv": b"id,breed\r\na,2\r\nb.c,0\r\nin\\c.png,1\r\n"})
    assert read(open_images(folder, own(tmp_path))) == ([10, 20, 30], [2, 0, 1])
    (folder / "labels.csv").write_bytes(b"id,breed\n..\\d\\images\\a.jpg,2\n")
    with pytest.raises(DataError, match=r"line 2: \.\.\\d\\images\\a\.jpg points out of"):
        open_images(folder, own(tmp_path))
    (folder / "labels.csv").write_bytes(b"id,breed\nz,2\n")
    with pytest.raises(DataError, match=r"line 2: there is no z in \S+/d, or in val or images there"):
        open_images(folder, own(tmp_path))


def test_parts_of_a_data_set_are_told_apart(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "d", {f"{part}/{name}/a.png": flat_color(1) for part in ("train", "test") for name in "ab"}
    )
    with pytest.raises(DataError, match=r"These are parts of a data set: pass one of them, as \S+/d/test\. Images"):
        open_images(folder, own(tmp_path, "2"))
