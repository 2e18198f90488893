"""Tars of images: whatever would make a sample vanish or two of them merge is an error that names the member."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.imaging import card, flat_color, levels, write_tar

from onnxnoise.data.images import open_images
from onnxnoise.data.sources.items import ImageItems
from onnxnoise.errors import DataError

CARD = '[input]\ndataset = "signs"\nsize = 8\nclasses = ["stop", "yield", "go on"]\n'
IMAGE = flat_color(7)
END = bytes(10240)
PAIR = (("a.png", IMAGE), ("a.cls", b"1"))


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, target
    return info.tobuf() + content + bytes(-len(content) % 512)


def packed(members: Sequence[tuple[str, bytes]]) -> bytes:
    return b"".join(member(name, content) for name, content in members) + END


def opened(folder: Path, content: bytes) -> ImageItems:
    (folder / "x.tar").write_bytes(content)
    source = open_images(folder / "x.tar", card(folder, CARD))
    assert isinstance(source, ImageItems)
    return source


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (member("a.png", IMAGE) + member("b.png", kind=tarfile.LNKTYPE, target="a.png") + END, "b.png: is a hard link"),
        (member("a.png", IMAGE) + member("a.cls", kind=tarfile.LNKTYPE, target="b.cls") + END, "a.cls: is a hard link"),
        (
            packed(PAIR)[:-10240] + member("b.png", kind=tarfile.SYMTYPE, target="a.png") + END,
            "b.png: is a symbolic link",
        ),
        (member("pipe.png", kind=tarfile.FIFOTYPE) + END, "pipe.png: is no file"),
        (packed([*PAIR, ("b.png", IMAGE), ("b.cls", b"0"), *PAIR]), "a.png: sample a was there before"),
        (packed([*PAIR, *PAIR]), "a.png: is the second image of sample a, after a.png"),
        (packed([("a.jpg", IMAGE), *PAIR]), "a.png: is the second image of sample a, after a.jpg"),
        (packed([("a.left.png", IMAGE), ("a.right.png", IMAGE), ("a.cls", b"1")]), "a.right.png: is the second image"),
        (packed([*PAIR, ("a.fine.cls", b"2")]), "a.fine.cls: is the second label of sample a, after a.cls"),
        (packed([("a.png", IMAGE), ("a.cls", b"1" + b" " * 63 + b"2")]), "a.cls: 65 bytes are no label"),
        (packed([("a.png", IMAGE), ("a.cls", b"1\n2")]), "a.cls: '1\\n2' is no class from 0 to 2"),
        (packed(PAIR)[:-10240], "it ends without the mark of a tar's end after a.cls"),
        (packed(PAIR)[:-10240] + b"x" * 10240, "it has a damaged header after a.cls"),
        (packed(PAIR) + packed([("b.png", IMAGE), ("b.cls", b"2")]), "another tar follows its end (after a.cls)"),
        (
            packed(PAIR)[:-10240] + member("b.png", b"x" * (2 << 20), tarfile.GNUTYPE_LONGNAME) + END,
            "a header of 2,097,152 bytes",
        ),
        (packed(PAIR)[:-10240] + member("b.png", IMAGE)[:-512], "b.png: is cut short or sparse"),
    ],
)
def test_no_sample_vanishes(tmp_path: Path, content: bytes, found: str) -> None:
    with pytest.raises(DataError) as error:
        opened(tmp_path, content)
    assert str(error.value).startswith(f"{tmp_path / 'x.tar'}: ")
    assert found in str(error.value)


def test_leftovers_and_other_files_are_passed_over(tmp_path: Path) -> None:
    files = [("./._a.png", b"x"), ("__MACOSX/a.png", b"x"), (".DS_Store", b"x"), ("a.json", b"{}")]
    source = opened(tmp_path, packed([*files, *PAIR, ("README.md", b"x"), ("b/a.png", IMAGE), ("b/a.cls", b"2 \n")]))
    assert [item.name for item in source.items] == ["a.png", "b/a.png"]
    assert source.labels.tolist() == [1, 2]
    (chunk,) = source.chunks([range(2)])
    assert levels([chunk]) == [7, 7]


def test_a_tar_that_gnu_tar_or_python_wrote_is_whole(tmp_path: Path) -> None:
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w", format=form) as archive:
            archive.add(tmp_path, "folder", recursive=False)
            for name, data in PAIR:
                info = tarfile.TarInfo("folder/" + "ä" * 20 + name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        assert len(opened(tmp_path, content.getvalue())) == 1


def test_one_key_in_two_shards_is_two_samples(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"s-{number}.tar").write_bytes(packed(PAIR))
    assert len(open_images(tmp_path / "s-{0..1}.tar", card(tmp_path, CARD))) == 2


@pytest.mark.parametrize("pattern", ["s-{0..99999}{0..99999}.tar", "s-{0..9}{0..999999999}.tar", "{1..0}.tar"])
def test_braces_are_counted_before_anything_is_made_of_them(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(DataError, match="must count upward, and all braces stand for 100,000 shards at most"):
        open_images(pattern, card(tmp_path, CARD))


def test_labels_in_json(tmp_path: Path) -> None:
    """As a number or a name under one of several keys; a `.cls` comes before it."""
    said = [b'{"label": 2}', b'{"caption": "x", "cls": "1"}', b'{"class": "stop"}', b"0"]
    files: dict[str, bytes] = {}
    for number, content in enumerate(said):
        files |= {f"{number}.png": flat_color(number), f"{number}.json": content}
    files |= {"4.png": flat_color(4), "4.cls": b"1", "4.json": b"no JSON at all"}
    source = open_images(write_tar(tmp_path / "x.tar", files), card(tmp_path, CARD))
    assert [int(label) for label in source.labels] == [2, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", r"a\.json: is no JSON"),
        (b"[" * 5000, r"a\.json: is no JSON"),
        (b'{"caption": "a"}', r"a\.json: says no class: looked for label, cls, class"),
        (b'{"label": 3}', r"'3' is no class from 0 to 2: do the labels count from 1"),
        (
            b'{"label": "tree"}',
            r"'tree' is no class from 0 to 2: class name 'tree' is none of the 3 class names in the card",
        ),
        (b"1.5", r"a\.json: says no class, but 1\.5"),
    ],
)
def test_json_that_says_no_class(tmp_path: Path, content: bytes, expected: str) -> None:
    tar = write_tar(tmp_path / "x.tar", {"a.png": flat_color(1), "a.json": content})
    with pytest.raises(DataError, match=expected):
        open_images(tar, card(tmp_path, CARD))
