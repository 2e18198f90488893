from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from support import graphs

from onnxnoise.errors import ModelError
from onnxnoise.model.classifier import load_classifier
from onnxnoise.model.files.file import read_model
from onnxnoise.model.files.stub import INLINE_BYTES
from onnxnoise.model.network import find_layers

NET = """(float[N,3,8,8] x, float[40,3,3,3] w, float[40] b, float[5,40] fw, float[5] fb) => (float[N,5] y) {
  h = Conv(x, w, b)
  g = GlobalAveragePool(h)
  f = Flatten(g)
  y = Gemm<transB=1>(f, fw, fb)
}"""


def external(folder: Path, name: str = "model.onnx", data: str = "weights.bin") -> Path:
    path = folder / name
    onnx.save(
        graphs.model(NET),
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=data,
        size_threshold=0,
    )
    return path


def rewritten(path: Path, change: Callable[[onnx.TensorProto], None]) -> None:
    """The model at `path` with one change to the first tensor's reference to its data."""
    proto = onnx.load(path, load_external_data=False)
    change(proto.graph.initializer[0])
    path.write_bytes(proto.SerializeToString())


def set_entry(key: str, value: str) -> Callable[[onnx.TensorProto], None]:
    def change(tensor: onnx.TensorProto) -> None:
        for entry in [e for e in tensor.external_data if e.key == key]:
            tensor.external_data.remove(entry)
        tensor.external_data.add(key=key, value=value)

    return change


def test_large_tensors_stay_in_the_file(tmp_path: Path) -> None:
    proto = graphs.model(NET)
    path = graphs.saved(proto, tmp_path)
    file = read_model(path)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.folder == tmp_path
    for tensor, whole in zip(file.stub.graph.initializer, proto.graph.initializer, strict=True):
        large = len(whole.raw_data) > INLINE_BYTES
        assert (tensor.data_location == onnx.TensorProto.EXTERNAL) == large
        assert not (large and tensor.raw_data)
        place = {entry.key: entry.value for entry in tensor.external_data}
        if large:
            start = int(place["offset"])
            assert path.read_bytes()[start : start + int(place["length"])] == whole.raw_data
    network = find_layers(load_classifier(path))
    for name, value in graphs.initializers(proto).items():
        np.testing.assert_array_equal(network.constants[name], value)


def test_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    data = graphs.model(NET).SerializeToString()
    path = tmp_path / "cut.onnx"
    for cut in [*range(0, len(data), 23), *range(len(data) - 40, len(data))]:
        path.write_bytes(data[:cut])
        with pytest.raises(ModelError, match=r"cut\.onnx"):
            load_classifier(path)


def test_a_broken_byte_is_no_traceback(tmp_path: Path) -> None:
    data = graphs.model(NET).SerializeToString()
    random = np.random.default_rng(0)
    for at in random.integers(0, len(data), 60):
        path = tmp_path / "broken.onnx"
        path.write_bytes(data[:at] + bytes([int(random.integers(256))]) + data[at + 1 :])
        with suppress(ModelError):  # many bytes don't matter, and every other exception fails the test
            find_layers(load_classifier(path))


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("empty.onnx", b"", "not an ONNX file"),
        ("zeros.onnx", bytes(1000), "not an ONNX file"),
        ("text.onnx", b"# not a model\n" * 50, "not an ONNX file"),
        ("model.h5", b"\x89HDF\r\n\x1a\n", "a Keras file"),
        ("model.pt", b"PK\x03\x04", "a PyTorch file"),
        ("model.tflite", b"TFL3", "a TFLite file"),
    ],
)
def test_other_files_are_named(name: str, content: bytes, found: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelError, match=found):
        read_model(path)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_model(tmp_path / "nothing.onnx")
    with pytest.raises(ModelError, match="is a folder"):
        read_model(tmp_path)


def test_a_model_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    graphs.saved(graphs.model(NET), tmp_path / "store", "blob")
    link = tmp_path / "linked.onnx"
    link.symlink_to(tmp_path / "store" / "blob")
    classifier = load_classifier(link)
    assert classifier.name == "linked"
    assert find_layers(classifier).parameters == 40 * 27 + 40 + 205


