"""What lies beside a model, and the names of models, as keys of a card."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from onnxnoise.data.drafts.beside import read_beside
from onnxnoise.data.drafts.hints import by_name, usual_geometries, usual_numbers
from onnxnoise.data.drafts.toml_text import Entry, card_toml
from onnxnoise.errors import CardError

VIT = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}
CONVNEXT = {
    "crop_pct": 0.875,
    "do_resize": True,
    "image_mean": [1, 2, 3],
    "image_std": [4, 5, 6],
    "resample": 3,
    "size": 224,
}
CLIPPED = {
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "size": {"shortest_edge": 256},
    "do_normalize": False,
    "do_rescale": True,
    "rescale_factor": 1 / 127.5,
    "rescale_offset": True,
    "do_flip_channel_order": True,
}
TIMM = {
    "architecture": "resnet50",
    "num_classes": 3,
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "test_input_size": [3, 288, 288],
        "crop_pct": 0.95,
        "test_crop_pct": 1.0,
        "crop_mode": "center",
        "interpolation": "bicubic",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "label_names": ["a", "b", "c"],
    },
}


@pytest.mark.parametrize(
    ("files", "side", "keys"),
    [
        (
            {"preprocessor_config.json": VIT},
            224,
            {"size": 224, "interpolation": "bilinear", "scale": 255, "mean": [0.5] * 3, "std": [0.5] * 3},
        ),
        (
            {"preprocessor_config.json": CONVNEXT},
            224,
            {"resize": 256, "crop": 224, "interpolation": "bicubic", "scale": 255, "mean": [1, 2, 3], "std": [4, 5, 6]},
        ),
        (
            {"preprocessor_config.json": CLIPPED},
            224,
            {"resize": 256, "crop": 224, "scale": 127.5, "mean": 1, "std": 1, "color": "bgr"},
        ),
        (
            {"config.json": TIMM},
            224,
            {
                **{"resize": 235, "crop": 224, "interpolation": "bicubic", "scale": 255},
                **{"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
            },
        ),
        (
            {"config.json": TIMM},
            288,
            {
                **{"resize": 288, "crop": 288, "interpolation": "bicubic", "scale": 255},
                **{"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
            },
        ),
    ],
)
def test_a_configuration_beside(files: dict[str, Any], side: int, keys: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    for model in (tmp_path / "m.onnx", tmp_path / "onnx" / "model.onnx"):
        found = read_beside(model, side)
        assert found.hint is not None
        assert found.hint.keys == keys
        assert found.files == tuple(files)
        assert found.classes == (("a", "b", "c") if "config.json" in files else ())


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"0": "cat", "1": "dog"}, ("cat", "dog")),
        ({"1": "dog", "0": "cat"}, ("cat", "dog")),
        ({"0": "cat", "2": "dog"}, ()),
        ({"0": "cat", "1": "cat"}, ()),
        ({"0": "cat", "1": ""}, ()),
        ({"x": "cat", "1": "dog"}, ()),
        ([1, 2], ()),
    ],
)
def test_names_of_classes(names: object, expected: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"id2label": names}))
    assert read_beside(tmp_path / "m.onnx", None).classes == expected


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_broken_configuration_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CardError, match=r"config\.json: lies beside the model"):
        read_beside(tmp_path / "m.onnx", None)


def test_strange_values_are_passed_over(tmp_path: Path) -> None:
    strange = {
        "size": {"shortest_edge": -3},
        "image_mean": "x",
        "image_std": [0, 1],
        "resample": 99,
        "rescale_factor": None,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(strange))
    found = read_beside(tmp_path / "m.onnx", None).hint
    assert found is not None
    assert found.keys == {"scale": 1}


@pytest.mark.parametrize(
    ("name", "layout", "preset"),
    [
        ("resnet50", "nchw", "torchvision"),
        ("wide-resnet50-2", "nchw", "torchvision"),
        ("ResNet50", "nhwc", "keras-caffe"),
        ("MobileNetV2", "nhwc", "keras-tf"),
        ("DenseNet121", "nhwc", "keras-torch"),
        ("resnet50-mine", "nchw", None),
        ("model", "nhwc", None),
    ],
)
def test_a_name_tells_a_preset(name: str, layout: str, preset: str | None) -> None:
    found = by_name(name, layout)
    assert (found and found.keys) == (preset and {"preset": preset})


def test_the_usual_ones_differ() -> None:
    for channels, side in ((3, 224), (3, 32), (1, 28)):
        keys = [str(hint.keys) for hint in usual_numbers(channels, side)]
        assert len({*keys}) == len(keys) >= 4
    assert [hint.keys.get("resize") for hint in usual_geometries(224)] == [256, 256, None, None]


def test_what_is_written_is_read_back() -> None:
    names = ['quo"te', "back\\slash", "\N{GRINNING FACE}", "tab\tand\x07bell", "#no comment"] * 4
    entries = [
        Entry("model", "name", 'a "b"', "A comment\nof two lines."),
        Entry("input", "classes", names, question="Which\x1b[31m?"),
        Entry("input", "mean", [0.1307, 1e-7, 3]),
        Entry("measured", "clean", question="How good? " * 30),
    ]
    read = tomllib.loads(card_toml(entries, "Head\n[evil]"))
    assert read["input"]["mean"] == [0.1307, 1e-7, 3]
    assert read["input"]["classes"] == [name.replace("\t", "\ufffd").replace("\x07", "\ufffd") for name in names]
    assert read.keys() == {"model", "input"}
