"""Ranks are judged before everything that squashes or sorts the scores, and quantized outputs before their rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import graphs

from onnxnoise.errors import ModelError
from onnxnoise.model.network import find_layers

NET = (
    "(float[N,3,8,8] x, float[4,3,3,3] w, float[5,4] fw, float[5] fb{}) => ({} y) {{ h = Conv(x, w)  g = GlobalAveragePool(h)"
    "  f = Flatten(g)  l = Gemm<transB = 1>(f, fw, fb)  one = Constant<value_ints = [1]>()  two = Constant<value_float = 2.0>()"
    "  tiny = Constant<value_float = 0.0000001>()  {} }}"
)
SOFTMAX = "m = ReduceMax(l, one)  d = Sub(l, m)  e = Exp(d)  s = ReduceSum(e, one)"
TAILS = {
    "sigmoid": "y = Sigmoid(l)",
    "scaled sigmoid": "k = Mul(l, two)  y = Sigmoid(k)",
    "tanh": "y = Tanh(l)",
    "log of softmax": "p = Softmax(l)  y = Log(p)",
    "log of clipped softmax": "p = Softmax(l)  q = Clip(p, tiny)  y = Log(q)",
    "log of softmax and a bit": "p = Softmax(l)  q = Add(p, tiny)  y = Log(q)",
    "temperature": "k = Div(l, two)  y = Softmax(k)",
    "clip": "y = Clip(l, tiny, two)",
    "softplus": "y = Softplus(l)",
    "hard sigmoid": "y = HardSigmoid<alpha = 0.2>(l)",
    "softmax written out": f"{SOFTMAX}  y = Div(e, s)",
    "softmax without the maximum": "e = Exp(l)  s = ReduceSum(e, one)  y = Div(e, s)",
    "softmax by a reciprocal": f"{SOFTMAX}  r = Reciprocal(s)  y = Mul(e, r)",
    "softmax with a bit below": f"{SOFTMAX}  t = Add(s, tiny)  y = Div(e, t)",
    "softmax whose sum lost its dimension": "e = Exp(l)  s = ReduceSum<keepdims = 0>(e, one)  t = Unsqueeze(s, one)  y = Div(e, t)",
    "log softmax written out": f"{SOFTMAX}  t = Log(s)  y = Sub(d, t)",
    "log softmax by one operator": "s = ReduceLogSumExp(l, one)  y = Sub(l, s)",
    "unit length": "n = ReduceL2(l, one)  y = Div(l, n)",
    "squared softmax": "p = Softmax(l)  y = Pow(p, two)",
    "softmax, sorted": "k = Constant<value_ints = [5]>()  p = Softmax(l)  y, i = TopK(p, k)",
    "the best three": "k = Constant<value_ints = [3]>()  y, i = TopK(l, k)",
    "double": "p = Softmax(l)  y = Cast<to = 11>(p)",
    "half": "p = Sigmoid(l)  y = Cast<to = 10>(p)",
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS.keys())
def test_what_keeps_the_ranks(tail: str, tmp_path: Path) -> None:
    kind = "double" if "11" in tail else "float16" if "to = 10" in tail else "float"
    proto = graphs.model(NET.format("", f"{kind}[N,{3 if '[3]' in tail else 5}]", tail))
    classifier = graphs.load(proto, tmp_path)
    assert (classifier.logits, classifier.classes) == ("l", 5)
    network = find_layers(classifier)
    assert graphs.kinds(network) == ["conv", "dense"]
    x = graphs.image((2, 3, 8, 8))
    truth = graphs.model(NET.format("", "float[N,5]", "y = Identity(l)"))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(truth, x), atol=1e-5)


OTHERS = {
    "negative": "n = Neg(l)  y = Softmax(n)",
    "a negative scale": "m = Neg(two)  k = Mul(l, m)  y = Sigmoid(k)",
    "a scale of each class": "y = Mul(l, fb2)",
    "one minus it": "s = Sigmoid(l)  y = Sub(two, s)",
    "the mean, not positive": "n = ReduceMean(l, one)  y = Div(l, n)",
    "its square": "y = Pow(l, two)",
    "the worst": "k = Constant<value_ints = [5]>()  y, i = TopK<largest = 0>(l, k)",
    "sine": "y = Sin(l)",
}


@pytest.mark.parametrize("tail", OTHERS.values(), ids=OTHERS.keys())
def test_what_changes_the_ranks(tail: str, tmp_path: Path) -> None:
    proto = graphs.model(NET.format(", float[5] fb2", "float[N,5]", tail))
    assert graphs.load(proto, tmp_path).logits != "l"


@pytest.mark.parametrize(
    ("tail", "logits"),
    [
        ("y = QuantizeLinear(l, step, zp)", "l"),
        ("q = QuantizeLinear(l, step, zp)  d = DequantizeLinear(q, step, zp)  p = Softmax(d)  y = QuantizeLinear(p, step, zp)", "d"),
        ("q = QuantizeLinear(l, step, zp)  y = DequantizeLinear(q, step, zp)", "y"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_quantized_scores(kind: str, tail: str, logits: str, tmp_path: Path) -> None:
    output = "float[N,5]" if "y = Deq" in tail else f"{kind}[N,5]"
    values: dict[str, Any] = {"step": 0.05, "zp": 0}
    proto = graphs.model(NET.format(f", float step, {kind} zp", output, tail), values)
    assert graphs.load(proto, tmp_path).logits == logits


def test_weights_and_indices_are_no_scores(tmp_path: Path) -> None:
    text = NET.format("", "float[N,5]", "k = Constant<value_ints = [5]>()  y, i = TopK(l, k)")
    proto = graphs.model(text.replace("(float[N,5] y)", "(float[N,5] y, int64[N,5] i, float[5,4] fw)"))
    assert graphs.load(proto, tmp_path).logits == "l"


def test_an_output_of_classes_says_its_type(tmp_path: Path) -> None:
    proto = graphs.model(NET.format("", "int64[N]", "y = ArgMax<axis = 1, keepdims = 0>(l)"))
    with pytest.raises(ModelError, match=r"among 'y' int64 \?; .* without what follows them \(ArgMax"):
        graphs.load(proto, tmp_path)