def test_external_data_is_read_and_digested(tmp_path: Path) -> None:
    path = external(tmp_path)
    inside = find_layers(load_classifier(graphs.saved(graphs.model(NET), tmp_path, "inside.onnx")))
    outside = find_layers(load_classifier(path))
    for name, value in inside.constants.items():
        np.testing.assert_array_equal(outside.constants[name], value)
    data = tmp_path / "weights.bin"
    digest = hashlib.sha256(path.read_bytes())
    digest.update(hashlib.sha256(data.read_bytes()).digest())
    assert read_model(path).sha256 == digest.hexdigest()
    before = data.read_bytes()
    data.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert read_model(path).sha256 != digest.hexdigest()


def test_external_data_missing_or_short(tmp_path: Path) -> None:
    path = external(tmp_path)
    data = tmp_path / "weights.bin"
    whole = data.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        data.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="cut short or from another export"):
            load_classifier(path)
    data.unlink()
    with pytest.raises(ModelError, match="which is missing"):
        load_classifier(path)


@pytest.mark.parametrize("how", ["..", "absolute", "link", "folder link", "empty"])
def test_external_data_never_leaves_the_folder(how: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = external(folder)
    outside = tmp_path / "weights.bin"
    (folder / "weights.bin").rename(outside)
    location = {"..": "../weights.bin", "absolute": str(outside), "link": "link.bin", "folder link": "up/weights.bin"}
    (folder / "link.bin").symlink_to(outside)
    (folder / "up").symlink_to(tmp_path)
    rewritten(path, set_entry("location", location.get(how, "")))
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_classifier(path)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("offset", "many", "broken reference"),
        ("offset", "-8", "cut short or from another"),
        ("offset", "999999", "cut short or from another"),
        ("length", "8", "takes 4,320 bytes, but refers to 8"),
        ("location", "bad\0name", "broken reference"),
    ],
)
def test_broken_references(key: str, value: str, found: str, tmp_path: Path) -> None:
    path = external(tmp_path)
    rewritten(path, set_entry(key, value))
    with pytest.raises(ModelError, match=found):
        load_classifier(path)


