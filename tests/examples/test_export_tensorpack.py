"""The zoo's definitions make the zoo's variables, and a file that does not fit them is refused with what is wrong."""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from export_tensorpack import arguments, from_carried, from_npz, main, randomly, training_only
from exporting import BUNDLED
from tensorpack_zoo import NETWORKS, kinds, variables

from onnxnoise.data.cards import load_bundled

Weights = dict[str, npt.NDArray[np.float32]]

PUBLISHED = {
    "resnet18": "666ede5ec62931ea",
    "resnet34": "41b28148f2f175a3",
    "resnet50": "fa3afb141d67d214",
    "resnet50-se": "dd493f14c9abb354",
    "shufflenet-v2-0.5x": "1220b582148911cc",
    "shufflenet-v2-1.0x": "81a1d3ad817cc4f8",
    "vgg16": "9b48fd5ec2a526bc",
}
"""SHA-256 of the sorted lines `name HxWxIxO` of the variables that the network functions of tensorpack's own examples
(imagenet-resnet.py, shufflenet.py, vgg16.py) made with tensorpack 0.11 on TensorFlow 2.15."""
SMALL = "shufflenet-v2-0.5x"


# --- Names, shapes, counts ---


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_variables_are_those_of_tensorpacks_own_examples(name: str) -> None:
    rows = sorted(f"{variable} {'x'.join(map(str, shape))}" for variable, shape in variables(name).items())
    assert hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16] == PUBLISHED[name]


def test_some_variables_by_hand() -> None:
    assert variables("resnet50")["group0/block0/convshortcut/bn/variance/EMA"] == (256,)
    assert variables("resnet50-se")["group3/block2/fc1/W"] == (2048, 128)
    assert variables("shufflenet-v2-1.0x")["stage3/block0/shortcut_dconv/W"] == (3, 3, 116, 1)
    assert variables("vgg16")["fc6/W"] == (7 * 7 * 512, 4096)
    assert variables("resnet56-cifar10")["res3.0/shortcut/b"] == (64,)


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_and_parameters_are_the_cards(name: str) -> None:
    structure, shapes = load_bundled(name).structure, variables(name)
    assert structure.parameters == sum(int(np.prod(shape)) for shape in shapes.values())
    assert structure.layers == sum(kinds(shapes).values())
    words = {"conv": "convolutions", "batchnorm": "batch norms", "dense": "dense"}
    for kind, count in kinds(shapes).items():
        assert f"{count} {words[kind]}" in (structure.note or "")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_zoos_file_is_the_cards(name: str) -> None:
    assert f"/{NETWORKS[name].npz}," in (load_bundled(name).model.source or "")


def test_carried_weights_have_tensorpacks_names_axes_and_values() -> None:
    values, shapes = from_carried(BUNDLED), variables(BUNDLED)
    assert {name: value.shape for name, value in values.items()} == shapes
    assert values["linear/W"].flags.c_contiguous is False, "a transposed view of PyTorch's (out, in)"
    assert (values["bn0/variance/EMA"] > 0).all()
    assert not np.array_equal(values["res1.0/bn1/gamma"], values["res1.0/bn2/gamma"])


# --- .npz files ---


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3, np.float32))
    return stream.getvalue()


def archive(folder: Path, arrays: dict[str, npt.NDArray[np.generic]]) -> Path:
    np.savez(folder / "zoo.npz", **arrays)  # type: ignore[arg-type]
    return folder / "zoo.npz"


@pytest.fixture(scope="module")
def weights() -> Weights:
    return randomly(variables(SMALL), seed=1)


def test_a_file_with_the_zoos_names_is_read(weights: Weights, tmp_path: Path) -> None:
    extra = {"global_step:0": np.int64(3), "learning_rate:0": np.float32(0.1), "EMA/cost/EMA:0": np.float32(1)}
    path = archive(tmp_path, {**{f"{name}:0": value for name, value in weights.items()}, **extra})
    read = from_npz(path, variables(SMALL))
    assert list(read) == list(variables(SMALL))
    assert all(np.array_equal(read[name], weights[name]) for name in weights)


def test_half_precision_is_read_as_float32(weights: Weights, tmp_path: Path) -> None:
    path = archive(tmp_path, {name: value.astype(np.float16) for name, value in weights.items()})
    assert {value.dtype for value in from_npz(path, variables(SMALL)).values()} == {np.dtype(np.float32)}


def test_what_does_not_fit_is_listed(weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = {name: value for name, value in weights.items() if not name.startswith("conv5/bn")}
    changed["linear/W"] = changed["linear/W"][:, :10]
    changed["conv6/W"] = np.zeros((1, 1, 2, 2), np.float32)
    with pytest.raises(SystemExit) as stopped:
        from_npz(archive(tmp_path, changed), variables(SMALL))
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 3
    assert line.startswith("error: ")
    assert "zoo.npz does not fit this model. 4 missing: conv5/bn/beta [1024], conv5/bn/gamma [1024]" in line
    assert "1 unexpected: conv6/W [1, 1, 2, 2]" in line
    assert "1 of another shape: linear/W is [1024, 10], not [1024, 1000]" in line


def test_another_models_file_is_refused_before_tensorflow_is_needed(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["export_tensorpack.py", "resnet18", str(archive(tmp_path, dict(weights)))])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 3
    assert "102 missing" not in (text := capsys.readouterr().err), "they share linear/b"
    assert "does not fit this model. 100 missing: " in text
    assert "and 92 more" in text


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x80\x04]", b"no archive", npy()])
def test_what_is_no_npz_is_refused(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "zoo.npz").write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        from_npz(tmp_path / "zoo.npz", variables(SMALL))
    assert stopped.value.code == 3
    assert "zoo.npz can't be read as .npz: " in capsys.readouterr().err


def test_what_belongs_to_training_alone_is_told_from_weights() -> None:
    assert not any(training_only(name) for network in NETWORKS for name in variables(network))
    ours = (
        "global_step",
        "learning_rate",
        "conv0/W/Momentum",
        "EMA/cost/EMA",
        "train-error-top1-summary/EMA",
        "conv0/W/Adam_1",
    )
    assert all(map(training_only, ours))


# --- The command ---


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "which model? resnet18, resnet34"),
        (["resnet19"], "invalid choice: 'resnet19'"),
        (["resnet18"], "where are the weights? Give one of: a .npz file (the zoo's is ImageNet-ResNet18.npz)"),
        (["resnet18", "a.npz", "--random"], "where are the weights?"),
        (["resnet32-cifar10"], "where are the weights? Give one of: a .npz file or checkpoint"),
        (["resnet18", "--carry", BUNDLED], "--carry brings the weights of a ResNet-20: they don't fit resnet18"),
    ],
)
def test_wrong_commands(
    argv: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["export_tensorpack.py", *argv])
    with pytest.raises(SystemExit) as stopped:
        arguments()
    assert stopped.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
