"""The data sets that a card can name: the known ones, and its own with their classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.imaging import card, write
from support.runfiles import RunFile

from onnxnoise.data.cards import load_bundled
from onnxnoise.data.datasets import CIFAR10, Dataset
from onnxnoise.data.images import open_images
from onnxnoise.errors import CardError
from onnxnoise.results.reading import open_run_file
from onnxnoise.run.card_check import card_text

OWN = '[input]\ndataset = "traffic-signs"\nsize = 48\n'
SIGNS = ("stop", "yield", "give way ahead")


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ("43", Dataset("traffic-signs", 43)),
        (json.dumps(SIGNS), Dataset("traffic-signs", 3, SIGNS)),
        ('"labels.txt"', Dataset("traffic-signs", 3, SIGNS)),
        ('"lists/dos.txt"', Dataset("traffic-signs", 3, SIGNS)),
    ],
)
def test_a_data_set_of_one_s_own(tmp_path: Path, classes: str, expected: Dataset) -> None:
    lines = "\ufeff" + "\r\n".join([*SIGNS, "", ""])
    write(tmp_path, {"labels.txt": "\n".join(SIGNS).encode(), "lists/dos.txt": lines.encode()})
    found = card(tmp_path, f"{OWN}classes = {classes}\nlabel_offset = 1")
    assert found.dataset == expected
    assert found.classes == expected.classes + 1
    assert (found.input.dataset, found.input.size) == ("traffic-signs", 48)
    assert dict(card_text(found))["input.classes"] == (", ".join(SIGNS) if expected.names else "43")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[input]\ndataset = " "\nclasses = 3',
            ["dataset = ' ': must be one of imagenet, cifar10, cifar100, or a name"],
        ),
        (
            f"{OWN}classes = 1",
            ["classes = 1: must be a whole number from 2 to 1000000, a list of names, or a text file"],
        ),
        (f"{OWN}classes = true", ["classes = True"]),
        (f"{OWN}classes = 4.0", ["classes = 4.0"]),
        (f"{OWN}classes = [1, 2]", ["classes = [1, 2]"]),
        (f'{OWN}classes = ["stop"]', ["[input] classes: has 1 class names", "at least 2"]),
        (f'{OWN}classes = ["stop", "go", "stop"]', ["names 1 and 3 are both 'stop'"]),
        (f'{OWN}classes = ["stop", " "]', ["name 2 of 2 is empty"]),
        (f'{OWN}classes = "none.txt"', ["none.txt: the card's labels file can't be read: No such file"]),
        (
            f'{OWN}classes = "../labels.txt"',
            ["classes = '../labels.txt': must be a text file inside the card's folder"],
        ),
        (f'{OWN}classes = "binary.txt"', ["binary.txt: the card's labels file is not UTF-8 text"]),
        (f'{OWN}classes = "gap.txt"', ["gap.txt: name 2 of 3 is empty"]),
        (f'{OWN}classes = "large.txt"', ["large.txt: more than 1048576 bytes"]),
        ('[input]\ndataset = "cifar10"\nclasses = 7', ["classes = 7: must be 10 of them, or left out, for cifar10"]),
        ('[input]\ndataset = "traffic-signs"\nclasses = 43', ["does not say how large", "size"]),
    ],
)
def test_classes_that_can_t_be_used(tmp_path: Path, text: str, expected: list[str]) -> None:
    write(tmp_path, {"binary.txt": b"\xff\xfe\x00", "gap.txt": b"a\n\nb\n", "large.txt": b"x\n" * 600_000})
    with pytest.raises(CardError) as error:
        card(tmp_path, text)
    assert str(error.value).startswith(str(tmp_path))
    for part in expected:
        assert part in str(error.value)


def test_a_known_data_set_takes_names_of_its_classes(tmp_path: Path) -> None:
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    found = card(tmp_path, f'[input]\ndataset = "cifar10"\nclasses = {json.dumps(names)}')
    assert found.dataset == Dataset("cifar10", 10, names, side=32)
    assert card(tmp_path, '[input]\ndataset = "cifar10"\nclasses = 10').dataset == CIFAR10


def test_a_preset_brings_its_size_to_own_images(tmp_path: Path) -> None:
    found = card(tmp_path, '[input]\ndataset = "pets"\nclasses = 37\npreset = "torchvision"').input
    assert (found.size, found.resize, found.crop) == (224, 256, 224)


def test_what_a_run_file_keeps_of_a_card_s_input_is_unchanged() -> None:
    """Another text here would make run files of before runs of something else."""
    assert json.dumps(load_bundled("resnet20-cifar10").input.identity()) == (
        '{"dataset": "cifar10", "size": 32, "resize": null, "crop": null, "interpolation": "nearest", "rounding": "nearest", '
        '"color": "rgb", "layout": "auto", "scale": 255.0, "mean": [0.4914, 0.4822, 0.4465], "std": [0.247, 0.2435, 0.2616], '
        '"label_offset": 0}'
    )


@pytest.mark.parametrize(
    ("dataset", "told", "expected"), [("cifar100", None, 100), ("own", None, None), ("own", 43, 43)]
)
def test_the_classes_of_a_run_file(tmp_path: Path, dataset: str, told: int | None, expected: int | None) -> None:
    made = RunFile(tmp_path / "run.sqlite", dataset=dataset, told=told)
    assert open_run_file(made.path).classes == expected


def test_a_card_without_classes_has_those_that_the_model_tells(tmp_path: Path) -> None:
    found = card(tmp_path, f"{OWN}label_offset = 1")
    assert (found.dataset, found.classes) == (None, None)
    assert dict(card_text(found))["input.classes"] == "as many as the model tells apart"
    counted = found.counted(44)
    assert counted.dataset == Dataset("traffic-signs", 43, by_model=True)
    assert counted.classes is None  # the card itself says none
    assert found.counted(44).counted(7) == counted
    assert card(tmp_path, f"{OWN}classes = 9").counted(44).classes == 9
    with pytest.raises(CardError, match="label_offset = 1 leaves 1 of the model's 2 outputs"):
        found.counted(2)
    with pytest.raises(CardError, match="leaves out its classes, and no model says"):
        open_images(tmp_path, found)
