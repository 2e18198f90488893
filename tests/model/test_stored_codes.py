"""Bits of a quantized file's weights flip in its own integers, with its scales and zero points, whatever the type and layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import graphs, nets

from onnxnoise.engine.layer_noise import in_memory
from onnxnoise.model.classifier import load_classifier
from onnxnoise.model.network import Network
from onnxnoise.model.policies.batch_norms import noise_layers
from onnxnoise.noise.models import parse_chain
from onnxnoise.records import NoiseSetting

Array = Any


def quantized(
    folder: Path, *, conv: Any = np.int8, zero: int = 0, axis: int | None = 0
) -> tuple[Network, dict[str, Array]]:
    """A network of a convolution and a dense layer whose weights are dequantized, and its integers, scales and zero points."""
    rng = np.random.default_rng(5)
    info = np.iinfo(conv)
    codes = rng.integers(info.min, info.max + 1, (6, 3, 3, 3), endpoint=False).astype(conv)
    dense = rng.integers(-127, 128, (6, 5)).astype(np.int8)
    scale = np.float32(0.013) if axis is None else rng.uniform(0.001, 0.02, 6).astype(np.float32)
    zeros = np.full(np.shape(scale), zero, conv)
    tensors = {
        "wq": codes,
        "ws": np.asarray(scale),
        "wz": zeros,
        "dq": dense,
        "ds": rng.uniform(0.001, 0.02, 5).astype(np.float32),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], **({} if axis is None else {"axis": axis})),
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("DequantizeLinear", ["dq", "ds"], ["d"], axis=1),
        helper.make_node("MatMul", ["f", "d"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    path = folder / "q.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return noise_layers(load_classifier(path), "group", "kernels"), tensors


def flipped(code: int, u: Array, p: float, bits: int, signed: bool) -> int:
    """One code with the bits flipped whose numbers are below p."""
    word = code % 2**bits
    for i in range(bits):
        word ^= int(u[i] < p) << i
    return word - 2**bits if signed and word >= 2 ** (bits - 1) else word


@pytest.mark.parametrize(
    ("kind", "zero", "axis"), [(np.int8, 0, 0), (np.int8, 3, None), (np.uint8, 131, 0), (np.uint8, 120, None)]
)
def test_bits_flip_in_the_files_own_integers(kind: Any, zero: int, axis: int | None, tmp_path: Path) -> None:
    network, tensors = quantized(tmp_path, conv=kind, zero=zero, axis=axis)
    setting = NoiseSetting(parse_chain("bitflip"), analog="kernels")
    conv, dense = network.layers
    for layer, codes, scale, zeros in (
        (conv, tensors["wq"], tensors["ws"], zero),
        (dense, tensors["dq"].T, tensors["ds"], 0),
    ):
        (tensor,) = layer.tensors
        assert tensor.codes is not None
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence(40, spawn_key=(1, layer.index, 0))))
        u = random.random((*codes.shape, 8), dtype=np.float32)
        noisy = in_memory(layer, network.constants, setting, 1).at(0.05)[0][tensor.value]
        found = noisy.T if layer is dense else noisy
        changed = 0
        for place in np.ndindex(codes.shape):
            code = flipped(int(codes[place]), u[place], 0.05, 8, codes.dtype == np.int8)
            row = scale if scale.ndim == 0 else scale[place[0]]
            assert found[place] == np.float32(code - zeros) * row
            changed += code != codes[place]
        assert changed > codes.size / 5


def test_other_numbers_of_bits_quantize_the_weights_anew(tmp_path: Path) -> None:
    network, tensors = quantized(tmp_path)
    layer = network.layers[0]
    setting = NoiseSetting(parse_chain("bitflip:bits=4"), analog="kernels")
    noisy = in_memory(layer, network.constants, setting, 0).at(0.0)[0][layer.tensors[0].value]
    w = tensors["wq"] * tensors["ws"][:, None, None, None]
    a = float(np.abs(w).max())
    np.testing.assert_allclose(noisy, np.rint(w / a * 7) * a / 7, rtol=1e-6)


def test_a_file_of_floats_has_no_codes(tmp_path: Path) -> None:
    path = graphs.saved(nets.residual(nets.weights()), tmp_path, "floats.onnx")
    network = noise_layers(load_classifier(path), "group")
    assert not any(tensor.codes for layer in network.layers for tensor in layer.tensors)


def wide(folder: Path, kind: int, **blocks: int) -> tuple[Path, Array, Array, Array]:
    """A file with a dense layer of 256 x 300 weights, its codes, scales (more than 1024 bytes) and zero points (in blocks, too)."""
    rng = np.random.default_rng(7)
    low, high = (-8, 8) if kind == TensorProto.INT4 else (-128, 128)
    rows = (256 // blocks["block_size"], 300) if blocks else (300,)
    codes, zeros = rng.integers(low, high, (256, 300)), rng.integers(low // 4, high // 4, rows)
    scale = rng.uniform(0.001, 0.02, rows).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0 if blocks else 1, **blocks),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 256, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 300])],
        [
            numpy_helper.from_array(codes.astype(helper.tensor_dtype_to_np_dtype(kind)), "q"),
            numpy_helper.from_array(scale, "s"),
            numpy_helper.from_array(zeros.astype(helper.tensor_dtype_to_np_dtype(kind)), "z"),
        ],
    )
    path = folder / "wide.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path, codes, scale, zeros


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize(("kind", "blocks"), [(TensorProto.INT8, {}), (TensorProto.INT4, {"block_size": 16})])
def test_large_scales_and_zero_points_are_read_from_a_file_or_its_link(
    linked: bool, kind: int, blocks: dict[str, int], tmp_path: Path
) -> None:
    path, codes, scale, zeros = wide(tmp_path, kind, **blocks)
    if linked:  # as in the cache of Hugging Face
        for folder in ("blobs", "snapshot"):
            (tmp_path / folder).mkdir()
        path.rename(tmp_path / "blobs" / "0123abc")
        path = tmp_path / "snapshot" / path.name
        path.symlink_to(Path("../blobs/0123abc"))
    network = noise_layers(load_classifier(path), "group", "kernels")
    (layer,) = network.layers
    (tensor,) = layer.tensors
    assert tensor.codes is not None
    scales, zero_points = (np.broadcast_to(each, codes.shape) for each in (tensor.codes.scale, tensor.codes.zero))
    weights = network.constants[tensor.value]
    for i, j in ((0, 0), (15, 299), (16, 0), (100, 77), (255, 299)):
        place = (i // 16, j) if blocks else (j,)
        assert scales[i, j] == scale[place]
        assert zero_points[i, j] == zeros[place]
        assert weights[i, j] == np.float32(codes[i, j] - zeros[place]) * scale[place]
