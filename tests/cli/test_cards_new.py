"""`onnxnoise cards new`: a drafted card loads and works at once, and says where each line is from."""

from __future__ import annotations

import json
import shlex
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from support import graphs, nets
from support.command import onnxnoise, refused
from support.imaging import encoded, write

from onnxnoise.data import resources
from onnxnoise.data.cards import load_card
from onnxnoise.run.new_card import new_card

COUNT = 60
SCHEMA = Draft202012Validator(json.loads((resources.folder("model_cards") / "card.schema.json").read_text("utf-8")))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """tiny.onnx, and records that it classifies when it gets pixel/127.5 - 1."""
    files = nets.bench_files(tmp_path, COUNT)
    (tmp_path / "tiny.toml").unlink()
    pixels = nets.pictures(COUNT)
    labels = nets.labelled(nets.residual(files.weights), prepared(pixels, 127.5, 1.0, 1.0))
    (tmp_path / "test_batch.bin").write_bytes(nets.records(pixels, labels))
    np.savez(tmp_path / "signs.npz", x=pixels, y=labels)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepared(pixels: Any, scale: float, mean: float, std: float, *, bgr: bool = False) -> Any:
    """The formula by hand."""
    x = (pixels[..., ::-1] if bgr else pixels).transpose(0, 3, 1, 2).astype(np.float64)
    return np.ascontiguousarray(((x / scale - mean) / std).astype(np.float32))


def valid(path: str) -> dict[str, Any]:
    card = tomllib.loads(Path(path).read_text("utf-8"))
    SCHEMA.validate(card)
    return card["input"]


def test_without_images_it_asks(folder: Path) -> None:
    outcome = onnxnoise("cards", "new", "tiny.onnx")
    assert outcome.code == 0, outcome.err
    card = valid("tiny.toml")
    assert (card["classes"], card["size"], card["layout"]) == (10, 32, "nchw")
    assert "mean" not in card
    text = Path("tiny.toml").read_text()
    assert "# ? Which numbers was it trained on?" in text
    assert "Which numbers was it trained on?" in outcome.out
    assert "onnxnoise bench tiny.onnx --card tiny.toml --data IMAGES, where IMAGES" in outcome.out
    refused(onnxnoise("cards", "new", "tiny.onnx"), 3, "tiny.toml", "-o")
    refused(onnxnoise("cards", "new", "tiny.onnx", "-o", "tiny.toml/x.toml"), 3, "tiny.toml is no folder")
    assert Path("tiny.toml").read_text() == text
    bench = onnxnoise(
        "bench", "tiny.onnx", "--data", "signs.npz", "--snr", 10, "--sweep", "all", "--draws", 1, "--json", "-"
    )
    assert bench.code == 0, bench.err
    assert "card_without_numbers" in [each["code"] for each in bench.json["warnings"]]


def test_images_tell_the_numbers(folder: Path) -> None:
    outcome = onnxnoise("cards", "new", "tiny.onnx", "--data", "signs.npz", "-o", "new.toml")
    assert outcome.code == 0, outcome.err
    command = shlex.split(outcome.out.split("then: onnxnoise ")[1])
    assert onnxnoise(*command, "--dry-run").code == 0
    card = valid("new.toml")
    assert (card["dataset"], card["scale"], card["mean"], card["std"]) == ("signs", 127.5, 1, 1)
    pixels, labels = nets.pictures(COUNT), np.load("signs.npz")["y"]
    model = graphs.onnx.load("tiny.onnx")
    best = nets.hits(graphs.run(model, prepared(pixels, 127.5, 1.0, 1.0)), labels, 1)
    for said, scale, mean, bgr in (
        ("pixel/127.5 - 1", 127.5, 1.0, False),
        ("pixel/255", 255.0, 0.0, False),
        ("pixels from 0 to 255", 1.0, 0.0, False),
        ("pixel - 128", 1.0, 128.0, False),
        ("BGR pixel/255", 255.0, 0.0, True),
    ):
        truth = sum(nets.hits(graphs.run(model, prepared(pixels, scale, mean, 1.0, bgr=bgr)), labels, 1))
        assert f"{said}: {truth}" in Path("new.toml").read_text().replace("\n# ", " ")
    bench = onnxnoise(
        "bench", "tiny.onnx", "--card", "new.toml", "--data", "signs.npz", "--snr", 10, "--draws", 1, "--json", "-"
    )
    assert bench.json["clean"]["top1_hits"] == sum(best)


def test_images_are_opened_once_whatever_is_tried(folder: Path) -> None:
    """A function of the user's is called to open the images and for each way to resize, not for each of the numbers."""
    code = "import numpy as np\ndef images():\n    with open('calls', 'a') as calls:\n        calls.write('.')\n"
    Path("own.py").write_text(f"{code}    d = np.load('signs.npz')\n    return list(zip(d['x'], d['y']))\n")
    trials = new_card("tiny.onnx", data="python:own.py:images", images=30).trials
    assert trials is not None
    assert trials.numbers == new_card("tiny.onnx", data="signs.npz", images=30).trials.numbers  # type: ignore[union-attr]
    assert len(trials.numbers) > 6
    assert len(Path("calls").read_text()) <= 5


def test_a_known_set_is_found_by_its_files(folder: Path) -> None:
    made = new_card("tiny.onnx", data="test_batch.bin", images=20)
    assert made.trials is not None
    assert made.trials.images == 20
    Path("x.toml").write_text(made.text)
    assert valid("x.toml")["dataset"] == "cifar10"
    assert onnxnoise("cards", "new", "tiny.onnx", "--data", "nowhere", "-o", "y.toml").code == 3
    assert not Path("y.toml").exists()


