"""The way of a device, from upload to hits: on a GPU where there is one, and the same code on the CPU's ORT values everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support import graphs, nets
from support.command import Outcome, onnxnoise

from onnxnoise.engine.device_noise import Device
from onnxnoise.engine.layer_noise import LayerSource, in_memory
from onnxnoise.engine.segments import Cutter
from onnxnoise.engine.sweep import ChunkSweep
from onnxnoise.model.classifier import load_classifier
from onnxnoise.model.network import Network
from onnxnoise.model.policies.batch_norms import noise_layers
from onnxnoise.noise import FROM_FILES, MODELS
from onnxnoise.noise.models import level_of, parse_chain
from onnxnoise.records import NoiseSetting, Tally, Variant
from onnxnoise.runtime import cuda, session
from onnxnoise.runtime.base import Provider
from onnxnoise.runtime.providers import find_provider
from onnxnoise.runtime.session import Session, to_device, to_host

Array = npt.NDArray[Any]

HEAVY = {"Conv", "FusedConv", "Gemm", "MatMul", "BatchNormalization"}
VARIANTS = [Variant(snr, draw) for draw in (0, 1) for snr in (10.0, 1.0)]
COUNT, BATCH = 37, 8


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def provider(request: pytest.FixtureRequest) -> Provider:
    return find_provider(request.param)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("tiny"), COUNT)


@pytest.fixture(scope="module")
def network(files: nets.Files) -> Network:
    return noise_layers(load_classifier(files.model), "group")


def made(stub: bytes, provider: Provider, feeds: Mapping[str, Array]) -> Array:
    """The only output, with every input on the device."""
    run = Session(stub, {}, provider)
    return to_host(next(iter(run.run({n: to_device(v, provider) for n, v in feeds.items()}).values())))


@pytest.mark.parametrize("scale", ["tensor", "channel"])
@pytest.mark.parametrize("name", [name for name in MODELS if name not in FROM_FILES])
def test_noise_is_that_of_the_definition_and_stays_on_the_device(
    provider: Provider, network: Network, name: str, scale: str
) -> None:
    place = Device(provider)
    setting = NoiseSetting(parse_chain(name), scale=scale)
    for layer in network.layers:
        drawn = LayerSource.of(layer, network.constants, setting).draw(1, place)
        in_host = in_memory(layer, network.constants, setting, 1)
        for level in level_of(setting).defaults[:3]:
            values, negative = drawn.at(level)
            expected, count = in_host.at(level)
            assert negative == count
            assert {value.device_name() for value in values.values()} == {provider.device}
            assert {n: to_host(v).tobytes() for n, v in values.items()} == {n: v.tobytes() for n, v in expected.items()}


def test_values_stay_on_the_device_from_cut_to_logits(provider: Provider, network: Network, files: nets.Files) -> None:
    cutter = Cutter(network)
    values = {network.image.name: to_device(files.inputs[:BATCH], provider)}
    places = [0, *(layer.start for layer in network.layers[1:]), cutter.end]
    for start, stop in pairwise(places):
        segment = cutter.segment(start, stop, session.types(values))
        if segment.outputs:
            values = {**values, **Session(segment.stub, segment.references, provider).run(values)}
        assert {value.device_name() for value in values.values()} == {provider.device}
    expected = graphs.run(nets.residual(files.weights), files.inputs[:BATCH])
    logits = to_host(values[network.logits])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_every_heavy_node_runs_on_the_provider(provider: Provider, network: Network, files: nets.Files) -> None:
    """With the weights as constants, and with all of them as inputs."""
    cutter = Cutter(network)
    types = session.types({network.image.name: to_device(files.inputs[:BATCH], provider)})
    weights = {t.value: network.constants[t.value] for layer in network.layers for t in layer.tensors}
    lifted = session.types({name: to_device(value, provider) for name, value in weights.items()})
    for options in ({}, {"lifted": lifted}):
        segment = cutter.segment(0, cutter.end, types, **options)
        placed = Session(segment.stub, segment.references, provider).placement()
        assert {name for name, nodes in placed.items() if HEAVY & set(nodes)} == {provider.name}
        assert sum((nodes for nodes in placed.values()), Counter())["Conv"] == 2


def test_products_have_all_their_bits(provider: Provider) -> None:
    """TF32 keeps 11 of 24 bits: errors of some 3e-4 of the largest sum, where float32 has 1e-6."""
    rng = np.random.default_rng(0)
    x, kernel = (
        rng.standard_normal((4, 64, 16, 16), dtype=np.float32),
        rng.standard_normal((64, 64, 3, 3), dtype=np.float32),
    )
    text = "(float[4, 64, 16, 16] x, float[64, 64, 3, 3] k) => (float[4, 64, 14, 14] y) { y = Conv (x, k) }"
    stub = graphs.model(text, {"k": None}).SerializeToString()
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), axis=(2, 3))
    exact = np.einsum("ncxyij,kcij->nkxy", windows, kernel.astype(np.float64), optimize=True)
    assert np.abs(made(stub, provider, {"x": x, "k": kernel}) - exact).max() < 5e-5 * np.abs(exact).max()

    a, b = rng.standard_normal((64, 512), dtype=np.float32), rng.standard_normal((512, 64), dtype=np.float32)
    stub = graphs.model("(float[64, 512] a, float[512, 64] b) => (float[64, 64] y) { y = MatMul (a, b) }", {"b": None})
    exact = a.astype(np.float64) @ b.astype(np.float64)
    result = made(stub.SerializeToString(), provider, {"a": a, "b": b})
    assert np.abs(result - exact).max() < 5e-5 * np.abs(exact).max()


def test_eleven_bits_would_be_seen() -> None:
    """The bound above is below what operands rounded as TF32 rounds them come to."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((64, 512), dtype=np.float32), rng.standard_normal((512, 64), dtype=np.float32)

    def rounded(values: Array) -> Array:
        return ((values.view(np.uint32) + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)).view(np.float32)

    exact = a.astype(np.float64) @ b.astype(np.float64)
    coarse = rounded(a).astype(np.float64) @ rounded(b).astype(np.float64)
    assert np.abs(coarse - exact).max() > 1e-4 * np.abs(exact).max()