def test_a_constant_of_a_node_may_not_leave_the_folder_either(tmp_path: Path) -> None:
    proto = graphs.model(NET)
    tensor = onnx.TensorProto(name="c", dims=[5], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/hostname")
    node = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    proto.graph.node.insert(0, node)
    with pytest.raises(ModelError, match="outside the model's folder"):
        graphs.load(proto, tmp_path)


@pytest.mark.parametrize("payload", [b"", b"\0" * 8, b"\0" * 5000])
def test_a_tensor_with_other_bytes_than_its_shape(payload: bytes, tmp_path: Path) -> None:
    proto = graphs.model(NET)
    proto.graph.initializer[0].raw_data = payload
    with pytest.raises(ModelError, match=r"'w' of shape \[40, 3, 3, 3\]"):
        graphs.load(proto, tmp_path)


def test_typed_data_is_fine(tmp_path: Path) -> None:
    proto = graphs.model(NET)
    tensor = proto.graph.initializer[1]
    tensor.float_data.extend(onnx.numpy_helper.to_array(tensor).tolist())
    tensor.ClearField("raw_data")
    assert find_layers(graphs.load(proto, tmp_path)).parameters == 40 * 27 + 40 + 205


def test_a_tensor_may_say_that_its_data_is_inside(tmp_path: Path) -> None:
    proto = graphs.model(NET)
    for tensor in proto.graph.initializer:
        tensor.data_location = onnx.TensorProto.DEFAULT  # as onnx leaves it after reading external data
    said = find_layers(load_classifier(graphs.saved(proto, tmp_path, "said.onnx")))
    plain = find_layers(load_classifier(graphs.saved(graphs.model(NET), tmp_path, "plain.onnx")))
    assert said.constants.keys() == plain.constants.keys()
    for name, value in plain.constants.items():
        np.testing.assert_array_equal(said.constants[name], value)


def test_shapes_and_axes_may_lie_outside_too(tmp_path: Path) -> None:
    text = (
        "(float[N,3,8,8] x, float[4,3,3,3] w, int64[2] to, float[5,144] fw) => (float[N,5] y)"
        " { c = Conv(x, w)  f = Reshape(c, to)  y = Gemm<transB = 1>(f, fw) }"
    )
    proto = graphs.model(text, {"to": [0, -1]})
    path = tmp_path / "outside.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="all.bin", size_threshold=0)
    network = find_layers(load_classifier(path))
    x = graphs.image((2, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(graphs.model(text, {"to": [0, -1]}), x), atol=1e-5)


def hugging_face(folder: Path) -> Path:
    """The cache of Hugging Face: a snapshot holds links to blobs that are called by their digests."""
    path = external(folder)
    (folder / "blobs").mkdir()
    snapshot = folder / "snapshots" / "rev"
    snapshot.mkdir(parents=True)
    for name, blob in ((path.name, "0123abc"), ("weights.bin", "4567def")):
        (folder / name).rename(folder / "blobs" / blob)
        (snapshot / name).symlink_to(Path("../../blobs") / blob)
    return snapshot / path.name


def test_a_cache_of_links(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    truth = find_layers(load_classifier(external(tmp_path / "plain")))
    path = hugging_face(tmp_path)
    network = find_layers(load_classifier(path))
    assert network.sha256 == truth.sha256
    assert network.name == truth.name
    for name, value in truth.constants.items():
        np.testing.assert_array_equal(network.constants[name], value)
    (path.parent / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"'weights\.bin', which is missing"):
        load_classifier(path)


def test_a_link_beside_its_data(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "store").mkdir()
    path.rename(tmp_path / "store" / "blob")
    path.symlink_to(tmp_path / "store" / "blob")
    assert find_layers(load_classifier(path)).parameters == 40 * 27 + 40 + 205


def test_a_cache_never_leads_elsewhere(tmp_path: Path) -> None:
    path = hugging_face(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "blobs" / "4567def").rename(elsewhere / "weights.bin")
    (path.parent / "weights.bin").unlink()
    (path.parent / "weights.bin").symlink_to(elsewhere / "weights.bin")
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_classifier(path)
    (path.parent / "weights.bin").unlink()
    rewritten(path, set_entry("location", "../../elsewhere/weights.bin"))
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_classifier(path)


def test_a_checksum_of_the_data(tmp_path: Path) -> None:
    path = external(tmp_path)
    digest = hashlib.sha1((tmp_path / "weights.bin").read_bytes()).hexdigest()

    rewritten(path, set_entry("checksum", digest))
    assert load_classifier(path).name == path.stem
    rewritten(path, set_entry("checksum", "0" * 40))
    with pytest.raises(ModelError, match="wants a data file of SHA-1 0000"):
        load_classifier(path)


def test_data_without_an_offset(tmp_path: Path) -> None:
    path = external(tmp_path)

    def change(tensor: onnx.TensorProto) -> None:
        for entry in [entry for entry in tensor.external_data if entry.key != "location"]:
            tensor.external_data.remove(entry)

    rewritten(path, change)
    with (tmp_path / "weights.bin").open("ab") as data:
        data.write(b"more")
    with pytest.raises(ModelError, match="no offset"):
        load_classifier(path)


def repeated_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(model.graph.initializer[0])


def repeated_attribute(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Gemm")
    node.attribute.append(onnx.helper.make_attribute("transB", 0))


def function_without_opset(model: onnx.ModelProto) -> None:
    model.functions.add(domain="local", name="f", input=["a"], output=["b"]).node.add(
        op_type="Relu", input=["a"], output=["b"]
    )


def axes_that_are_no_numbers(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Flatten")
    floats = onnx.numpy_helper.from_array(np.array([2, 3], np.float32), "floats")
    model.graph.initializer.append(floats)
    node.CopyFrom(onnx.helper.make_node("Squeeze", [node.input[0], "floats"], list(node.output)))


def quantized_along_nothing(model: onnx.ModelProto) -> None:
    for name, value in (("q", np.zeros(40, np.int8)), ("s", np.ones(40, np.float32)), ("z", np.zeros(40, np.int8))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    model.graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"], axis=3))
    model.graph.node[1].input[2] = "dq"


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (quantized_along_nothing, "DequantizeLinear 'dq' works along axis 3 of 'q', which has 1 dimensions"),
        (repeated_initializer, "two initializers are called"),
        (repeated_attribute, "Gemm 'y' has two attributes 'transB'"),
        (function_without_opset, "function local.f does not say which opset"),
        (axes_that_are_no_numbers, r"operand 'axes' of Squeeze .* is 'floats', a tensor\(float\)"),
    ],
)
def test_what_breaks_the_rules_of_onnx(spoil: Callable[[onnx.ModelProto], None], found: str, tmp_path: Path) -> None:
    model = graphs.model(NET)
    spoil(model)
    with pytest.raises(ModelError, match=found):
        load_classifier(graphs.saved(model, tmp_path))
