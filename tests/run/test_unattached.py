"""Parameters that no layer holds: counted by every command, refused above one percent, and no gate passes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from support import nets
from support.command import onnxnoise, refused
from support.stores import edited

from onnxnoise.run.unattached import refused_by_gate

RULES = '[[rule]]\nname = "any"\nsnr = 100\nmin = 0.1\n'
SMALL = ("--snr", "100", "--sweep", "all", "--draws", "2")


def files_with(shape: tuple[int, ...], folder: Path) -> nets.Files:
    """A bench of a network whose activations are compared with a tensor of this shape, which no layer holds."""
    files = nets.bench_files(folder)
    model = onnx.load(files.model)
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.full(shape, -9, np.float32) - np.eye(*shape[-2:], dtype=np.float32), "least")
    )
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.input[0], old = "at_least", relu.input[0]
    at = list(model.graph.node).index(relu)
    model.graph.node.insert(at, onnx.helper.make_node("Max", [old, "least"], ["at_least"]))
    files.model.write_bytes(model.SerializeToString())
    return files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return files_with((6, 4, 4), tmp_path_factory.mktemp("unattached"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("onnxnoise.toml").write_text(RULES)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ("bench", *SMALL),
        ("bench", "--dry-run", *SMALL),
        ("bench", "--shard", "1/2", *SMALL),
        ("compare", "other.onnx", "--snr", "100", "--draws", "2"),
        ("margin", "--draws", "2", "--tolerance", "1", "--range", "1,100"),
        ("plan", "--snr", "100", "--draws", "2", "--fresh-draws", "2"),
        ("apply", "--snr", "100", "-o", "chip.onnx"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_above_one_percent_it_is_refused_unless_allowed(command: tuple[str, ...], files: nets.Files) -> None:
    name, *more = command
    data = () if name == "apply" else ("--data", files.data)
    if name == "compare":
        plain = nets.bench_files(Path.cwd())
        plain.model.rename("other.onnx")
        Path("tiny.toml").rename("other.toml")
    refused(
        onnxnoise(name, files.model, *more, *data),
        3,
        "1 initializer of 96 values, 5.",
        "% of its parameters",
        "least into Max",
        "export it so that",
        "--allow-unattached",
    )
    assert not list(Path.cwd().glob("*.sqlite")), "nothing was measured"
    allowed = onnxnoise(name, files.model, *more, *data, "--allow-unattached")
    assert allowed.code == 0 or (name == "plan" and allowed.code == 1), allowed.err


def test_a_gate_refuses_always(files: nets.Files) -> None:
    """The model; and a run file that was measured with leave to go on, whose description says what had no noise."""
    refused(onnxnoise("gate", files.model, "--data", files.data), 3, "96 values", "a gate never does")
    assert onnxnoise("gate", files.model, "--data", files.data, "--allow-unattached").code == 2
    Path("onnxnoise.toml").write_text(f"[bench]\nallow_unattached = true\n{RULES}")
    refused(onnxnoise("gate", files.model, "--data", files.data), 3, "no key", "allow_unattached")
    Path("onnxnoise.toml").write_text(RULES)
    assert (
        onnxnoise("bench", files.model, "--data", files.data, *SMALL, "--allow-unattached", "--out", "run.sqlite").code
        == 0
    )
    refused(onnxnoise("gate", "run.sqlite"), 3, "run.sqlite", "1 initializer of 96 values", "bench it anew")
    assert onnxnoise("report", "run.sqlite", "-o", "page.html").code == 0
    plain = nets.bench_files(Path.cwd())
    assert onnxnoise("bench", plain.model, "--data", files.data, *SMALL, "--out", "plain.sqlite").code == 0
    compared = onnxnoise("compare", "run.sqlite", "plain.sqlite", "--json", "-").json["warnings"]
    assert ["96 values" in each["message"] for each in compared if each["code"] == "unattached"] == [True]


def test_run_files_from_before_tell_by_their_notice(files: nets.Files) -> None:
    onnxnoise("bench", files.model, "--data", files.data, *SMALL, "--allow-unattached", "--out", "run.sqlite")
    removed = "json_remove(json, '$.without_noise')"
    edited(Path("run.sqlite"), f"UPDATE record SET json = {removed} WHERE name = 'description'")
    refused(onnxnoise("gate", "run.sqlite"), 3, "1 initializers, 5.", "% of its parameters")
    few = "3 tensors, 0.9% of all parameters, belong to no layer and stay without noise: a"
    assert refused_by_gate({"notices": [{"code": "unattached", "message": few}]}) is None
    assert refused_by_gate({"notices": [{"code": "other", "message": few.replace("0.9", "90")}]}) is None


def test_below_one_percent_it_is_said_and_measured(tmp_path: Path) -> None:
    files = files_with((6, 1, 1), tmp_path)
    outcome = onnxnoise("bench", files.model, "--data", files.data, *SMALL, "--out", "run.sqlite", "--json", "-")
    assert outcome.code == 0, outcome.err
    assert outcome.json["warnings"][0]["code"] == "unattached"
    assert onnxnoise("gate", files.model, "--data", files.data).code in (0, 5)
    assert onnxnoise("gate", "run.sqlite").code in (0, 5)


def test_layers_counts_them(files: nets.Files) -> None:
    found = onnxnoise("layers", files.model, "--json", "-").json["without_noise"]
    assert (found["elements"], found["initializers"]) == (96, [{"name": "least", "operator": "Max", "elements": 96}])
    assert 0.05 < found["share"] < 0.06
    shown = " ".join(onnxnoise("layers", files.model).out.split())
    assert "96 parameters more (5." in shown
    assert "belong to no layer and stay without noise" in shown


def test_checking_a_card_measures_no_noise(files: nets.Files) -> None:
    outcome = onnxnoise("cards", "check", files.model, "--card", files.model.with_suffix(".toml"), "--data", files.data)
    assert outcome.code == 0, outcome.err
