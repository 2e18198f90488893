"""The export examples refuse helpfully, write cards that bench finds, and check what they wrote."""

from __future__ import annotations

import re
import sys
import tomllib
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from support import graphs, nets

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import export_keras
import export_pytorch
import export_tensorpack
import exporting
from exporting import BUNDLED, Known

from onnxnoise.data.cards import bundled_names, load_bundled, load_card
from onnxnoise.data.input import PRESETS
from onnxnoise.run.loading import card_of

SCRIPTS = (export_pytorch, export_keras, export_tensorpack)
FIRST = {"export_pytorch": "torch", "export_keras": "tensorflow", "export_tensorpack": "tensorflow"}
each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *argv])
    with pytest.raises(SystemExit) as stopped:
        script.main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


# --- What is said of them ---


@each_script
def test_the_packages_at_the_top_are_those_that_a_missing_framework_asks_for(script: ModuleType) -> None:
    pinned = re.compile(r"[\w-]+==[\w.]+")
    assert set(pinned.findall(script.INSTALL)) <= set(pinned.findall(script.__doc__ or ""))
    assert "onnxruntime" in {pin.split("==")[0] for pin in pinned.findall(script.INSTALL)}


@each_script
def test_the_commands_at_the_top_name_options_that_exist(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, monkeypatch, "--help") == 0
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out.partition("options:")[2]))
    assert set(re.findall(r"--[a-z][a-z-]*", script.__doc__ or "")) <= known


@pytest.mark.parametrize("name", sorted(name for name in bundled_names() if load_bundled(name).model.file is None))
def test_every_card_names_its_example(name: str) -> None:
    recipe = load_bundled(name).model.recipe or ""
    (example,) = set(re.findall(r"examples/(export_\w+)\.py", recipe))
    assert example in {script.__name__ for script in SCRIPTS}


def test_presets_are_the_cards() -> None:
    assert tuple(PRESETS) == exporting.PRESETS


# --- Refusals ---


@each_script
def test_a_missing_framework_is_said_with_what_to_install(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing = FIRST[script.__name__]
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.chdir(tmp_path)
    assert run(script, monkeypatch, "--carry", BUNDLED) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {missing} can't be imported here (")
    assert line.endswith(script.INSTALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "argv", "said"),
    [
        (export_pytorch, [], "which model? Give a name of torchvision"),
        (export_pytorch, ["resnet18", "--random", "--weights", "DEFAULT"], "give one of --weights, --checkpoint"),
        (export_pytorch, ["--model", "mynet"], "write MODULE:FUNCTION"),
        (export_pytorch, ["--model", "mynet:make"], "Give --size PIXELS"),
        (export_pytorch, ["resnet18", "--model", "mynet:make"], "leave out MODEL"),
        (export_pytorch, ["resnet56-cifar10"], "resnet56-cifar10: give --checkpoint FILE"),
        (export_pytorch, ["resnet56-cifar10", "--weights", "DEFAULT"], "--weights are torchvision's"),
        (export_pytorch, ["resnet18", "--checkpoint", "none.pt"], "--checkpoint none.pt: no such file"),
        (export_pytorch, ["vgg16", "--carry", BUNDLED], "they don't fit vgg16"),
        (export_pytorch, ["vgg16", "--exporter", "caffe"], "invalid choice: 'caffe'"),
        (export_keras, [], "which model? Give a name of keras.applications"),
        (export_keras, ["none.keras"], "none.keras: no such file"),
        (export_keras, ["none.h5", "--random"], "--random is for a model without weights"),
        (export_keras, ["resnet32-cifar10"], "resnet32-cifar10 comes without weights: give the .h5 or .keras file"),
        (export_keras, ["VGG16", "--carry", BUNDLED], "they don't fit VGG16"),
        (export_keras, ["VGG16", "--preset", "caffe"], "invalid choice: 'caffe'"),
    ],
)
def test_wrong_commands(
    script: ModuleType,
    argv: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *argv])
    with pytest.raises(SystemExit) as stopped:
        script.arguments()
    assert stopped.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def stopped_with(capsys: pytest.CaptureFixture[str], code: int, call: Callable[[], object]) -> str:
    with pytest.raises(SystemExit) as stopped:
        call()
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == code
    return line


