"""Weights perturbed where they are used are NumPy's to the bit, and a session that takes them as inputs needs no other for the next variant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import graphs, nets

from onnxnoise.engine.device_noise import Uploader
from onnxnoise.engine.segments import Cutter
from onnxnoise.model.classifier import load_classifier
from onnxnoise.model.network import Network
from onnxnoise.model.policies.batch_norms import LayerNoise, noise_layers
from onnxnoise.noise.gaussian import perturbed
from onnxnoise.records import NoiseLayer, Policy
from onnxnoise.runtime import session
from onnxnoise.runtime.providers import find_provider
from onnxnoise.runtime.session import Session, to_device, to_host

CPU = find_provider("cpu")


@pytest.fixture(scope="module")
def uploader() -> Uploader:
    return Uploader(CPU)


def network(folder: Path, policy: Policy = "group") -> Network:
    return noise_layers(load_classifier(graphs.saved(nets.residual(nets.weights()), folder, "tiny.onnx")), policy)


def drawn(of: Network, layer: NoiseLayer, draw: int = 0, policy: Policy = "group") -> LayerNoise:
    return LayerNoise.drawn(layer, of.constants, seed=40, draw=draw, scope="tensor", policy=policy)


@pytest.mark.parametrize("sigma", [0.7, 1e-3, 3e-38, 1e-44, 1e30])
@pytest.mark.parametrize("shape", [(1,), (7,), (16, 3, 3, 3), (129, 65)])
def test_the_sum_is_rounded_twice_as_in_numpy(uploader: Uploader, shape: tuple[int, ...], sigma: float) -> None:
    rng = np.random.default_rng(0)
    w, z = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    made = uploader.perturbed(to_device(w, CPU), to_device(z, CPU), np.float32(sigma))
    assert to_host(made).tobytes() == perturbed(w, z, np.float32(sigma)).tobytes()


def test_a_fused_multiply_add_would_be_seen() -> None:
    """The bits that rounding once gives, from float64, are not those that rounding twice gives: the test above can fail."""
    rng = np.random.default_rng(0)
    w, z = (rng.standard_normal((129, 65), dtype=np.float32) for _ in range(2))
    once = (w.astype(np.float64) + z.astype(np.float64) * np.float64(np.float32(0.7))).astype(np.float32)
    assert once.tobytes() != perturbed(w, z, np.float32(0.7)).tobytes()


def test_no_sigma_leaves_the_weights_as_they_are(uploader: Uploader) -> None:
    w = to_device(np.array([-0.0, 1], np.float32), CPU)
    assert uploader.perturbed(w, w, np.float32(0)) is w


def test_a_floor_is_that_of_the_policy(uploader: Uploader) -> None:
    values = np.array([-1, -0.0, 0, 2, np.nan, -np.inf], np.float32)
    floored, below = uploader.floored(to_device(values, CPU))
    assert below == 2
    assert to_host(floored).tobytes() == np.where(values < 0, np.float32(0), values).tobytes()


@pytest.mark.parametrize("policy", ["group", "raw"])
@pytest.mark.parametrize("snr", [float("inf"), 10, 0.5])
def test_every_layer_gets_the_noise_of_the_definition(
    tmp_path: Path, uploader: Uploader, policy: Policy, snr: float
) -> None:
    net = network(tmp_path, policy)
    negative = 0
    for layer in net.layers:
        noise = drawn(net, layer, draw=1, policy=policy)
        expected, count = noise.at(snr)
        values, counted = uploader.uploaded(noise).at(snr)
        assert counted == count
        negative += count
        assert {name: to_host(value).tobytes() for name, value in values.items()} == {
            name: value.tobytes() for name, value in expected.items()
        }
    assert (negative > 0) == (snr == 0.5)


def test_clean_weights_are_uploaded_once_for_all_draws(tmp_path: Path, uploader: Uploader) -> None:
    net = network(tmp_path)
    first = uploader.uploaded(drawn(net, net.layers[0], draw=0))
    second = uploader.uploaded(drawn(net, net.layers[0], draw=1))
    assert {name: id(value) for name, value in first.clean.items()} == {
        name: id(value) for name, value in second.clean.items()
    }
    assert not {id(v) for v in first.normals.values()} & {id(v) for v in second.normals.values()}
    names = set(first.clean)
    del first, second
    assert not names & set(uploader._clean)


def test_one_session_serves_all_variants_of_a_layer(tmp_path: Path, uploader: Uploader) -> None:
    """The logits with the noisy weights as inputs are those of a session with them inside, but for how kernels round."""
    net = network(tmp_path)
    cutter = Cutter(net)
    image = {net.image.name: to_device(nets.as_input(nets.pictures(5)), CPU)}
    types = session.types(image)
    for layer in net.layers:
        weights = {tensor.value: net.constants[tensor.value] for tensor in layer.tensors}
        lifted = session.types({name: to_device(value, CPU) for name, value in weights.items()})
        open_ = cutter.segment(0, cutter.end, types, lifted=lifted)
        shared = Session(open_.stub, open_.references, CPU)
        seen = []
        for draw in (0, 1):
            noise = drawn(net, layer, draw)
            there = uploader.uploaded(noise)
            for snr in (10.0, 1.0):
                closed = cutter.segment(0, cutter.end, types, replaced=noise.at(snr)[0])
                expected = to_host(Session(closed.stub, closed.references, CPU).run(image)[net.logits])
                logits = to_host(shared.run({**image, **there.at(snr)[0]})[net.logits])
                np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
                seen.append(logits.tobytes())
        assert len(set(seen)) == 4
