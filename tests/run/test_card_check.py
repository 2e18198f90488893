"""A file held against a card: each thing that can differ, what explains it, and where nothing can be said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from support import graphs, nets
from support.imaging import card, cifar_card

from onnxnoise.data.cards import load_bundled
from onnxnoise.data.datasets import KNOWN
from onnxnoise.data.sources.cifar import files as cifar_files
from onnxnoise.data.sources.imagenet import ilsvrc
from onnxnoise.run.card_check import Finding, card_text, check_card, clean_finding
from onnxnoise.run.loading import Subject, open_model

MERGED = """
(float[N,3,32,32] image, float[6,3,8,8] c_weights_fused_bn, float[6] c_bias_fused_bn, float[10,6] w, float[10] b)
=> (float[N,10] y) {
    c = Conv <kernel_shape = [8, 8], strides = [8, 8]> (image, c_weights_fused_bn, c_bias_fused_bn)
    r = Relu (c)
    p = GlobalAveragePool (r)
    v = Flatten (p)
    y = Gemm <transB = 1> (v, w, b)
}"""
DECOMPOSED = """
(float[N,3,32,32] image, float[6,3,8,8] k, float[6,1,1] scale, float[6,1,1] shift, float[10,6] w, float[10] b)
=> (float[N,10] y) {
    c = Conv <kernel_shape = [8, 8], strides = [8, 8]> (image, k)
    m = Mul (c, scale)
    a = Add (m, shift)
    r = Relu (a)
    p = GlobalAveragePool (r)
    v = Flatten (p)
    y = Gemm <transB = 1> (v, w, b)
}"""
PARAMETERS = sum(value.size for value in nets.weights().values())


def residual(folder: Path, **options: bool) -> Subject:
    """5 layers: conv, batchnorm, conv, batchnorm, dense."""
    values = nets.weights()
    if options.get("folded"):
        values = {name: value for name, value in values.items() if "_bn_" not in name}
        values |= {"stem_bias": np.ones(6, np.float32), "block_bias": np.arange(6, dtype=np.float32)}
    return open_model(str(graphs.saved(nets.residual(values, **options), folder)))


def written(text: str, folder: Path) -> Subject:
    return open_model(str(graphs.saved(graphs.model(text), folder)))


def found(subject: Subject, folder: Path, more: str = "", dataset: str = "cifar10") -> dict[str, Finding]:
    return {finding.what: finding for finding in check_card(subject, cifar_card(folder, dataset, more))}


def test_the_bundled_model_is_what_its_card_says() -> None:
    findings = check_card(open_model("resnet20-cifar10"), load_bundled("resnet20-cifar10"))
    assert [(finding.what, finding.agrees) for finding in findings] == [
        ("layers", True),
        ("parameters", True),
        ("input layout", True),
        ("input channels", True),
        ("input size", True),
        ("input type", True),
        ("classes", True),
    ]
    assert [finding.why for finding in findings] == [None] * 7


def test_where_the_card_says_nothing_nothing_disagrees(tmp_path: Path) -> None:
    findings = found(residual(tmp_path), tmp_path)
    assert findings["layers"] == Finding("layers", None, 5, None)
    assert findings["parameters"] == Finding("parameters", None, PARAMETERS, None)
    assert findings["input layout"] == Finding("input layout", "auto", "nchw", True)


def test_another_network_is_told_by_its_layers(tmp_path: Path) -> None:
    findings = found(residual(tmp_path), tmp_path, '[structure]\nlayers = 4\nparameters = 9\nnote = "2 dense"')
    why = "the file has 2 conv, 2 batchnorm, 1 dense; the card says: 2 dense"
    assert findings["layers"] == Finding("layers", 4, 5, False, why)
    assert findings["parameters"] == Finding("parameters", 9, PARAMETERS, False, "its layers differ already")
    same = found(residual(tmp_path), tmp_path, "[structure]\nlayers = 5\nparameters = 9")
    assert same["parameters"].why == "the file has 2 conv, 2 batchnorm, 1 dense"


def test_merged_batch_norms_are_explained_by_who_merged_them(tmp_path: Path) -> None:
    layers = found(written(MERGED, tmp_path), tmp_path, '[structure]\nlayers = 3\nnote = "1 batch norm"')["layers"]
    assert (layers.card, layers.file, layers.agrees) == (3, 2, False)
    said = "the file has 1 conv, 1 dense; the card says: 1 batch norm. 1 batch norms were merged into the layers before them by"
    assert (layers.why or "").startswith(f"{said} tf2onnx")
    assert "_func_map.pop(('Conv', 'BatchNormalization'))" in (layers.why or "")
    more = found(written(MERGED, tmp_path), tmp_path, "[structure]\nlayers = 1")["layers"]
    assert more.why == "the file has 1 conv, 1 dense", "merging explains fewer layers, not more"


def test_without_a_marker_merging_is_only_a_hint(tmp_path: Path) -> None:
    layers = found(residual(tmp_path, folded=True), tmp_path, "[structure]\nlayers = 5")["layers"]
    assert layers.agrees is False
    assert "no batch norm found; if the network had any, its exporter merged them" in (layers.why or "")


def test_decomposed_batch_norms_explain_fewer_parameters(tmp_path: Path) -> None:
    subject = written(DECOMPOSED, tmp_path)
    findings = found(subject, tmp_path, f"[structure]\nlayers = 3\nparameters = {subject.network.parameters + 12}")
    assert findings["layers"] == Finding("layers", 3, 3, True)
    assert findings["parameters"].agrees is False
    assert "2 tensors instead of 4" in (findings["parameters"].why or "")


def test_layout_and_size(tmp_path: Path) -> None:
    findings = found(residual(tmp_path), tmp_path, 'layout = "nhwc"\nsize = 28')
    layout, size = findings["input layout"], findings["input size"]
    assert (layout.card, layout.file, layout.agrees) == ("nhwc", "nchw", False)
    assert 'set layout = "nchw", or "auto", in [input]' in (layout.why or "")
    assert (size.card, size.file, size.agrees) == ("28x28", "32x32", False)
    assert findings["input channels"] == Finding("input channels", "any", 3, True)


def test_free_sides_take_any_size_and_a_mean_for_each_channel_must_fit(tmp_path: Path) -> None:
    free = written(MERGED.replace("[N,3,32,32]", "[N,3,H,W]"), tmp_path)
    assert found(free, tmp_path)["input size"] == Finding("input size", "32x32", "anyxany", True)
    grey = written(MERGED.replace("[N,3,32,32]", "[N,1,32,32]").replace("[6,3,8,8]", "[6,1,8,8]"), tmp_path)
    assert found(grey, tmp_path)["input channels"] == Finding("input channels", "any", 1, True)
    several = found(grey, tmp_path, "mean = [1, 2, 3]")
    assert several["input channels"] == Finding("input channels", "3", 1, False)


@pytest.mark.parametrize(
    ("uint8", "more", "said", "agrees", "why"),
    [
        (False, "", "(pixel/scale - mean)/std", True, None),
        (False, "scale = 255", "(pixel/scale - mean)/std", True, None),
        (False, "scale = 1", "pixels from 0 to 255", True, "right only if the file scales the pixels itself"),
        (False, "scale = 1\nmean = 120", "(pixel/scale - mean)/std", True, None),
        (True, "", "pixels from 0 to 255", True, None),
        (True, 'preset = "tensorpack"', "pixels from 0 to 255", True, None),
        (True, "scale = 255", "(pixel/scale - mean)/std", False, "the model takes uint8 pixels as they are"),
        (True, "mean = [1, 2, 3]", "(pixel/scale - mean)/std", False, "the model takes uint8 pixels as they are"),
    ],
)
def test_input_type(tmp_path: Path, uint8: bool, more: str, said: str, agrees: bool, why: str | None) -> None:
    finding = found(residual(tmp_path, nhwc_uint8=uint8), tmp_path, more)["input type"]
    assert (finding.card, finding.file, finding.agrees) == (said, "uint8" if uint8 else "float32", agrees)
    assert (finding.why or "").startswith(why or "")
    assert (finding.why is None) == (why is None)


def test_classes(tmp_path: Path) -> None:
    subject = residual(tmp_path)
    assert found(subject, tmp_path)["classes"] == Finding("classes", 10, 10, True)
    offset = found(subject, tmp_path, "label_offset = 1")["classes"]
    assert (offset.card, offset.agrees) == (11, False)
    assert "cifar10, 10 classes and a label_offset of 1" in (offset.why or "")
    assert found(subject, tmp_path, dataset="cifar100")["classes"].card == 100
    untold = replace(subject, network=replace(subject.network, classes=None))
    assert found(untold, tmp_path)["classes"] == Finding("classes", 10, None, None)


def test_classes_are_those_of_the_data() -> None:
    data = {name: form.label_counts[-1] for name, form in cifar_files.FORMS.items()} | {"imagenet": len(ilsvrc.wnids())}
    assert data == {name: dataset.classes for name, dataset in KNOWN.items()}


def test_a_mean_image_before_the_first_weight_is_no_layer(tmp_path: Path) -> None:
    """What the recipe of template-keras-cifar10 puts into the file."""
    text = MERGED.replace("(float[N,3,32,32] image,", "(float[N,3,32,32] image, float[1,3,32,32] mean,")
    text = text.replace("c = Conv", "x = Sub (image, mean)\n    c = Conv").replace("(image, c_w", "(x, c_w")
    assert [layer.kind for layer in written(text, tmp_path).layers] == ["conv", "dense"]


@pytest.mark.parametrize("clean", [0.0123, 0.5, 0.9091, 1.0])
def test_clean_accuracy_is_held_against_the_binomial(tmp_path: Path, clean: float) -> None:
    figures = cifar_card(tmp_path, more=f'[measured]\nmetric = "top1"\nclean = {clean}')
    for hits in range(0, 401, 8):
        inside = 2 * min(binom.cdf(hits, 400, clean), binom.sf(hits - 1, 400, clean)) >= 0.001
        finding = clean_finding("top1", hits, 400, figures)
        assert (finding.card, finding.file, finding.agrees) == (clean, hits / 400, inside)
        assert ("99.9 % interval" in (finding.why or "")) == (not inside)


def test_clean_accuracy_measured_comes_before_published_and_other_metrics_say_nothing(tmp_path: Path) -> None:
    both = cifar_card(tmp_path, more='[measured]\nclean = 0.9\n[published]\nmetric = "top1"\nclean = 0.5')
    assert clean_finding("top1", 90, 100, both).card == 0.9
    five = card(tmp_path, '[input]\ndataset = "cifar10"\n[published]\nmetric = "top5"\nclean = 0.5')
    assert clean_finding("top1", 90, 100, five) == Finding(
        "clean top1", None, 0.9, None, "the card has no top1 without noise"
    )
    assert clean_finding("top5", 50, 100, five).agrees is True


def test_card_text_has_what_the_card_says_in_its_order() -> None:
    rows = card_text(load_bundled("resnet50"))
    assert [key for key, _ in rows[:3]] == ["model.name", "model.title", "model.framework"]
    text = dict(rows)
    assert len(text) == len(rows)
    assert text["input.mean"] == "0, 0, 0"
    assert text["input.interpolation"] == "opencv-cubic"
    assert text["structure.parameters"] == "25,610,152"
    assert text["published.clean"] == "93.15%"
    assert text["published.all_layers"] == "SNR 100: 92.0%, SNR 50: 89.0%, SNR 20: 69.0%, SNR 10: 24.0%"
    assert text["model.recipe"].splitlines()[0].startswith("# Python 3.11")
    assert not {"model.file", "measured.clean", "input.preset"} & set(text)
    assert dict(card_text(load_bundled("resnet20-cifar10")))["model.file"].endswith("resnet20-cifar10.onnx")


@pytest.mark.parametrize(
    ("metric", "hits", "guess"),
    [("top1", 0, True), ("top1", 7, True), ("top1", 40, False), ("top5", 45, True), ("top5", 99, False)],
)
def test_a_clean_accuracy_that_guessing_has_too_is_said_to_be_so(metric, hits, guess, tmp_path: Path) -> None:
    bare = card(tmp_path, '[input]\ndataset = "cifar10"')
    finding = clean_finding(metric, hits, 100, bare)
    assert (finding.agrees, finding.file) == (None, hits / 100)
    assert finding.why is not None
    assert finding.why.startswith(f"the card has no {metric} without noise")
    assert ("guessing does as well" in finding.why) == guess


def test_an_input_whose_layout_nobody_tells(tmp_path: Path) -> None:
    text = "(float[N,3,3,3] x, float[10,27] w, float[10] b) => (float[N,10] y) { f = Flatten(x)  y = Gemm<transB = 1>(f, w, b) }"
    layout = found(written(text, tmp_path), tmp_path)["input layout"]
    assert (layout.card, layout.file, layout.agrees) == ("auto", None, None)
    assert layout.why == "the file does not tell; images go in as nchw"