def test_only_a_resnet20_can_be_carried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such file" in stopped_with(capsys, 3, lambda: exporting.carried("none.onnx"))
    other = str(nets.bench_files(tmp_path).model)
    assert "120 tensors of a ResNet-20 are missing: bn1.bias" in stopped_with(
        capsys, 3, lambda: exporting.carried(other)
    )
    assert len(exporting.carried(BUNDLED)) == 120


# --- Cards ---

KNOWN = Known(
    framework='Keras "2"',
    source="back\\slash\nand line, naïve 🙂",
    input={"dataset": "imagenet", "preset": "torchvision", "resize": 232, "crop": 224},
    kinds={"conv": 2, "batchnorm": 1},
    parameters=1234,
    published={"metric": "top1", "clean": 0.75, "source": "somewhere"},
)


def options(**given: Any) -> Namespace:
    unset = dict.fromkeys(("card", "dataset", "preset", "scale", "mean", "std"))
    return Namespace(**{**unset, "merged": False, **given})


def written(folder: Path, known: Known = KNOWN, **given: Any) -> Path:
    text = exporting.card_text(options(**given), known, "net")
    assert text is not None
    path = folder / "net.toml"
    path.write_text(text)
    return path


def test_what_is_known_becomes_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/export_keras.py", "my net.h5", "--merged"])
    card = load_card(written(tmp_path))
    assert (card.model.name, card.model.framework, card.model.source) == ("net", KNOWN.framework, KNOWN.source)
    assert card.model.recipe == "python examples/export_keras.py 'my net.h5' --merged"
    assert (card.input.resize, card.input.crop, card.input.interpolation, card.input.scale) == (
        232,
        224,
        "bilinear",
        255,
    )
    assert (card.structure.layers, card.structure.parameters) == (3, 1234)
    assert card.structure.note == "2 convolutions, 1 batch norms"
    assert (card.published.metric, card.published.clean) == ("top1", 0.75)


def test_a_merged_file_has_not_the_frameworks_layers(tmp_path: Path) -> None:
    assert load_card(written(tmp_path, merged=True)).structure.layers is None


def test_what_the_user_says_of_pixels_takes_the_place_of_what_is_known(tmp_path: Path) -> None:
    card = load_card(written(tmp_path, scale=255.0, mean=[0.5, 0.4, 0.3], std=[1.0, 2.0, 3.0]))
    assert (card.input.dataset, card.input.crop) == ("imagenet", 224)
    assert (card.input.scale, card.input.mean, card.input.std) == (255, (0.5, 0.4, 0.3), (1, 2, 3))
    assert "preset" not in tomllib.loads((tmp_path / "net.toml").read_text())["input"]
    assert load_card(written(tmp_path, preset="keras-caffe")).input.color == "bgr"


def test_sizes_are_for_the_models_own_data_set(tmp_path: Path) -> None:
    card = load_card(written(tmp_path, dataset="cifar10"))
    assert (card.input.size, card.input.resize, card.input.mean) == (32, None, PRESETS["torchvision"].mean)
    card = load_card(written(tmp_path, dataset="cifar100", size=64, scale=255.0))
    assert (card.input.size, card.input.resize, card.input.mean) == (64, None, (0, 0, 0))
    card = load_card(written(tmp_path, size=448))
    assert (card.input.size, card.input.resize, card.input.std) == (448, 464, PRESETS["torchvision"].std)


def test_a_bundled_card_is_named_in_the_files_metadata(tmp_path: Path) -> None:
    path = graphs.saved(nets.residual(nets.weights()), tmp_path)
    known = Known("PyTorch", "random", {}, None, 100, bundled=BUNDLED)
    assert exporting.card_text(options(), known, "net") is None
    exporting.finish(options(), known, path, None)
    assert card_of(str(path), path, None, {p.key: p.value for p in onnx.load(path).metadata_props}) == load_bundled(
        BUNDLED
    )
    exporting.finish(options(card="resnet18"), known, path, None)
    assert card_of(str(path), path, None, {p.key: p.value for p in onnx.load(path).metadata_props}) == load_bundled(
        "resnet18"
    )


