"""One chip as a file: any runtime that reads it gets the hits of the run's cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from support import graphs, nets
from support.command import onnxnoise, refused

from onnxnoise.decisions.design import chip
from onnxnoise.run import runner
from onnxnoise.runtime import session
from onnxnoise.spec import BenchSpec


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("chip"))


def scores(path: Path, inputs: Any) -> Any:
    """What ONNX Runtime, as anybody would use it, makes of the file."""
    made = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return made.run(None, {made.get_inputs()[0].name: inputs})[0]


@pytest.mark.parametrize("bn", ["group", "raw", "affine", "fold", "clean"])
@pytest.mark.parametrize("layers", [None, "3", "1-3"])
def test_its_hits_are_the_cells(files: nets.Files, tmp_path: Path, bn: Any, layers: str | None) -> None:
    sweep = "single" if layers == "3" else "all"
    spec = BenchSpec(
        str(files.model), snrs=(2.0,), draws=2, bn=bn, layers=None if layers == "3" else layers,
        sweeps=(sweep,), data=str(files.data), out=str(tmp_path / "run"),
    )  # fmt: skip
    result = runner.bench(spec)
    (cell,) = [cell for cell in result.cells if cell.layer in (None, 3)]
    for draw in cell.draws:
        made = chip.apply(
            str(files.model), snr=2.0, draw=draw.draw, layers=layers, bn=bn, out=tmp_path / f"{draw.draw}.onnx"
        )
        onnx.checker.check_model(made.path, full_check=True)
        rows = scores(Path(made.path), files.inputs)
        assert sum(nets.hits(rows, files.labels, 1)) == draw.top1_hits
        assert sum(nets.hits(rows, files.labels, 5)) == draw.top5_hits
        assert made.negative_variances == draw.negative_variances


def test_its_weights_are_the_noise_by_hand(files: nets.Files, tmp_path: Path) -> None:
    made = chip.apply(
        str(files.model), snr=5.0, draw=3, seed=7, layers="conv", sigma_scope="layer", out=tmp_path / "a.onnx"
    )
    chosen = {i: names for i, names in enumerate(nets.LAYERS.values(), 1) if i in (1, 3)}
    expected = nets.noisy(files.weights, 5.0, 3, chosen, seed=7, pooled=True)
    kept = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(made.path).graph.initializer}
    for name, values in expected.items():
        assert np.array_equal(kept[name], values), name
    assert made.layers == (1, 3)
    assert made.parameters == sum(files.weights[name].size for names in chosen.values() for name in names)


def test_the_file_says_what_it_is(files: nets.Files, tmp_path: Path) -> None:
    made = chip.apply(str(files.model), snr=5.0, out=tmp_path / "a.onnx")
    about = {p.key: p.value for p in onnx.load(made.path).metadata_props}
    record = json.loads(about["onnxnoise.chip"])
    assert (record["snr"], record["draw"], record["seed"], record["bn"]) == (5.0, 0, 40, "group")
    assert record["model"]["sha256"] == made.model["sha256"]
    assert record["path"] == "a.onnx", "nobody's folders are told"


def test_a_large_one_keeps_its_weights_beside(
    files: nets.Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip.apply(str(files.model), snr=5.0, out=tmp_path / "whole.onnx")
    monkeypatch.setattr(chip, "_LARGEST_FILE", 1000)
    for _ in range(2):  # a second time over the first
        chip.apply(str(files.model), snr=5.0, out=tmp_path / "split.onnx")
    assert (tmp_path / "split.onnx.data").stat().st_size < 20_000
    assert np.array_equal(scores(tmp_path / "split.onnx", files.inputs), scores(tmp_path / "whole.onnx", files.inputs))


QUANTIZED = """(float[N, 3, 32, 32] image, int8[6, 3, 8, 8] k1, float[6] b1, int8[8, 6, 3, 3] k2, float[8] b2, float[10, 8] fw,
    float[10] fb) => (float[N, 10] z) {
    zero = Constant <value = int8 {0}> ()  si = Constant <value_float = 0.0079> ()
    sw = Constant <value_float = 0.003> ()  s1 = Constant <value_float = 0.05> ()  s2 = Constant <value_float = 0.05> ()
    qi = QuantizeLinear (image, si, zero)  di = DequantizeLinear (qi, si, zero)  w1 = DequantizeLinear (k1, sw, zero)
    c1 = Conv <kernel_shape = [8, 8], strides = [8, 8]> (di, w1, b1)  r1 = Relu (c1)
    q1 = QuantizeLinear (r1, s1, zero)  d1 = DequantizeLinear (q1, s1, zero)  w2 = DequantizeLinear (k2, sw, zero)
    c2 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (d1, w2, b2)  r2 = Relu (c2)
    q2 = QuantizeLinear (r2, s2, zero)  d2 = DequantizeLinear (q2, s2, zero)
    p = GlobalAveragePool (d2)  v = Flatten (p)  z = Gemm <transB = 1> (v, fw, fb)
}"""


@pytest.fixture
def quantized(tmp_path: Path) -> nets.Files:
    """Convolutions with int8 weights between activations in int8, as quantizers write them, and images that it classifies."""
    rng = np.random.default_rng(3)
    pixels = nets.pictures(60)
    inputs = nets.as_input(pixels)
    values = {name: rng.integers(-100, 100, shape) for name, shape in (("k1", (6, 3, 8, 8)), ("k2", (8, 6, 3, 3)))}
    model = graphs.model(QUANTIZED, values)
    path = graphs.saved(model, tmp_path, "tiny.onnx")
    labels = nets.labelled(model, inputs)
    (tmp_path / "tiny.toml").write_text(nets.CARD)
    (tmp_path / "test_batch.bin").write_bytes(nets.records(pixels, labels))
    return nets.Files(path, tmp_path / "test_batch.bin", {}, inputs, labels)


def test_a_quantized_file_keeps_its_noise_under_default_options(
    quantized: nets.Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the sums ONNX Runtime quantizes the noisy weights anew, between activations that are quantized."""
    spec = BenchSpec(
        str(quantized.model),
        snrs=(3.0,),
        draws=3,
        sweeps=("all",),
        data=str(quantized.data),
        out=str(tmp_path / "run"),
    )
    (cell,) = runner.bench(spec).cells
    lost = 0.0
    for draw in cell.draws:
        made = chip.apply(str(quantized.model), snr=3.0, draw=draw.draw, out=tmp_path / "chip.onnx")
        onnx.checker.check_model(made.path, full_check=True)
        rows = scores(Path(made.path), quantized.inputs)
        assert np.array_equal(rows, graphs.run(onnx.load(made.path), quantized.inputs)), "as it is written"
        assert sum(nets.hits(rows, quantized.labels, 1)) == draw.top1_hits
        assert sum(nets.hits(rows, quantized.labels, 5)) == draw.top5_hits
        with monkeypatch.context() as without:
            without.setattr(chip, "_keep_floats", lambda _: None)
            bare = chip.apply(str(quantized.model), snr=3.0, draw=draw.draw, out=tmp_path / "bare.onnx")
        lost = max(lost, np.abs(scores(Path(bare.path), quantized.inputs) - rows).max() / np.abs(rows).max())
        assert np.array_equal(measured_as(Path(bare.path), quantized.inputs), rows), (
            "bench itself is spared by an option"
        )
    assert lost > 0.01, "what the sums are for"


