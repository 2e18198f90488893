"""Class folders: which folders are classes, whose label each has, in which order the images come, and what is passed over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.imaging import card, flat_color, levels, write

from onnxnoise.data.cards import Card
from onnxnoise.data.images import open_images
from onnxnoise.data.sources.items import ImageItems
from onnxnoise.errors import DataError

SIGNS = {
    "stop/a.png": flat_color(10),
    "stop/b.PNG": flat_color(20),
    "stop/deep/er/c.bmp": flat_color(30),
    "give way/a.png": flat_color(40),
    "Yield/x.webp": flat_color(50),
    "Yield/y.tif": flat_color(60),
}


def own(folder: Path, classes: object = 3) -> Card:
    return card(folder, f'[input]\ndataset = "signs"\nsize = 8\nclasses = {json.dumps(classes)}')


def read(source) -> tuple[list[int], list[int]]:
    chunks = list(source.chunks([range(len(source))], threads=2))
    return levels(chunks), [int(label) for chunk in chunks for label in chunk.labels]


def opened(folder: Path, files: Mapping[str, bytes], classes: object = 3) -> ImageItems:
    source = open_images(write(folder / "d", files), own(folder, classes))
    assert isinstance(source, ImageItems)
    return source


def test_labels_are_positions_among_the_sorted_names_and_classes_take_turns(tmp_path: Path) -> None:
    source = opened(tmp_path, SIGNS)
    assert read(source) == ([50, 40, 10, 60, 20, 30], [0, 1, 2, 0, 2, 2])
    assert (source.name, source.classes, source.highest_label, len(source)) == ("signs", 3, 2, 6)
    assert [item.name for item in source.items][-1] == "stop/deep/er/c.bmp"


def test_labels_are_positions_in_the_card_where_it_names_the_classes(tmp_path: Path) -> None:
    source = opened(tmp_path, SIGNS, ["stop", "Yield", "merge", "give way"])
    assert read(source) == ([50, 40, 10, 60, 20, 30], [1, 3, 0, 1, 0, 0])
    assert source.classes == 4


def test_torchvision_s_labels(tmp_path: Path) -> None:
    """As `torchvision.datasets.ImageFolder` numbers 12 folders called by numbers: sorted as text."""
    files = {f"{name}/a.png": flat_color(name) for name in range(12)}
    assert read(opened(tmp_path, files, 12)) == ([0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9], list(range(12)))


def test_leftovers_are_passed_over(tmp_path: Path) -> None:
    leftovers = (
        "__MACOSX/stop/._a.png .DS_Store .git/x.png Thumbs.db readme.md stop/.DS_Store stop/Thumbs.db stop/._a.png "
        "stop/notes.txt stop/__MACOSX/a.png stop/@eaDir/a.png stop/.cache/a.png"
    )
    digest = opened(tmp_path, SIGNS).digest
    source = opened(tmp_path, dict.fromkeys(leftovers.split(), b"x"))
    assert len(source) == 6
    assert source.digest == digest


def test_a_class_without_images_keeps_its_place(tmp_path: Path) -> None:
    (tmp_path / "d" / "empty").mkdir(parents=True)
    assert read(opened(tmp_path, SIGNS, 4))[1] == [0, 2, 3, 0, 3, 3]


def test_the_digest_tells_names_labels_and_sizes(tmp_path: Path) -> None:
    digests = {opened(tmp_path, SIGNS).digest, opened(tmp_path, {}, ["give way", "stop", "Yield"]).digest}
    digests.add(opened(tmp_path, {"stop/a.png": SIGNS["stop/a.png"] + b"x"}).digest)
    (tmp_path / "d" / "stop" / "a.png").rename(tmp_path / "d" / "stop" / "aa.png")
    digests.add(opened(tmp_path, {}).digest)
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("files", "classes", "expected"),
    [
        (SIGNS, 43, r"d: has 3 class folders \(Yield, give way, stop\), but signs has 43 classes.*classes = \["),
        (
            SIGNS,
            ["stop", "yield", "give way"],
            r"d/Yield: the folder name 'Yield' is none of the 3 class names.*'yield'\)",
        ),
        (
            {"train/stop/a.png": b"x", "test/stop/a.png": b"x"},
            2,
            r"d: not recognized.*Found: 2 folders \(test, train\)",
        ),
        ({"stop/a.txt": b"x", "go/b.txt": b"x"}, 2, r"d: not recognized.*Found: 2 folders \(go, stop\)"),
        ({"a.png": b"x"}, 2, r"d: not recognized.*a folder of class folders.*Found: 1 file \(1 \.png\)"),
    ],
)
def test_folders_that_can_t_be_used(tmp_path: Path, files: dict[str, bytes], classes: object, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        opened(tmp_path, files, classes)


def test_an_image_that_can_t_be_decoded_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"stop/deep/er/c\.bmp: is no image"):
        read(opened(tmp_path, SIGNS | {"stop/deep/er/c.bmp": b"no image"}))


def test_a_link_that_points_back(tmp_path: Path) -> None:
    write(tmp_path / "d", SIGNS)
    (tmp_path / "d" / "stop" / "again").symlink_to(tmp_path / "d", target_is_directory=True)
    with pytest.raises(DataError, match="more than 32 folders inside each other; does a link point back"):
        opened(tmp_path, {})


def test_a_known_data_set_in_class_folders(tmp_path: Path) -> None:
    """Its classes have an order already: all of them, and no names whose order as text may be another."""
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    found = card(tmp_path, '[input]\ndataset = "cifar10"\nsize = 8')
    folder = write(tmp_path / "d", {f"{name}/a.png": flat_color(i) for i, name in enumerate(names)})
    assert read(open_images(folder, found)) == (list(range(10)), list(range(10)))
    hundred = write(tmp_path / "h", {f"{i}/a.png": flat_color(i) for i in range(100)})
    with pytest.raises(DataError, match=r"called by numbers \(0, 1, 10, 11, 12, \.\.\.\).*put cifar100's class names"):
        open_images(hundred, card(tmp_path, '[input]\ndataset = "cifar100"\nsize = 8'))
    numbers = json.dumps([str(i) for i in range(100)])
    named = card(tmp_path, f'[input]\ndataset = "cifar100"\nsize = 8\nclasses = {numbers}')
    levels_of, labels_of = read(open_images(hundred, named))
    assert levels_of == labels_of


@pytest.mark.parametrize("names", [("00", "01"), ("000", "001"), ("goldfish", "tench")])
def test_imagenet_in_folders_of_other_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    found = card(tmp_path, '[input]\ndataset = "imagenet"\nsize = 8')
    with pytest.raises(
        DataError, match=rf"2 class folders \({', '.join(names)}\), named by no WordNet id.*n01440764.*all 1000"
    ):
        open_images(write(tmp_path / "d", {f"{name}/a.png": flat_color(1) for name in names}), found)


def test_folders_that_macos_leaves_are_no_class_of_imagenet(tmp_path: Path) -> None:
    found = card(tmp_path, '[input]\ndataset = "imagenet"\nsize = 8')
    files = {"__MACOSX/n01440764/a.JPEG": b"x", "n01440764/a.JPEG": flat_color(9), "n01440764/.DS_Store": b"x"}
    assert read(open_images(write(tmp_path / "d", files | {"n01440764/Thumbs.db": b"x"}), found)) == ([9], [0])


def test_imagenetv2_s_folders_are_called_by_the_classes_numbers(tmp_path: Path) -> None:
    found = card(tmp_path, '[input]\ndataset = "imagenet"\nsize = 8')
    files = {f"{name}/{i}.jpeg": flat_color(name // 10 + i) for name in (10, 9, 999, 0) for i in range(2)}
    source = open_images(write(tmp_path / "d", files | {"LICENSE": b"x", "__MACOSX/0/a.jpeg": b"x"}), found)
    assert read(source) == ([0, 0, 1, 99, 1, 1, 2, 100], [0, 9, 10, 999, 0, 9, 10, 999])