def test_nothing_known_of_the_images_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    known = Known("Keras", "mine.h5", {}, None, 100)
    line = stopped_with(capsys, 2, lambda: exporting.card_text(options(), known, "net"))
    assert "pass --card NAME, or --dataset" in line
    line = stopped_with(capsys, 2, lambda: exporting.card_text(options(card="../secret"), known, "net"))
    assert "no bundled card has that name" in line
    assert exporting.card_text(options(card=BUNDLED), known, "net") is None


@pytest.mark.parametrize("beside", ["net.toml", "net.onnx.toml"])
def test_another_card_beside_the_file_is_never_overwritten(
    beside: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net.onnx"
    (tmp_path / beside).write_text("theirs")
    for text in ("ours", None):
        line = stopped_with(capsys, 3, lambda text=text: exporting.card_beside(out, text))  # type: ignore[misc]
        assert f"{beside} is there and would be taken for this file's card" in line


def test_a_card_of_the_examples_is_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "net.onnx"
    written(tmp_path)
    exporting.card_beside(out, "ours")
    assert "net.toml is there" in stopped_with(capsys, 3, lambda: exporting.card_beside(out, None))


# --- Checks of the written file ---


def test_weights_that_the_exporter_changed_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = nets.weights()
    path = graphs.saved(nets.residual(weights), tmp_path)
    turned = {name: np.ascontiguousarray(value.T)[::-1] for name, value in weights.items()}
    exporting.unchanged(path, turned)
    assert "all 12 tensors are in the file unchanged" in capsys.readouterr().out
    moved = np.nextafter(weights["stem_weight"].ravel()[0], np.float32(9))
    weights["stem_weight"].ravel()[0] = moved
    line = stopped_with(capsys, 3, lambda: exporting.unchanged(path, weights))
    assert line.endswith("the exporter changed 1 of 12 tensors: stem_weight")


def test_outputs_that_differ_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = nets.residual(nets.weights())
    path = graphs.saved(model, tmp_path)
    images = nets.as_input(nets.pictures(2))
    expected = graphs.run(model, images)
    exporting.agree(path, images, expected, "Keras")
    assert "outputs agree with Keras's on 2 random images: relative difference " in capsys.readouterr().out
    line = stopped_with(capsys, 3, lambda: exporting.agree(path, images, expected * 1.001, "Keras"))
    assert re.search(r"its outputs differ from Keras's by 1.0e-03, relative to the largest", line)


def test_probabilities_are_compared_as_logits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = nets.weights()
    weights["head_weight"] *= 20  # one class has nearly all
    model = nets.residual(weights, softmax=True)
    path = graphs.saved(model, tmp_path)
    images = nets.as_input(nets.pictures(2))
    expected = graphs.run(model, images)
    exporting.agree(path, images, expected, "Keras")
    capsys.readouterr()
    sharper = expected.astype(np.float64) ** 1.05
    sharper /= sharper.sum(axis=1, keepdims=True)
    assert np.abs(sharper - expected).max() < exporting.CLOSE
    assert "its outputs differ" in stopped_with(capsys, 3, lambda: exporting.agree(path, images, sharper, "Keras"))


def test_random_values_leave_no_tensor_constant_and_no_variance_negative() -> None:
    rng = np.random.default_rng(0)
    for name, shape in (("kernel", (3, 3, 8, 16)), ("gamma", (16,)), ("moving_variance", (500,)), ("beta", (2,))):
        value = exporting.random_value(name, shape, rng)
        assert (value.dtype, value.shape) == (np.float32, shape)
        assert len(np.unique(value)) == value.size
    assert exporting.random_value("running_var", (1000,), rng).min() >= 0.5
