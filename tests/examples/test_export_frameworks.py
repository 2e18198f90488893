"""The export examples, run as a user runs them, where their framework is installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support.command import onnxnoise

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import export_keras
import export_pytorch
import export_tensorpack
import exporting
import tensorpack_zoo
from exporting import BUNDLED

from onnxnoise import open_model

EXAMPLES = Path(exporting.__file__).parent


def export(script: ModuleType, out: Path, *argv: str) -> str:
    """As a user runs it; returns what it said."""
    command = [sys.executable, str(EXAMPLES / f"{script.__name__}.py"), *argv, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def the_bundled_network(out: Path) -> None:
    ours, theirs = open_model(str(out)), open_model(BUNDLED)
    assert [(a.kind, a.parameters, a.sigma_w) for a in ours.layers] == [
        (b.kind, b.parameters, pytest.approx(b.sigma_w, rel=1e-6)) for b in theirs.layers
    ]
    assert ours.network.notices == ()


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [module for module in modules if find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not in the test extra: it is gigabytes")


@needs("torch", "torchvision")
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_pytorch_for_real(exporter: str, tmp_path: Path) -> None:
    said = export(export_pytorch, tmp_path / "net.onnx", "--carry", BUNDLED, "--exporter", exporter)
    assert "all 120 tensors are in the file unchanged" in said
    assert "outputs agree with PyTorch's" in said
    the_bundled_network(tmp_path / "net.onnx")


@needs("torch", "torchvision")
def test_a_checkpoint_for_real(tmp_path: Path) -> None:
    import torch

    values = {f"module.{name}": torch.tensor(value) for name, value in exporting.carried(BUNDLED).items()}
    torch.save({"state_dict": values}, tmp_path / "net.pt")
    export(export_pytorch, tmp_path / "net.onnx", BUNDLED, "--checkpoint", str(tmp_path / "net.pt"))
    the_bundled_network(tmp_path / "net.onnx")


@needs("tensorflow", "keras", "tf2onnx")
def test_keras_for_real(tmp_path: Path) -> None:
    said = export(export_keras, tmp_path / "net.onnx", "--carry", BUNDLED)
    assert "all 120 tensors are in the file unchanged" in said
    the_bundled_network(tmp_path / "net.onnx")


@needs("tensorflow", "tensorpack", "tf2onnx")
def test_tensorpack_for_real(tmp_path: Path) -> None:
    said = export(export_tensorpack, tmp_path / "net.onnx", "--carry", BUNDLED)
    assert "all 120 tensors are in the file unchanged" in said
    the_bundled_network(tmp_path / "net.onnx")


@needs("tensorflow", "tensorpack", "tf2onnx")
def test_a_zoo_file_for_real(tmp_path: Path) -> None:
    name = "shufflenet-v2-0.5x"
    values = export_tensorpack.randomly(tensorpack_zoo.variables(name), seed=1)
    np.savez(tmp_path / "zoo.npz", **{f"{key}:0": value for key, value in values.items()})  # type: ignore[arg-type]
    export(export_tensorpack, tmp_path / "net.onnx", name, str(tmp_path / "zoo.npz"))
    assert onnxnoise("cards", "check", tmp_path / "net.onnx").code == 0


ODD_KERAS = """
import sys, numpy, tensorflow
layers, rng = tensorflow.keras.layers, numpy.random.default_rng(0)
image = tensorflow.keras.Input((32, 32, 3))
prepared = layers.Normalization(mean=[100.0, 110.0, 120.0], variance=[9.0, 4.0, 1.0])(image)
x = layers.BatchNormalization(scale=False)(layers.SeparableConv2D(8, 3, use_bias=False)(prepared))
x = layers.BatchNormalization()(layers.Dense(16)(layers.GlobalAveragePooling2D()(layers.ReLU(6.0)(x))))
model = tensorflow.keras.Model(image, layers.Dense(10)(x))
for layer in model.layers:
    if type(layer).__name__ != "Normalization":
        layer.set_weights([abs(rng.normal(1, 0.5, value.shape)) for value in layer.get_weights()])
model.save(sys.argv[1])
"""
"""Preparation inside the model, a separable convolution, a batch norm without scale, and one on rank 2."""


@needs("tensorflow", "keras", "tf2onnx")
def test_an_odd_keras_model_for_real(tmp_path: Path) -> None:
    saved = str(tmp_path / "odd.keras")
    subprocess.run([sys.executable, "-c", ODD_KERAS, saved], check=True, capture_output=True, timeout=600)
    export(export_keras, tmp_path / "net.onnx", saved, "--dataset", "cifar10", "--scale", "1")
    layers = open_model(str(tmp_path / "net.onnx")).layers
    assert [layer.kind for layer in layers] == ["conv", "conv", "batchnorm", "dense", "batchnorm", "dense"]
    assert [layer.parameters for layer in layers] == [27, 24, 32, 144, 64, 170]
    assert onnxnoise("cards", "check", tmp_path / "net.onnx").code == 0
