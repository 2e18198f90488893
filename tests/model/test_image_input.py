"""What the graph says about its image input: type, layout, and the scale and zero point of an integer one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from support import graphs, nets
from support.command import onnxnoise, refused

from onnxnoise.errors import ModelError
from onnxnoise.model.classifier import load_classifier

WEIGHT = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)
HEAD = "c = Conv <kernel_shape = [8, 8]> (x, weight)\ny = Flatten (c)"


def quantized(folder: Path, kind: str, body: str, zero: object) -> Path:
    given = {"scale": np.float32(0.5), "zero": zero, "weight": WEIGHT}
    declared = ", ".join(
        f"{kind if name == 'zero' else 'float'}[{','.join(map(str, v.shape))}] {name}" for name, v in given.items()
    )
    text = f"({kind}[N, 8, 8, 3] image, {declared}) => (float[N, 4] y) {{\n{body}\n{HEAD}\n}}"
    return graphs.saved(graphs.model(text, given), folder, "net.onnx")


@pytest.mark.parametrize("first", ["transpose", "dequantize"])
@pytest.mark.parametrize(("kind", "zero"), [("int8", np.int8(-128)), ("uint8", np.uint8(3))])
def test_scale_and_zero_point_of_an_integer_input(tmp_path: Path, kind: str, zero: np.generic, first: str) -> None:
    body = {
        "transpose": "t = Transpose <perm = [0, 3, 1, 2]> (image)\nx = DequantizeLinear (t, scale, zero)",
        "dequantize": "t = DequantizeLinear (image, scale, zero)\nx = Transpose <perm = [0, 3, 1, 2]> (t)",
    }[first]
    image = load_classifier(quantized(tmp_path, kind, body, zero)).image
    assert (image.dtype, image.layout, image.quantization) == (kind, "nhwc", (0.5, int(zero)))


def test_an_integer_input_that_is_cast_has_none(tmp_path: Path) -> None:
    body = "f = Cast <to = 1> (image)\nx = Transpose <perm = [0, 3, 1, 2]> (f)"
    assert load_classifier(quantized(tmp_path, "int8", body, np.int8(0))).image.quantization is None


def test_other_integers_are_refused(tmp_path: Path) -> None:
    body = "f = Cast <to = 1> (image)\nx = Transpose <perm = [0, 3, 1, 2]> (f)"
    with pytest.raises(ModelError, match=r"type INT16 .* is float32, float16, uint8 or int8"):
        load_classifier(quantized(tmp_path, "int16", body, np.int16(0)))


def test_an_int8_model_has_the_hits_of_its_twin_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = nets.bench_files(tmp_path, nhwc_uint8=True)
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text('[input]\ndataset = "cifar10"\nscale = 1\n')
    command = ("--data", "test_batch.bin", "--card", "tiny.toml", "--provider", "cpu", "--snr", "10,3", "--json", "-")
    expected = onnxnoise("bench", "tiny.onnx", *command).json
    model = onnx.load(files.model)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT8
    model.graph.node[0].CopyFrom(onnx.helper.make_node("DequantizeLinear", ["image", "one", "low"], ["f"]))
    numbers = {"one": np.float32(1), "low": np.int8(-128)}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array(value), name) for name, value in numbers.items()
    )
    onnx.save(model, "int8.onnx")
    result = onnxnoise("bench", "int8.onnx", *command).json
    assert (result["clean"], result["cells"]) == (expected["clean"], expected["cells"])
    assert result["clean"]["top1_hits"] > 20
    refused(
        onnxnoise(
            "bench", "int8.onnx", "--out", "new.sqlite", "--card", "resnet20-cifar10", *command[:2], *command[4:]
        ),
        *(3, "int8 input stands for numbers from 0 to 255", "correct scale, mean and std"),
    )