def test_what_lies_beside_goes_first(folder: Path) -> None:
    names = [f"sign {i}" for i in range(10)]
    Path("config.json").write_text(json.dumps({"id2label": {str(i): name for i, name in enumerate(names)}}))
    beside = {"size": 48, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_rescale": True, "resample": 3}
    Path("preprocessor_config.json").write_text(json.dumps(beside))
    made = new_card("tiny.onnx")
    Path("x.toml").write_text(made.text)
    card = load_card(Path("x.toml"))
    assert card.dataset.names == tuple(names)
    assert (card.input.size, card.input.mean, card.input.scale) == (32, (0.5, 0.5, 0.5), 255)
    assert "preprocessor_config.json says 48 pixels, the graph takes 32: is it of this model?" in made.questions
    trials = new_card("tiny.onnx", data="signs.npz", images=30).trials
    assert trials is not None
    assert trials.numbers[0].hint.source == "preprocessor_config.json", "the same numbers as pixel/127.5 - 1"


def test_at_chance_no_numbers_are_taken(folder: Path) -> None:
    shuffled = np.random.default_rng(3).permutation(np.load("signs.npz")["y"])
    np.savez("noise.npz", x=nets.pictures(COUNT), y=shuffled)
    outcome = onnxnoise("cards", "new", "tiny.onnx", "--data", "noise.npz", "-o", "new.toml")
    assert outcome.code == 0
    assert "better than chance" in outcome.out
    assert "mean" not in valid("new.toml")


def test_the_template_is_printed_as_it_is_written() -> None:
    for name in ("template-torchvision", "resnet50"):
        assert onnxnoise("cards", "show", name, "--toml").out == resources.bundled("model_cards")[name].read_text(
            "utf-8"
        )


@pytest.mark.parametrize(
    ("made", "scale", "mean"),
    [
        (lambda x: prepared(x, 127.5, 1.0, 1.0), 1, 0),
        (lambda x: (x / 255).astype(np.float32), 0.5, 1),
        (lambda x: x.astype(np.float64), 127.5, 1),
    ],
    ids=["as the model takes them", "from 0 to 1", "from 0 to 255"],
)
def test_arrays_of_floats_are_tried_as_they_are_and_as_pixels(
    folder: Path, made: Any, scale: float, mean: float
) -> None:
    np.savez("floats.npz", x=made(nets.pictures(COUNT)), y=np.load("signs.npz")["y"])
    outcome = onnxnoise("cards", "new", "tiny.onnx", "--data", "floats.npz", "-o", "new.toml")
    assert outcome.code == 0, outcome.err
    card = valid("new.toml")
    assert (card["scale"], card["mean"]) == (scale, mean)
    bench = ("bench", "tiny.onnx", "--snr", 10, "--sweep", "all", "--draws", 1, "--json", "-", "--card", "new.toml")
    logits = graphs.run(graphs.onnx.load("tiny.onnx"), prepared(nets.pictures(COUNT), 127.5, 1.0, 1.0))
    best = nets.hits(logits, np.load("signs.npz")["y"], 1)
    assert onnxnoise(*bench, "--data", "floats.npz").json["clean"]["top1_hits"] == sum(best)


def test_a_model_of_rows_gets_them_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without data, and the card works at once."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    weights, rows = rng.standard_normal((6, 3)).astype(np.float32), rng.standard_normal((COUNT, 6)).astype(np.float32)
    text = "(float[N,6] rows, float[6,3] w) => (float[N,3] y) { y = MatMul (rows, w) }"
    graphs.saved(graphs.model(text, {"w": weights}), tmp_path, "rows.onnx")
    np.savez("rows.npz", x=rows, y=(rows @ weights).argmax(axis=1))
    for data in ((), ("--data", "rows.npz")):
        outcome = onnxnoise("cards", "new", "rows.onnx", *data, "-o", "new.toml")
        assert outcome.code == 0, outcome.err
        card = valid("new.toml")
        assert (card["classes"], card["scale"], card["mean"], "size" in card) == (3, 1, 0, False)
        bench = onnxnoise("bench", "rows.onnx", "--card", "new.toml", "--data", "rows.npz", "--draws", 2, "--json", "-")
        assert bench.json["clean"]["top1_hits"] == COUNT
        Path("new.toml").unlink()


@pytest.mark.parametrize("known", [True, False])
def test_classes_by_name_are_in_the_model_s_order(folder: Path, known: bool) -> None:
    """The names beside the model tell the folders' labels, where they are the folders' names; else the card has none."""
    names = [f"class {9 - label}" for label in range(10)]
    pixels, labels = nets.pictures(COUNT), np.load("signs.npz")["y"]
    files = {f"{names[label]}/{i}.png": encoded(pixels[i], "PNG") for i, label in enumerate(labels)}
    write(folder / "own", files | {f"{name}/.keep": b"" for name in names})
    told = {str(label): name if known else f"other {name}" for label, name in enumerate(names)}
    Path("config.json").write_text(json.dumps({"id2label": told}))
    outcome = onnxnoise("cards", "new", "tiny.onnx", "--data", "own", "-o", "new.toml")
    assert outcome.code == 0, outcome.err
    card = valid("new.toml")
    assert card["classes"] == (names if known else 10)
    assert ("names other classes than the images" in outcome.out) is not known
    bench = onnxnoise("bench", "tiny.onnx", "--card", "new.toml", "--data", "own", "--draws", 1, "--json", "-")
    assert bench.code == 0, bench.err
    if known:
        made = onnxnoise("bench", "tiny.onnx", "--card", "new.toml", "--data", "signs.npz", "--draws", 1, "--json", "-")
        assert bench.json["clean"]["top1_hits"] == made.json["clean"]["top1_hits"] > COUNT / 2
