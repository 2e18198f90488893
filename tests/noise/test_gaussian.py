from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support import graphs
from support.normals import unit_normals

from onnxnoise.engine.layer_noise import in_memory
from onnxnoise.model.network import Network, find_layers
from onnxnoise.records import NoiseSetting
from onnxnoise.words import SigmaScope

Array = npt.NDArray[Any]

NET = (
    "(float[2,3,4,4] x, float[6,3,3,3] w, float[6] b, float[6] ga, float[6] be, float[6] me, float[6] var,"
    " float[6,1,1] cs, float[1,6,1,1] cb, float[6,4,2,2] up, float[4,7] k, float[7] kb, float[1,7,8] lead, float[5,8] fw)"
    " => (float[2,5] y) { c = Conv(x, w, b)  n = BatchNormalization(c, ga, be, me, var)  p = Mul(n, cs)  q = Add(p, cb)"
    " r = ConvTranspose<group = 2>(q, up)  a = Relu(r)  d = Conv(a, pw)  g = GlobalAveragePool(d)  f = Flatten(g)"
    " m = MatMul(f, k)  o = Add(m, kb)  z = Constant<value_ints = [0]>()  u = Unsqueeze(o, z)  v = MatMul(u, lead)"
    " s = Squeeze(v, z)  y = Gemm<transB = 1>(s, fw) }"
).replace("float[4,7] k,", "float[4,8,1,1] pw, float[4,7] k,")


def network(folder: Path, values: dict[str, Any] | None = None) -> Network:
    return find_layers(graphs.load(graphs.model(NET, values), folder))


def normals(seed: int, draw: int, layer: int, k: int, shape: tuple[int, ...]) -> Array:
    """The definition, word for word."""
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence(entropy=seed, spawn_key=(draw, layer, k)))
    ).standard_normal(shape, dtype=np.float32)


def test_the_stream_is_pinned() -> None:
    """NumPy does not promise it for ever."""
    z = unit_normals(40, 0, 1, 0, (16, 3, 3, 3))
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z.ravel()[:3], np.array([0.2818565, -0.980101, 0.8861563], np.float32))
    np.testing.assert_array_equal(z, normals(40, 0, 1, 0, (16, 3, 3, 3)))


def test_each_key_has_its_own_stream() -> None:
    keys = [(40, 0, 1, 0), (30, 0, 1, 0), (40, 1, 1, 0), (40, 0, 2, 0), (40, 0, 1, 1)]
    streams = [unit_normals(*key, (64,)) for key in keys]
    assert len({stream.tobytes() for stream in streams}) == len(keys)


ROLES = {
    "w": (1, 0, (6, 3, 3, 3), False), "b": (1, 1, (6,), False),
    "ga": (2, 0, (6,), False), "be": (2, 1, (6,), False), "me": (2, 2, (6,), False), "var": (2, 3, (6,), False),
    "cs": (2, 4, (6,), False), "cb": (2, 5, (6,), False),
    "up": (3, 0, (6, 4, 2, 2), False), "pw": (4, 0, (4, 8, 1, 1), False),
    "k": (5, 0, (7, 4), True), "kb": (5, 1, (7,), False), "lead": (6, 0, (8, 7), True), "fw": (7, 0, (5, 8), False),
}  # fmt: skip
"""Layer, role, shape in which noise is drawn, and whether the graph stores the transpose."""


@pytest.mark.parametrize("scope", ["tensor", "layer"])
@pytest.mark.parametrize("draw", [0, 3])
def test_noisy_weights_to_the_bit(scope: SigmaScope, draw: int, tmp_path: Path) -> None:
    net = network(tmp_path)
    stored = graphs.initializers(graphs.model(NET))
    seen = set()
    for layer in net.layers:
        drawn = in_memory(layer, net.constants, NoiseSetting(seed=40, sigma_scope=scope, bn="raw"), draw)
        everything = np.concatenate([stored[t.name].astype(np.float64).ravel() for t in layer.tensors])
        for snr in (100.0, 2.5, 1.0):
            noisy, _ = drawn.at(snr)
            for tensor in layer.tensors:
                index, k, shape, transposed = ROLES[tensor.name]
                assert (layer.index, tensor.role, tensor.shape) == (index, k, shape)
                seen.add(tensor.name)
                w = stored[tensor.name]
                z = normals(40, draw, index, k, shape)
                z = (z.T if transposed else z).reshape(w.shape)
                sigma = np.float32((w.astype(np.float64).std() if scope == "tensor" else everything.std()) / snr)
                np.testing.assert_array_equal(noisy[tensor.value].ravel(), (w + sigma * z).ravel())
                assert noisy[tensor.value].dtype == np.float32
                assert noisy[tensor.value].shape == net.constants[tensor.value].shape
    assert seen == ROLES.keys()


def test_one_draw_serves_every_ratio(tmp_path: Path) -> None:
    net = network(tmp_path)
    drawn = in_memory(net.layers[0], net.constants, NoiseSetting(seed=40, sigma_scope="tensor", bn="group"), 0)
    w = net.constants["w"].astype(np.float64)
    loud, soft = (drawn.at(snr)[0]["w"].astype(np.float64) - w for snr in (1.0, 10.0))
    np.testing.assert_allclose(loud, 10 * soft, atol=1e-5)
    same, _ = drawn.at(float("inf"))
    np.testing.assert_array_equal(same["w"], net.constants["w"])


@pytest.mark.parametrize("scope", ["tensor", "layer"])
def test_a_constant_tensor_gets_none(scope: SigmaScope, tmp_path: Path) -> None:
    net = network(tmp_path, {"ga": 1, "b": 0})
    for layer in net.layers[:2]:
        noisy, _ = in_memory(layer, net.constants, NoiseSetting(seed=40, sigma_scope=scope, bn="group"), 0).at(1.0)
        for tensor in layer.tensors:
            same = np.array_equal(noisy[tensor.value], net.constants[tensor.value])
            assert same == (tensor.name in ("ga", "b"))
            assert (tensor.sigma_w == 0) == (tensor.name in ("ga", "b"))


def test_a_single_element_gets_none(tmp_path: Path) -> None:
    text = (
        "(float[N,3,8,8] x, float[4,3,3,3] w, float[1] slope, float[5,4] fw) => (float[N,5] y) {"
        " c = Conv(x, w)  h = PRelu(c, slope)  g = GlobalAveragePool(h)  f = Flatten(g)  y = Gemm<transB = 1>(f, fw) }"
    )
    net = find_layers(graphs.load(graphs.model(text), tmp_path))
    slope = net.layers[1]
    assert (slope.kind, slope.parameters, slope.sigma_w) == ("scale", 1, 0.0)
    noisy, _ = in_memory(slope, net.constants, NoiseSetting(seed=40, sigma_scope="layer", bn="group"), 0).at(1.0)
    np.testing.assert_array_equal(noisy["slope"], net.constants["slope"])
