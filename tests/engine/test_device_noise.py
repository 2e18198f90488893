"""Weights made noisy where they are used are NumPy's to the bit, and a session that takes them as inputs needs no other for the next level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import graphs, nets

from onnxnoise.engine.device_noise import Device
from onnxnoise.engine.layer_noise import Host, Initializer, LayerSource, in_memory
from onnxnoise.engine.segments import Cutter
from onnxnoise.model.classifier import load_classifier
from onnxnoise.model.network import Network
from onnxnoise.model.policies.batch_norms import noise_layers
from onnxnoise.noise import FROM_FILES, MODELS
from onnxnoise.noise.base import Weights
from onnxnoise.noise.models import chain_of, parse_chain
from onnxnoise.records import NoiseSetting, NoiseTensor
from onnxnoise.runtime import session
from onnxnoise.runtime.providers import find_provider
from onnxnoise.runtime.session import Session, to_device, to_host
from onnxnoise.words import Policy

CPU = find_provider("cpu")


@pytest.fixture(scope="module")
def device() -> Device:
    return Device(CPU)


def network(folder: Path, policy: Policy = "group") -> Network:
    return noise_layers(load_classifier(graphs.saved(nets.residual(nets.weights()), folder, "tiny.onnx")), policy)


def initializer(values: Any, *, sigma: float = 1.0, scale: str = "tensor", transposed: bool = False) -> Initializer:
    """`values` in their canonical shape; where `transposed`, the graph stores the transpose."""
    stored = values.swapaxes(-1, -2).shape if transposed else values.shape
    return Initializer(NoiseTensor("w", "w", 0, values.shape, transposed, sigma), stored, Weights(values, sigma, scale))


@pytest.mark.parametrize("sigma", [0.7, 1e-3, 3e-38, 1e-44, 1e30])
@pytest.mark.parametrize("shape", [(1,), (7,), (16, 3, 3, 3), (129, 65)])
def test_gaussian_noise_is_rounded_twice_as_in_numpy(device: Device, shape: tuple[int, ...], sigma: float) -> None:
    rng = np.random.default_rng(0)
    w, z = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    made = device.noisy(chain_of(NoiseSetting()), initializer(w, sigma=sigma), ((z,),))(1.0)
    assert to_host(made).tobytes() == (w + np.float32(sigma) * z).tobytes()


def test_a_fused_multiply_add_would_be_seen() -> None:
    """The bits that rounding once gives, from float64, are not those that rounding twice gives: the test above can fail."""
    rng = np.random.default_rng(0)
    w, z = (rng.standard_normal((129, 65), dtype=np.float32) for _ in range(2))
    once = (w.astype(np.float64) + z.astype(np.float64) * np.float64(np.float32(0.7))).astype(np.float32)
    assert once.tobytes() != (w + np.float32(0.7) * z).tobytes()


@pytest.mark.parametrize("scale", ["tensor", "channel", "tile:7"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", [name for name in MODELS if name not in FROM_FILES])
def test_every_model_with_a_kernel_is_numpys_to_the_bit(
    device: Device, name: str, transposed: bool, scale: str
) -> None:
    shape = (24, 65) if transposed else (16, 3, 3, 3)
    w = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    chain = chain_of(NoiseSetting(steps=parse_chain(name)))
    drawn = chain.draw(40, 0, 1, 0, shape)
    clean = initializer(w, scale=scale, transposed=transposed)
    for level in chain.level.defaults:
        expected = Host().noisy(chain, clean, drawn)(level)
        assert expected.shape == clean.stored
        assert to_host(device.noisy(chain, clean, drawn)(level)).tobytes() == expected.tobytes()


def test_a_chain_of_several_steps_is_made_in_memory_and_uploaded(device: Device) -> None:
    w = np.random.default_rng(0).standard_normal((8, 5), dtype=np.float32)
    chain = chain_of(NoiseSetting(steps=parse_chain("relative:0.05+gaussian")))
    drawn = chain.draw(40, 0, 1, 0, w.shape)
    made = device.noisy(chain, initializer(w), drawn)(5.0)
    assert to_host(made).tobytes() == Host().noisy(chain, initializer(w), drawn)(5.0).tobytes()


def test_no_noise_leaves_the_weights_as_they_are(device: Device) -> None:
    clean = initializer(np.array([-0.0, 1], np.float32), sigma=0.0)
    chain = chain_of(NoiseSetting())
    drawn = chain.draw(40, 0, 1, 0, (2,))
    assert to_host(device.noisy(chain, clean, drawn)(1.0)).tobytes() == clean.weights.values.tobytes()


def test_a_floor_is_that_of_the_policy(device: Device) -> None:
    values = np.array([-1, -0.0, 0, 2, np.nan, -np.inf], np.float32)
    floored, below = device.floored(to_device(values, CPU))
    assert below == 2
    assert to_host(floored).tobytes() == np.where(values < 0, np.float32(0), values).tobytes()


@pytest.mark.parametrize("policy", ["group", "raw"])
@pytest.mark.parametrize("snr", [float("inf"), 10, 0.5])
def test_every_layer_gets_the_noise_of_the_definition(
    tmp_path: Path, device: Device, policy: Policy, snr: float
) -> None:
    net = network(tmp_path, policy)
    negative = 0
    for layer in net.layers:
        setting = NoiseSetting(bn=policy)
        expected, count = in_memory(layer, net.constants, setting, 1).at(snr)
        values, counted = LayerSource.of(layer, net.constants, setting).draw(1, device).at(snr)
        assert counted == count
        negative += count
        assert {name: to_host(value).tobytes() for name, value in values.items()} == {
            name: value.tobytes() for name, value in expected.items()
        }
    assert (negative > 0) == (snr == 0.5)


def test_clean_weights_are_uploaded_once_for_all_draws(tmp_path: Path, device: Device) -> None:
    net = network(tmp_path)
    layer = net.layers[0]
    quiet = [LayerSource.of(layer, net.constants, NoiseSetting()).draw(draw, device) for draw in (0, 1)]
    first, second = (each.at(float("inf"))[0] for each in quiet)
    assert {name: id(value) for name, value in first.items()} == {name: id(value) for name, value in second.items()}
    names = set(first)
    del first, second, quiet
    assert not names & set(device._clean)


def test_one_session_serves_all_variants_of_a_layer(tmp_path: Path, device: Device) -> None:
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
            noise = in_memory(layer, net.constants, NoiseSetting(), draw)
            there = LayerSource.of(layer, net.constants, NoiseSetting()).draw(draw, device)
            for snr in (10.0, 1.0):
                closed = cutter.segment(0, cutter.end, types, replaced=noise.at(snr)[0])
                expected = to_host(Session(closed.stub, closed.references, CPU).run(image)[net.logits])
                logits = to_host(shared.run({**image, **there.at(snr)[0]})[net.logits])
                np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
                seen.append(logits.tobytes())
        assert len(set(seen)) == 4