def swept(network: Network, files: nets.Files, provider: Provider) -> dict[tuple[str, int | None, float, int], Tally]:
    """Every tally of the sweeps, noisy weights as inputs; the last mini-batch is padded."""
    padded = np.concatenate([files.inputs, np.repeat(files.inputs[-1:], -COUNT % BATCH, axis=0)])
    batches = [padded[i : i + BATCH] for i in range(0, len(padded), BATCH)]
    noise = NoiseSetting(seed=40)
    with ChunkSweep(network, noise, provider, batches, files.labels, 0, lifted=True) as chunk:
        tallies = [chunk.clean()]
        for found in chunk.all(VARIANTS, network.layers):
            tallies += found
        for found in chunk.single({layer.index: VARIANTS for layer in network.layers}):
            tallies += found
    return {(t.sweep, t.layer, t.level, t.draw): t for t in tallies}


def test_hits_are_those_of_the_slow_way(provider: Provider, network: Network, files: nets.Files) -> None:
    """But for images whose own logit is closer to another than 1e-4 of the largest."""
    layers = dict(enumerate(nets.LAYERS.values(), 1))
    model = nets.residual(files.weights)
    checked = 0
    for (sweep, layer, snr, draw), tally in swept(network, files, provider).items():
        noisy = {} if sweep == "clean" else layers if layer is None else {layer: layers[layer]}
        weights = nets.noisy(files.weights, snr, draw, noisy) if noisy else dict(files.weights)
        for name in weights:
            if name.endswith("var"):
                weights[name] = np.maximum(weights[name], np.float32(0))
        scores = graphs.run(nets.residual(weights) if noisy else model, files.inputs)
        own = np.take_along_axis(scores, files.labels[:, None], axis=1)
        gaps = np.abs(scores - own)
        np.put_along_axis(gaps, files.labels[:, None], np.inf, axis=1)
        clear = gaps.min(axis=1) >= 1e-4 * np.abs(scores).max(axis=1)
        bits = np.unpackbits(np.frombuffer(tally.top1, np.uint8), count=COUNT).astype(bool)
        assert bits[clear].tolist() == np.array(nets.hits(scores, files.labels, 1))[clear].tolist(), (sweep, layer, snr)
        checked += int(clear.sum())
    assert checked > 0.95 * COUNT * (1 + len(VARIANTS) * 6)


def test_the_same_run_gives_the_same_bits(provider: Provider, network: Network, files: nets.Files) -> None:
    assert swept(network, files, provider) == swept(network, files, provider)
    cutter = Cutter(network)
    image = {network.image.name: to_device(files.inputs[:BATCH], provider)}
    segment = cutter.segment(0, cutter.end, session.types(image))
    logits = {
        to_host(Session(segment.stub, segment.references, provider).run(image)[network.logits]).tobytes()
        for _ in range(3)
    }
    assert len(logits) == 1


def measured(files: nets.Files, folder: Path, provider: str) -> Outcome:
    return onnxnoise(
        *("bench", files.model, "--data", files.data, "--provider", provider, "--draws", 2, "--snr", "10,1"),
        *("--out", folder / f"{provider}.sqlite", "--json", "-"),
    )


@pytest.mark.cuda
def test_the_command_line_on_cuda(files: nets.Files, tmp_path: Path) -> None:
    there, here = (measured(files, tmp_path, name) for name in ("cuda", "cpu"))
    assert (there.code, here.code) == (0, 0)
    assert there.json["provider"] == "CUDAExecutionProvider"
    assert abs(there.json["clean"]["top1_hits"] - here.json["clean"]["top1_hits"]) <= 1
    for ours, theirs in zip(here.json["cells"], there.json["cells"], strict=True):
        for one, other in zip(ours["draws"], theirs["draws"], strict=True):
            assert abs(one["top1_hits"] - other["top1_hits"]) <= 1
            assert one["negative_variances"] == other["negative_variances"]


@pytest.mark.cuda
def test_the_options_reach_the_provider(network: Network) -> None:
    provider = find_provider("cuda")
    assert find_provider("auto") == provider
    stub = graphs.model("(float[2] x) => (float[2] y) { y = Relu (x) }").SerializeToString()
    options = Session(stub, {}, provider)._session.get_provider_options()["CUDAExecutionProvider"]
    assert options["use_tf32"] == "0"
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert options["arena_extend_strategy"] == "kSameAsRequested"


@pytest.mark.cuda
def test_the_driver_tells_its_gpus() -> None:
    driver = cuda.driver()
    assert driver is not None
    assert driver.error == 0
    assert all(gpu.name and gpu.memory_bytes > 1 << 30 and float(gpu.capability) >= 5 for gpu in driver.gpus)
    outcome = onnxnoise("doctor", "--json", "-")
    assert {"name": "CUDAExecutionProvider", "usable": True, "reason": ""} in outcome.json["providers"]
