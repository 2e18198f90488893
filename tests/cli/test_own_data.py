"""A classifier of one's own, with images and classes of its own, from the card to the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from support import nets
from support.command import onnxnoise, refused
from support.imaging import encoded, write, write_tar

from onnxnoise.results.reading import open_run_file
from onnxnoise.run.loading import open_model

QUICK = ("--snr", "10,3", "--draws", "2", "--provider", "cpu", "--json", "-")
OWN = '[input]\ndataset = "colors"\nclasses = 10\nsize = 32\nscale = 255\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    nets.bench_files(tmp_path)
    (tmp_path / "own.toml").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pictures() -> tuple[list[bytes], list[int]]:
    """The records of `test_batch.bin` as PNG files, and their labels."""
    content = np.frombuffer(Path("test_batch.bin").read_bytes(), np.uint8).reshape(-1, 3073)
    pixels = content[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return [encoded(np.ascontiguousarray(each), "PNG") for each in pixels], content[:, 0].tolist()


@pytest.mark.parametrize("layout", ["list", "webdataset", "npz"])
def test_the_same_pixels_in_another_layout_have_the_same_hits(layout: str, folder: Path) -> None:
    files, labels = pictures()
    names = [f"{i:02}.png" for i in range(len(files))]
    if layout == "list":
        lines = "".join(f"{name} {label}\n" for name, label in zip(names, labels, strict=True))
        write(folder / "own", dict(zip(names, files, strict=True)) | {"val.txt": lines.encode()})
    elif layout == "webdataset":
        pairs = [(f"{i:02}.cls", str(label).encode()) for i, label in enumerate(labels)]
        write_tar(
            folder / "own",
            dict(pair for pairs in zip(zip(names, files, strict=True), pairs, strict=True) for pair in pairs),
        )
    else:
        np.savez(folder / "own.npz", x=nets.pictures(len(labels)), y=labels)
        (folder / "own.npz").rename(folder / "own")
    expected = onnxnoise("bench", "tiny.onnx", "--data", "test_batch.bin", *QUICK).json
    result = onnxnoise("bench", "tiny.onnx", "--card", "own.toml", "--data", "own", "--out", "own.sqlite", *QUICK).json
    assert result["dataset"]["name"] == "colors"
    assert (result["clean"], result["cells"]) == (expected["clean"], expected["cells"])
    assert open_run_file("own.sqlite").classes == 10
    shown = onnxnoise("cards", "show", "own.toml").out
    assert "input.classes" in shown


def test_another_number_of_classes_than_the_model_s_is_told(folder: Path) -> None:
    (folder / "own.toml").write_text(OWN.replace("10", "12"))
    outcome = onnxnoise("cards", "check", "tiny.onnx", "--card", "own.toml")
    assert outcome.code == 1
    assert "colors, 12 classes; correct classes or label_offset in [input]" in outcome.out


@pytest.mark.parametrize(
    ("classes", "said"),
    [(9, "one more, probably a background class"), (11, "one less; is one of the data's a background")],
)
def test_one_class_more_or_less_is_named(classes: int, said: str, folder: Path) -> None:
    (folder / "own.toml").write_text(OWN.replace("10", str(classes)))
    assert said in onnxnoise("cards", "check", "tiny.onnx", "--card", "own.toml").out
    files, labels = pictures()
    write(folder / "own", {f"{label}/{i}.png": files[i] for i, label in enumerate(labels)})
    found = len({*labels})
    (folder / "own.toml").write_text(OWN.replace("10", str(found + 1)))
    outcome = onnxnoise("bench", "tiny.onnx", "--card", "own.toml", "--data", "own", *QUICK)
    assert outcome.code == 3
    assert "is one of the classes a background class?" in outcome.error


def test_class_folders_of_37_classes(folder: Path) -> None:
    values = nets.balanced(nets.weights(classes=37), nets.pictures(40))
    nets.saved(nets.residual(values))
    pixels = nets.pictures(40)
    labels = nets.labelled(nets.residual(values), nets.as_input(pixels))
    names = [f"breed {label:02}" for label in range(37)]
    write(folder / "pets", {f"{names[k]}/{i}.png": encoded(pixels[i], "PNG") for i, k in enumerate(labels)})
    (folder / "classes.txt").write_text("\n".join(names))
    (folder / "own.toml").write_text('[input]\ndataset = "pets"\nclasses = "classes.txt"\nsize = 32\n')
    result = onnxnoise("bench", "tiny.onnx", "--card", "own.toml", "--data", "pets", "--out", "own.sqlite", *QUICK).json
    truth = nets.hits(nets.graphs.run(nets.residual(values), nets.as_input(pixels)), labels, 1)
    assert (result["clean"]["images"], result["clean"]["top1_hits"]) == (40, sum(truth))
    assert open_run_file("own.sqlite").classes == 37


def left_out(folder: Path, more: str = "", name: str = "colors") -> tuple[str, ...]:
    (folder / "own.toml").write_text(f'[input]\ndataset = "{name}"\nsize = 32\nscale = 255\n{more}')
    return ("bench", "tiny.onnx", "--card", "own.toml", *QUICK, "--data")


def test_a_card_may_leave_its_classes_out(folder: Path) -> None:
    """They are then the model's outputs, and the data's are held against these."""
    files, labels = pictures()
    write(folder / "own", {f"{label}/{i}.png": files[i] for i, label in enumerate(labels)})
    np.savez(folder / "own.npz", x=nets.pictures(len(labels)), y=labels)
    expected = onnxnoise("bench", "tiny.onnx", "--data", "test_batch.bin", *QUICK).json
    bench = left_out(folder)
    for data in ("own", "own.npz"):
        result = onnxnoise(*bench, data, "--out", f"{data}.sqlite").json
        assert (result["dataset"]["name"], result["clean"]) == ("colors", expected["clean"])
        assert open_run_file(f"{data}.sqlite").classes == 10
    check = onnxnoise("cards", "check", "tiny.onnx", "--card", "own.toml", "--data", "own.npz")
    assert "the card leaves them out: the model's outputs count" in check.out
    assert "as many as the model tells apart" in onnxnoise("cards", "show", "own.toml").out
    (folder / "rules.toml").write_text('[[rule]]\nname = "any"\nsnr = 1000\nmin = 0.2\n')
    gate = onnxnoise("gate", "tiny.onnx", "--card", "own.toml", "--data", "own", "--rules", "rules.toml")
    assert gate.code in (0, 5), gate.err


def test_data_of_other_classes_than_the_model_s_are_refused(folder: Path) -> None:
    files, labels = pictures()
    bench = left_out(folder, name="cifar-10")
    write(folder / "few", {f"{label % 9}/{i}.png": files[i] for i, label in enumerate(labels)})
    mean = "did you mean cifar10?"
    refused(onnxnoise(*bench, "few"), 3, "has 9 class folders", "the model tells 10 classes apart", "background", mean)
    refused(onnxnoise(*bench, "test_batch.bin"), 3, "not recognized", mean)
    np.savez("far.npz", x=nets.pictures(3), y=[0, 10, 1])
    refused(onnxnoise(*bench, "far.npz"), 3, "image 1 has label 10", "0 to 9")
    refused(onnxnoise(*left_out(folder, "label_offset = 9"), "far.npz"), 3, "leaves 1 of the model's 10 outputs")
    np.savez("short.npz", x=nets.pictures(20), y=[i % 9 for i in range(20)])
    warned = onnxnoise(*left_out(folder), "short.npz", "--no-clean-check").json["warnings"]
    (said,) = [each["message"] for each in warned if each["code"] == "classes_left_out"]
    assert "no image is of the last one, 9" in said


def test_the_outputs_of_a_graph_of_free_width_are_counted_by_running_it(folder: Path) -> None:
    """A graph whose file doesn't say how many columns its logits have."""
    model = onnx.load("tiny.onnx")
    graph, node = model.graph, onnx.helper.make_node
    graph.node[-1].output[0], free = "pre", graph.output[0].name
    graph.node.extend([node("Shape", ["image"], ["count"], end=1), node("Concat", ["count", "rest"], ["to"], axis=0)])
    graph.node.append(node("Reshape", ["pre", "to"], [free]))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1]), "rest"))
    graph.output[0].type.tensor_type.shape.dim[1].dim_param = "classes"
    onnx.save(model, "tiny.onnx")
    assert open_model("tiny.onnx").network.classes is None
    np.savez("own.npz", x=nets.pictures(20), y=np.arange(20) % 10)
    outcome = onnxnoise(*left_out(folder), "own.npz", "--no-clean-check", "--out", "free.sqlite")
    assert outcome.code == 0, outcome.err
    assert open_run_file("free.sqlite").classes == 10
