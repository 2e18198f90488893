"""Before anything is measured a few images show whether logits depend on batch mates or on chance, whatever the operator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
from support import nets
from support.command import onnxnoise, refused

from onnxnoise.decisions.design import digital_layers
from onnxnoise.model import classifier
from onnxnoise.run import probing, runner
from onnxnoise.run.experiment import Experiment
from onnxnoise.spec import BenchSpec

SMALL = ("--snr", "10", "--sweep", "all", "--draws", "1", "--no-clean-check", "--out", "run.sqlite")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probing, "_passed", set())
    return tmp_path


def spoiled(nodes: str, **options: object) -> nets.Files:
    """The bench of a network with nodes (as ONNX text, from `s` to `s2`) between its last Add and what follows."""
    files = nets.bench_files(Path.cwd(), **options)
    model = onnx.load(files.model)
    inside = onnx.parser.parse_graph(f"g (float[N,6,4,4] s) => (float[N,6,4,4] s2) {{ {nodes} }}")
    at = next(i for i, node in enumerate(model.graph.node) if "s" in node.output)
    model.graph.node[at + 1].input[0] = "s2"
    for node in reversed(inside.node):
        model.graph.node.insert(at + 1, node)
    files.model.write_bytes(model.SerializeToString())
    return files


MATES = {
    "the first image": "i0 = Constant<value_ints = [0]>()  first = Gather(s, i0)  s2 = Sub(s, first)",
    "one image, out of its batch": "i0 = Constant<value_int = 0>()  first = Gather(s, i0)  s2 = Sub(s, first)",
    "the order": (
        "ax = Constant<value_ints = [0]>()  m1 = Constant<value_ints = [-1]>()  e = Constant<value_ints = [-9223372036854775807]>()"
        "  turned = Slice(s, m1, e, ax, m1)  h = Constant<value_float = 0.5>()  half = Mul(turned, h)  s2 = Add(s, half)"
    ),
    "the batch's largest": (
        "sh = Constant<value_ints = [-1, 96]>()  r = Reshape(s, sh)  pt = Transpose<perm = [1, 0]>(r)"
        "  one = Constant<value_ints = [1]>()  top, at = TopK(pt, one)  q = Transpose<perm = [1, 0]>(top)  d = Sub(q, r)"
        "  back = Constant<value_ints = [-1, 6, 4, 4]>()  s2 = Reshape(d, back)"
    ),
    "the last image": "m1 = Constant<value_ints = [-1]>()  last = Gather(s, m1)  s2 = Sub(s, last)",
    "its mean": "ax = Constant<value_ints = [0]>()  m = ReduceMean(s, ax)  s2 = Sub(s, m)",
    "its size": "n = Shape<start = 0, end = 1>(s)  f = Cast<to = 1>(n)  s2 = Mul(s, f)",
}
NAMED = {
    "the first image": "'first' (Gather)",
    "one image, out of its batch": "'first' (Gather)",
    "the order": "(Slice)",
    "the batch's largest": "(TopK)",
    "the last image": "'last' (Gather)",
    "its mean": "'m' (ReduceMean)",
    "its size": "",
}


@pytest.mark.parametrize("kind", MATES)
def test_logits_that_depend_on_batch_mates(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "refuse_mixing", lambda _: None)
    files = spoiled(MATES[kind])
    outcome = onnxnoise("bench", files.model, "--data", files.data, *SMALL)
    refused(outcome, 3, "tiny.onnx", "depend on the images beside it", NAMED[kind], "model.eval()")
    assert not Path("run.sqlite").exists()


@pytest.mark.parametrize("batch", ["N", 8])
def test_logits_that_depend_on_chance(batch: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "refuse_chance", lambda *_: None)
    files = spoiled("u = RandomUniformLike(s)  s2 = Add(s, u)", batch=batch)
    refused(
        onnxnoise("bench", files.model, "--data", files.data, *SMALL),
        3,
        "other logits in a second pass",
        "'u' (RandomUniformLike)",
        "model.eval()",
    )


@pytest.mark.parametrize("batch", ["N", 1, 2, 7, 64])
@pytest.mark.parametrize("limit", [1, 40])
def test_a_network_that_treats_each_image_alone_passes(batch: int | str, limit: int) -> None:
    files = nets.bench_files(Path.cwd(), batch=batch)
    probing.prove(Experiment.opened(BenchSpec(str(files.model), data=str(files.data), limit=limit)))


def test_rounding_of_activations_is_no_dependence() -> None:
    files = spoiled(
        "c = Constant<value_float = 0.3>()  i0 = Constant<value = int8 {0}>()  k = QuantizeLinear(s, c, i0)  s2 = DequantizeLinear(k, c, i0)"
    )
    assert onnxnoise("bench", files.model, "--data", files.data, *SMALL).code == 0


def proofs(monkeypatch: pytest.MonkeyPatch) -> Sequence[object]:
    made: list[object] = []
    run = probing._Probe.run

    def counted(probe: probing._Probe) -> None:
        made.append(probe)
        run(probe)

    monkeypatch.setattr(probing._Probe, "run", counted)
    return made


def test_it_runs_once_and_not_where_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    made = proofs(monkeypatch)
    files = nets.bench_files(Path.cwd())
    spec = BenchSpec(str(files.model), data=str(files.data), snrs=(10.0,), draws=2, out="run.sqlite")
    runner.bench(spec)
    assert len(made) == 1
    monkeypatch.setattr(probing, "_passed", set())
    runner.bench(spec)
    assert len(made) == 1
    digital_layers.plan(spec, fresh_draws=2)
    assert len(made) == 2


@pytest.mark.parametrize(
    "command",
    [
        ("bench", "--shard", "1/2", "--snr", "10"),
        ("bench", "--workers", "1", "--snr", "10", "--draws", "1", "--sweep", "all"),
        ("compare", "other.onnx", "--snr", "10", "--draws", "1"),
        ("gate", "--rules", "rules.toml"),
        ("margin", "--draws", "2", "--tolerance", "1", "--range", "1,100"),
        ("plan", "--snr", "10", "--draws", "2", "--fresh-draws", "2"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_every_command_that_measures_proves_first(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    name, *more = command
    Path("rules.toml").write_text('[[rule]]\nname = "any"\nsnr = 100\nmin = 0.1\n')
    files = spoiled(MATES["the first image"])
    for other in ("other.onnx", "other.toml"):
        Path(other).write_bytes(files.model.with_suffix(Path(other).suffix).read_bytes())
    outcome = onnxnoise(name, files.model, *more, "--data", files.data)
    refused(outcome, 3, "depend on the images beside it")
