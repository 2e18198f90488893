"""Model files that can't be used are told in one line: what, where, what to do; exit code 3, and no run file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from support import graphs, nets
from support.command import Outcome, onnxnoise, refused


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("good"))


@pytest.fixture
def folder(tmp_path: Path, files: nets.Files, monkeypatch: pytest.MonkeyPatch) -> Path:
    return nets.copied(files, tmp_path, monkeypatch)


def bench(*arguments: object, model: str = "tiny.onnx") -> Outcome:
    return onnxnoise(
        "bench", model, "--data", "test_batch.bin", "--snr", "10", "--draws", "1", "--provider", "cpu", *arguments
    )


def text() -> None:
    Path("tiny.onnx").write_text("this is no model\n" * 50)


def empty() -> None:
    Path("tiny.onnx").write_bytes(b"")


def cut_short() -> None:
    content = Path("tiny.onnx").read_bytes()
    Path("tiny.onnx").write_bytes(content[: len(content) // 2])


def a_folder() -> None:
    Path("tiny.onnx").unlink()
    Path("tiny.onnx").mkdir()


def training_mode() -> None:
    def train(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
        node.attribute.append(onnx.helper.make_attribute("training_mode", 1))
        node.output.extend(["running_mean", "running_variance"])

    nets.changed(train)


def dynamically_quantized() -> None:
    nets.saved(
        graphs.model(
            """(float[N, 3, 32, 32] image, int8[3072, 10] w) => (float[N, 10] z) {
                v = Flatten (image)
                q, scale, zero = DynamicQuantizeLinear (v)
                i = MatMulInteger (q, w, zero)
                f = Cast <to = 1> (i)
                z = Mul (f, scale)
            }"""
        )
    )


def integer_operators() -> None:
    nets.saved(
        graphs.model(
            """(float[N, 3, 32, 32] image, float s, uint8 zp, uint8[3072, 10] w) => (float[N, 10] z) {
                v = Flatten (image)
                q = QuantizeLinear (v, s, zp)
                i = QLinearMatMul (q, s, zp, w, s, zp, s, zp)
                z = DequantizeLinear (i, s, zp)
            }""",
            {"s": 0.1, "zp": 0},
        )
    )


def external(location: str, length: int = 4608, size: int | None = None) -> Callable[[], None]:
    def point_there() -> None:
        def move(model: onnx.ModelProto) -> None:
            tensor = next(t for t in model.graph.initializer if t.name == "stem_weight")
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
                tensor.external_data.add(key=key, value=value)

        nets.changed(move)
        if size is not None:
            Path(location).write_bytes(bytes(size))

    return point_there


def no_image_input() -> None:
    nets.saved(
        graphs.model("(float[3, 28, 28] pixels, float[28, 10] w) => (float[3, 28, 10] z) { z = MatMul (pixels, w) }")
    )


def two_inputs() -> None:
    nets.saved(
        graphs.model(
            """(float[N, 3, 32, 32] image, float[3072, 10] w, float[N, 10] prior) => (float[N, 10] z) {
                v = Flatten (image)
                m = MatMul (v, w)
                z = Add (m, prior)
            }""",
            {"prior": None},
        )
    )


def no_classifier_output() -> None:
    nets.saved(
        graphs.model(
            """(float[N, 3, 32, 32] image, float[10, 3, 3, 3] w) => (float[N, 10, 30, 30] mask) {
                mask = Conv <kernel_shape = [3, 3]> (image, w)
            }"""
        )
    )


def two_outputs() -> None:
    nets.saved(
        graphs.model(
            """(float[N, 3, 32, 32] image, float[3072, 10] a, float[3072, 10] b) => (float[N, 10] y, float[N, 10] z) {
                v = Flatten (image)
                y = MatMul (v, a)
                z = MatMul (v, b)
            }"""
        )
    )


def kernels_as_inputs() -> None:
    def expose(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        del model.graph.initializer[:]

    nets.changed(expose)


def no_layers() -> None:
    nets.saved(
        graphs.model(
            """(float[N, 10, 32, 32] image) => (float[N, 10] z) {
                p = GlobalAveragePool (image)
                z = Flatten (p)
            }"""
        )
    )


def terabytes() -> None:
    nets.saved(
        graphs.model(
            """(float[N, 3, 32, 32] image, float[3072, 10] w) => (float[N, 10] z) {
                shape = Constant <value_ints = [1000000, 1000000]> ()
                huge = ConstantOfShape (shape)
                most = ReduceMax <keepdims = 0> (huge)
                v = Flatten (image)
                m = MatMul (v, w)
                z = Add (m, most)
            }"""
        )
    )


def bfloat16() -> None:
    def narrow(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            value = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, onnx.TensorProto.BFLOAT16, value.shape, value.ravel()))
        for info in (*model.graph.input, *model.graph.output):
            info.type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16

    nets.changed(narrow)


def unknown_operator() -> None:
    def invent(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "Convolve"

    nets.changed(invent)


def dangling() -> None:
    def cut(model: onnx.ModelProto) -> None:
        model.graph.node[2].input[0] = "nowhere"

    nets.changed(cut)


MODELS: list[tuple[Callable[[], None], tuple[str, ...]]] = [
    (text, ("not an ONNX file", "export")),
    (empty, ("not an ONNX file", "export")),
    (cut_short, ("cut short", "copy it again")),
    (a_folder, ("is a folder", ".onnx file in it")),
    (training_mode, ("training mode", "stem_normed", "model.eval()")),
    (dynamically_quantized, ("dynamically quantized", "MatMulInteger", "export the float model")),
    (integer_operators, ("integer operators", "QLinearMatMul", "export the float model")),
    (external("weights.bin"), ("stem_weight", "'weights.bin'", "missing", "copy that file")),
    (external("../weights.bin"), ("stem_weight", "'../weights.bin'", "outside", "beside the model")),
    (external("/etc/passwd"), ("stem_weight", "'/etc/passwd'", "outside", "beside the model")),
    (external("short.bin", size=100), ("stem_weight", "4,608", "'short.bin'", "100", "cut short")),
    (no_image_input, ("no image input", "'pixels'", "four dimensions")),
    (two_inputs, ("2 inputs", "'prior'", "one image input")),
    (no_classifier_output, ("no classifier output", "'mask'", "class scores")),
    (two_outputs, ("several outputs", "'y'", "'z'", "--output")),
    (kernels_as_inputs, ("no weights in the file", "export_params=True")),
    (no_layers, ("no weights in the file",)),
    (terabytes, ("1000000x1000000", "4,000.0 GB", "memory")),
    (bfloat16, ("bfloat16", "export it as float32")),
    (unknown_operator, ("Convolve",)),
    (dangling, ("nowhere",)),
]


@pytest.mark.parametrize(("spoil", "words"), MODELS, ids=[each.__name__ + "-" + words[0] for each, words in MODELS])
def test_models(spoil: Callable[[], None], words: tuple[str, ...], folder: Path) -> None:
    spoil()
    refused(bench(), 3, "tiny.onnx", *words)
    refused(onnxnoise("layers", "tiny.onnx", "-q"), 3, "tiny.onnx", *words)
    assert not list(folder.glob("*.sqlite*"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing.onnx", ("no such file", "no bundled model", "resnet20-cifar10")),
        ("x" * 300, ("xxx",)),
        ("net.pt", ("PyTorch", "export")),
        ("net.h5", ("Keras", "export")),
    ],
)
def test_model_names(name: str, words: tuple[str, ...], folder: Path) -> None:
    if "." in name and name != "nothing.onnx":
        Path(name).write_bytes(b"PK\x03\x04 weights" * 100)
    refused(bench(model=name), 3, *words)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--output", "logits"), 2, ("no output 'logits'", "z")),
        (("--layers", "conv9"), 2, ("'conv9'", "matches no layer", "onnxnoise layers")),
        (("--provider", "NoSuchProvider"), 4, ("'NoSuchProvider'", "auto, cpu, cuda")),
        (("--provider", "CoreMLExecutionProvider"), 4, ("CoreMLExecutionProvider", "CPUExecutionProvider")),
    ],
)
def test_flags_that_the_model_or_machine_refuse(
    arguments: tuple[str, ...], code: int, words: tuple[str, ...], folder: Path
) -> None:
    refused(bench(*arguments), code, *words)
    assert not list(folder.glob("*.sqlite*"))


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["cuda", "CUDAExecutionProvider"])
def test_cuda_without_a_gpu(name: str, folder: Path) -> None:
    refused(bench("--provider", name), 4, "CUDA", "--provider cpu")
