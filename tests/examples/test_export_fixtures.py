"""The bundled ResNet-20, carried into Keras 2, Keras 3 and tensorpack and exported from there, is the same network.

The files in `fixtures/` were written by `examples/export_keras.py` and `examples/export_tensorpack.py` with
`--carry resnet20-cifar10`; one of them with `--merged`, so that tf2onnx merged its batch norms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from support.command import onnxnoise

from onnxnoise import BenchSpec, bench, open_model
from onnxnoise.engine.layer_noise import in_memory
from onnxnoise.records import NoiseLayer, NoiseSetting
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.loading import Subject
from onnxnoise.words import Policy

Array = npt.NDArray[Any]

BUNDLED = "resnet20-cifar10"
FOLDER = Path(__file__).parents[1] / "fixtures"
KEPT = [str(FOLDER / f"resnet20-{framework}.onnx") for framework in ("tfkeras", "keras3", "tensorpack")]
MERGED = str(FOLDER / "resnet20-tfkeras-merged.onnx")
IMAGES = 200
CLOSE = 1e-4
"""Of the largest logit: deciding logits nearer to each other than that may change places between frameworks."""

by_framework = pytest.mark.parametrize("model", KEPT, ids=lambda path: Path(path).stem)


@cache
def subject(model: str, policy: Policy = "group") -> Subject:
    return open_model(model, bn=policy)


def table(model: str, policy: Policy = "group") -> list[tuple[Any, ...]]:
    """Index, kind, parameters, and roles and shapes of the tensors, of each layer."""
    layers = subject(model, policy).layers
    return [(a.index, a.kind, a.parameters, [(t.role, t.shape) for t in a.tensors]) for a in layers]


def sigmas(model: str, policy: Policy = "group") -> list[float]:
    layers = subject(model, policy).layers
    return [value for layer in layers for value in (layer.sigma_w, *(tensor.sigma_w for tensor in layer.tensors))]


# --- Layers and noise ---


@by_framework
def test_the_same_layer_table(model: str) -> None:
    assert table(model) == table(BUNDLED)
    assert sigmas(model) == pytest.approx(sigmas(BUNDLED), rel=1e-6)
    assert subject(model).network.notices == ()
    assert len({layer.name for layer in subject(model).layers}) == 41


@by_framework
def test_its_card_says_what_the_file_is(model: str) -> None:
    outcome = onnxnoise("cards", "check", model)
    assert outcome.code == 0, outcome.out
    assert "file and card agree" in outcome.out


@by_framework
def test_the_same_weights_meet_the_same_noise_bit_for_bit(model: str) -> None:
    for draw in (0, 1):
        found, expected = (list(canonical(name, snr=10, draw=draw)) for name in (model, BUNDLED))
        assert [each.shape for each in found] == [each.shape for each in expected]
        assert all(a.tobytes() == b.tobytes() for a, b in zip(found, expected, strict=True))
        assert sum(a.size for a in found) == 2 * 274_442


def canonical(model: str, snr: float, draw: int) -> Iterator[Array]:
    """Every tensor in its canonical shape, without noise and with it."""
    network = subject(model).network
    for layer in network.layers:
        noisy, _ = in_memory(layer, network.constants, NoiseSetting(bn="raw"), draw).at(snr)
        for tensor in layer.tensors:
            for values in (network.constants[tensor.value], noisy[tensor.value]):
                yield np.ascontiguousarray(values.T if tensor.transposed else values).reshape(tensor.shape)


# --- Hits ---


@dataclass(frozen=True)
class Difference:
    """An image that one network classifies in another way than the other, and how far apart the logits are that decide."""

    cell: tuple[str, int | None, float, int]
    image: int
    logits: float

    def __str__(self) -> str:
        sweep, layer, snr, draw = self.cell
        where = sweep if layer is None else f"{sweep} {layer}"
        return f"image {self.image}, {where}, SNR {snr:g}, draw {draw}: deciding logits differ by {self.logits:.1e}"


@cache
def opened(model: str, policy: Policy) -> Experiment:
    return Experiment.opened(spec(model, policy))


@dataclass(frozen=True)
class Asked:
    layers: str
    snrs: tuple[float, ...]


ASKED: dict[Policy, Asked] = {
    "group": Asked("1,2,22,41", (10, 2.5)),
    "raw": Asked("2", (10,)),
    "affine": Asked("24", (5,)),
    "fold": Asked("8", (5,)),
    "clean": Asked("41", (5,)),
}


@cache
def hit_bits(model: str, policy: Policy, folder: Path) -> dict[tuple[str, int | None, float, int], Array]:
    """(sweep, layer, SNR, draw) to top-1 hits, image by image; the clean pass is ("clean", None, inf, 0)."""
    out = folder / f"{Path(model).stem}-{policy}.sqlite"
    asked = ASKED[policy]
    result = bench(spec(model, policy, out=str(out)))
    assert (result.clean.images, len(result.cells)) == (IMAGES, (len(result.selected) + 1) * len(asked.snrs))
    assert result.clean.top1_hits > 0.85 * IMAGES
    with RunStore.existing(out) as store:
        cells = [("clean", None, float("inf")), *((cell.sweep, cell.layer, cell.snr) for cell in result.cells)]
        return {
            (*cell, tally.draw): np.unpackbits(np.frombuffer(tally.top1, np.uint8), count=tally.images).astype(bool)
            for cell in cells
            for tally in store.tallies(*cell)
        }


def spec(model: str, policy: Policy, out: str | None = None) -> BenchSpec:
    asked = ASKED[policy]
    return BenchSpec(
        model,
        data="cifar10-sample",
        snrs=asked.snrs,
        draws=1,
        layers=asked.layers,
        bn=policy,
        limit=IMAGES,
        provider="cpu",
        clean_check=False,
        out=out,
    )


def differences(first: str, second: str, policy: Policy, folder: Path) -> list[Difference]:
    ours, theirs = hit_bits(first, policy, folder), hit_bits(second, policy, folder)
    assert ours.keys() == theirs.keys()
    found = []
    for cell, bits in ours.items():
        images = np.flatnonzero(bits != theirs[cell])
        if len(images):
            a, b = (scores(model, policy, cell, images) for model in (first, second))
            found += [Difference(cell, int(i), deciding(x, y)) for i, x, y in zip(images, a, b, strict=True)]
    return found


def deciding(ours: Array, theirs: Array) -> float:
    """How far apart two networks' logits of one image are at the classes that either of them chooses, relative to the largest."""
    classes = [int(ours.argmax()), int(theirs.argmax())]
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return float("inf")
    return float(np.abs(ours - theirs)[classes].max() / max(np.abs(ours).max(), np.abs(theirs).max()))