def measured_as(path: Path, inputs: Any) -> Any:
    """What the options of every session that measures make of the file."""
    options = session.session_options()
    assert options.get_session_config_entry("session.disable_quant_qdq") == "1"
    made = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return made.run(None, {made.get_inputs()[0].name: inputs})[0]


def test_a_quantized_chip_has_the_layers_of_its_model(quantized: nets.Files, tmp_path: Path) -> None:
    chip.apply(str(quantized.model), snr=3.0, out=tmp_path / "chip.onnx")
    before, after = (
        onnxnoise("layers", path, "--json", "-").json for path in (quantized.model, tmp_path / "chip.onnx")
    )
    shapes = [
        [[each["shape"] for each in layer["initializers"]] for layer in found["layers"]] for found in (before, after)
    ]
    assert shapes[0] == shapes[1]


def test_the_command(files: nets.Files, tmp_path: Path) -> None:
    outcome = onnxnoise(
        "apply", files.model, "--snr", "5", "--draw", "1", "--layers", "dense", "-o", tmp_path / "made" / "n.onnx"
    )
    assert outcome.code == 0, outcome.err
    assert "draw 1 of seed 40 at SNR 5 in 1 layer," in " ".join(outcome.out.split())
    assert onnxnoise("layers", tmp_path / "made" / "n.onnx").code == 0


def test_bad_input(files: nets.Files, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "n.onnx")
    refused(onnxnoise("apply", files.model, "--snr", "0", *out), 2, "--snr", "0")
    refused(onnxnoise("apply", files.model, "--snr", "5,2", *out), 2, "--snr", "2 are given", "takes one")
    refused(onnxnoise("apply", files.model, "--snr", "5", "--draw", "-1", *out), 2, "--draw")
    refused(onnxnoise("apply", files.model, "--snr", "5", "--layers", "nothing", *out), 2, "nothing")
    refused(onnxnoise("apply", files.model, "--snr", "5", "-o", files.model), 3, "the model itself")
    refused(onnxnoise("apply", files.model, "--snr", "5", "-o", tmp_path), 3, "is a folder")
    refused(onnxnoise("apply", files.model, "--snr", "5", "-o", files.model / "n.onnx"), 3, "is no folder")
    refused(onnxnoise("apply", tmp_path / "none.onnx", "--snr", "5", *out), 3, "no such file")
    assert not (tmp_path / "n.onnx").exists()
