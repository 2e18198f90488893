"""Drift compensation and recalibrated batch norms against slow ways of computing the same, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from support import graphs, nets
from support.command import onnxnoise

from onnxnoise.engine.layer_noise import in_memory
from onnxnoise.errors import DataError, ModelError, UsageError
from onnxnoise.records import Result
from onnxnoise.run import runner
from onnxnoise.run.loading import open_model
from onnxnoise.spec import BenchSpec

ASIDE = 10


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("compensation"), count=40)


def bench(files: nets.Files, out: Path, **asked: object) -> Result:
    spec = BenchSpec(str(files.model), data=str(files.data), out=str(out), draws=2, compensate="bn", calibration=ASIDE)
    return runner.bench(replace(spec, **asked))


def test_what_drifts_is_scaled_to_the_size_that_was_programmed(files: nets.Files) -> None:
    spec = BenchSpec(str(files.model), noise="pcm", analog="all")
    subject = open_model(spec.model)
    plain, compensated = spec.setting, replace(spec, compensate="drift").setting
    for layer in subject.layers:
        made = [in_memory(layer, subject.network.constants, setting, 1) for setting in (plain, compensated)]
        for level in (0.0, 1.0, 3e7):
            programmed, read, scaled = (
                each.at(t)[0] for each, t in ((made[0], 0.0), (made[0], level), (made[1], level))
            )
            for name, values in scaled.items():
                if name.endswith("var"):
                    continue  # stored as 0 where it is below
                sizes = [
                    sum(abs(float(v)) for v in each[name].ravel()) / each[name].size for each in (programmed, read)
                ]
                wanted = read[name].astype(np.float64) * max(sizes[0], 1e-4) / max(sizes[1], 1e-4)
                np.testing.assert_allclose(values, wanted, rtol=1e-6)
                assert values.dtype == np.float32


def moments(model: onnx.ModelProto, norm: int, inputs: nets.Array) -> tuple[nets.Array, nets.Array]:
    """What the batch norm number `norm` of a whole graph sees, channel by channel."""
    shown = onnx.ModelProto.FromString(model.SerializeToString())
    node = [each for each in shown.graph.node if each.op_type == "BatchNormalization"][norm]
    del shown.graph.output[:]
    shown.graph.output.append(onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, None))
    seen = graphs.run(shown, inputs).astype(np.float64)
    channels = [seen[:, c].ravel() for c in range(seen.shape[1])]
    return np.array([each.mean() for each in channels]), np.array([each.var() for each in channels])


def recalibrated(values: nets.Weights, noisy: nets.Weights, inputs: nets.Array) -> nets.Weights:
    """The noisy weights with each batch norm's statistics moved by what the noise does to them, one after the other."""
    now = dict(noisy)
    for name in ("stem_bn", "block_bn"):
        mean, var = f"{name}_moving_mean", f"{name}_moving_var"
        now |= {mean: values[mean], var: values[var]}
    for number, name in enumerate(("stem_bn", "block_bn")):
        mean, var = f"{name}_moving_mean", f"{name}_moving_var"
        clean, seen = (moments(nets.residual(each), number, inputs) for each in (values, now))
        now[mean] = (values[mean] + seen[0] - clean[0]).astype(np.float32)
        now[var] = (values[var] * seen[1] / clean[1]).astype(np.float32)
    return now


def test_recalibrated_chips_have_the_slow_way_s_hits(files: nets.Files, tmp_path: Path) -> None:
    result = bench(files, tmp_path / "a.sqlite", snrs=(4.0, 1.5), sweeps=("single", "cumulative", "all"))
    layers = dict(enumerate(nets.LAYERS.values(), 1))
    inputs, labels = files.inputs[ASIDE:], files.labels[ASIDE:]
    assert result.clean.images == 30
    seen = 0
    for cell in result.cells:
        chosen = {
            k: names
            for k, names in layers.items()
            if cell.sweep == "all" or k == cell.layer or (cell.sweep == "cumulative" and k < (cell.layer or 0))
        }
        for draw in cell.draws:
            noisy = nets.noisy(files.weights, cell.level, draw.draw, chosen)
            chip = recalibrated(files.weights, noisy, files.inputs[:ASIDE])
            scores = graphs.run(nets.residual(chip), inputs)
            assert draw.top1_hits == sum(nets.hits(scores, labels, 1)), (cell.sweep, cell.layer, cell.level)
            seen += draw.top1_hits != draw.clean_top1_hits
    assert seen > 5


def test_without_noise_nothing_changes(files: nets.Files, tmp_path: Path) -> None:
    (cell,) = bench(files, tmp_path / "a.sqlite", snrs=(float("inf"),), sweeps=("all",)).cells
    assert [draw.top1_hits for draw in cell.draws] == [draw.clean_top1_hits for draw in cell.draws]


def test_chunks_and_workers_make_no_difference(files: nets.Files, tmp_path: Path) -> None:
    asked = {"snrs": (2.0,), "sweeps": ("all",)}
    one = bench(files, tmp_path / "a.sqlite", **asked)
    two = bench(files, tmp_path / "b.sqlite", **asked, limit=13)
    two = bench(files, tmp_path / "b.sqlite", **asked)
    assert one.cells == two.cells
    assert bench(files, tmp_path / "c.sqlite", **asked, calibration=ASIDE + 1).clean.images == 29
    with pytest.raises(DataError, match="40 images"):
        bench(files, tmp_path / "d.sqlite", **asked, calibration=40)


def test_what_is_refused(files: nets.Files, tmp_path: Path) -> None:
    for asked, words in (
        ({"bn": "fold"}, "--bn fold merges"),
        ({"bn": "affine"}, "--bn affine merges"),
        ({"compensate": "none"}, "--calibration"),
        ({"compensate": "drift", "calibration": None}, "gaussian does not drift"),
    ):
        with pytest.raises(UsageError, match=words):
            bench(files, tmp_path / "a.sqlite", **asked)
    values = {name: value for name, value in files.weights.items() if "_bn_" not in name}
    folded = {**values, "stem_bias": np.zeros(6, np.float32), "block_bias": np.zeros(6, np.float32)}
    merged = graphs.saved(nets.residual(folded, folded=True), tmp_path, "merged.onnx")
    (tmp_path / "merged.toml").write_text(nets.CARD)
    with pytest.raises(ModelError, match="no batch norm with a mean and a variance"):
        bench(files, tmp_path / "a.sqlite", model=str(merged))
    outcome = onnxnoise("apply", files.model, "--snr", 5, "--compensate", "bn", "-o", tmp_path / "chip.onnx")
    assert outcome.code == 2
    assert "images" in outcome.err