def scores(model: str, policy: Policy, cell: tuple[str, int | None, float, int], images: Sequence[int]) -> Array:
    """The slow way: the cell's noise in the whole graph's weights, logits (images, classes)."""
    sweep, layer, snr, draw = cell
    experiment = opened(model, policy)
    network = experiment.subject.network
    noisy: list[NoiseLayer] = (
        [] if sweep == "clean" else [x for x in experiment.subject.layers if layer in (None, x.index)]
    )
    constants = dict(network.constants)
    for each in noisy:
        noise = in_memory(each, network.constants, NoiseSetting(seed=40, sigma_scope="tensor", bn=policy), draw)
        constants |= noise.at(snr)[0]
    chunks = experiment.images.chunks([range(int(i), int(i) + 1) for i in images])
    inputs = experiment.inputs(np.concatenate([chunk.pixels for chunk in chunks]))
    graph = helper.make_graph(
        list(network.nodes),
        "noisy",
        [
            helper.make_tensor_value_info(
                network.image.name, helper.np_dtype_to_tensor_dtype(inputs.dtype), ["N", *inputs.shape[1:]]
            )
        ],
        [helper.make_tensor_value_info(network.logits, onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in network.opsets.items()]
    model_ = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    (found,) = onnxruntime.InferenceSession(model_.SerializeToString()).run(None, {network.image.name: inputs})
    return np.asarray(found)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("policy", ASKED)
@by_framework
def test_the_same_hits_in_every_cell(model: str, policy: Policy, runs: Path) -> None:
    far = [each for each in differences(model, BUNDLED, policy, runs) if not each.logits < CLOSE]
    assert not far, "\n".join(map(str, far))


# --- Merged batch norms ---


def test_folding_gives_the_merged_exports_table_and_hits(runs: Path) -> None:
    for unmerged in (BUNDLED, *KEPT):
        assert table(unmerged, "fold") == table(MERGED)
        assert sigmas(unmerged, "fold") == pytest.approx(sigmas(MERGED), rel=1e-6)
    assert [layer.kind for layer in subject(MERGED).layers].count("conv") == 21
    far = [each for each in differences(MERGED, BUNDLED, "fold", runs) if not each.logits < CLOSE]
    assert not far, "\n".join(map(str, far))


def test_the_merged_export_is_told_from_the_others() -> None:
    (notice,) = subject(MERGED).network.notices
    assert notice.code == "merged_batchnorm"
    assert notice.message.startswith("19 batch norms were merged into the layers before them by tf2onnx")
    assert onnxnoise("cards", "check", MERGED).code == 1


# --- The comparison itself ---


def test_a_different_network_is_found_and_its_images_are_listed(tmp_path: Path) -> None:
    model = onnx.load(KEPT[0])
    (bias,) = [each for each in model.graph.initializer if each.name == "model/dense/BiasAdd/ReadVariableOp:0"]
    bias.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(bias) + np.linspace(0, 2, 10, dtype=np.float32), bias.name)
    )
    other = tmp_path / "other.onnx"
    onnx.save(model, other)
    found = differences(str(other), BUNDLED, "clean", tmp_path)
    assert {each.cell[0] for each in found} == {"clean", "single", "all"}
    assert all(each.logits > CLOSE for each in found)
    assert str(found[0]).startswith(f"image {found[0].image}, clean, SNR inf, draw 0: deciding logits differ by ")


@by_framework
def test_logits_are_the_same_but_for_rounding(model: str, runs: Path) -> None:
    for cell in (("clean", None, float("inf"), 0), ("all", None, 10.0, 0)):
        ours, theirs = (scores(name, "group", cell, range(20)) for name in (model, BUNDLED))
        assert np.abs(ours - theirs).max() < CLOSE * np.abs(theirs).max()
        assert (ours.argmax(axis=1) == labels(20)).tolist() == hit_bits(model, "group", runs)[cell][:20].tolist()


def labels(count: int) -> Array:
    (chunk,) = opened(BUNDLED, "group").images.chunks([range(count)])
    return chunk.labels
