"""A few bytes can't fill the memory: what constants would grow to is computed before they are."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support import graphs

from onnxnoise.errors import ModelError

NET = (
    "(float[N,3,{0},{0}] x, float[{1},10] w) => (float[N,10] y) {{ {2}  most = ReduceMax<keepdims = 0>(huge)"
    "  v = Flatten(x)  m = MatMul(v, w)  y = Add(m, most) }}"
)
COUNT = "a = Constant<value_int = 0>()  b = Constant<value_int = 20000000000>()  c = Constant<value_int = 1>()  r = Range(a, b, c)  huge = Cast<to = 1>(r)"
LONG = "n = Constant<value_ints = [30000, 1]>()  k = ConstantOfShape(n)  t = Transpose(k)"
BOMBS = {
    "range": COUNT,
    "range of a fraction": COUNT.replace("value_int = 20000000000", "value_float = 1.0").replace("value_int = 1>", "value_float = 0.000000001>").replace("value_int = 0>", "value_float = 0.0>").replace("20000000000", "1"),
    "shape": "n = Constant<value_ints = [100000, 100000]>()  huge = ConstantOfShape(n)",
    "expand": "o = Constant<value_float = 1.0>()  n = Constant<value_ints = [100000, 100000]>()  huge = Expand(o, n)",
    "tile": "o = Constant<value_floats = [1.0, 2.0]>()  n = Constant<value_ints = [4000000000]>()  huge = Tile(o, n)",
    "pad": "o = Constant<value_floats = [1.0, 2.0]>()  n = Constant<value_ints = [0, 4000000000]>()  huge = Pad(o, n)",
    "doubling": "h0 = Constant<value_floats = [1.0, 2.0]>()  " + "  ".join(f"h{i + 1} = Concat<axis = 0>(h{i}, h{i})" for i in range(40)) + "  huge = Cos(h40)",
    "one more of the last two": "h0 = Constant<value_floats = [1.0, 2.0]>()  h1 = Constant<value_floats = [1.0, 2.0]>()  " + "  ".join(f"h{i + 2} = Concat<axis = 0>(h{i}, h{i + 1})" for i in range(60)) + "  huge = Cos(h61)",
    "rows beside columns": f"{LONG}  huge = Add(k, t)",
    "rows times columns": f"{LONG}  huge = MatMul(k, t)",
    "one hot": "n = Constant<value_ints = [1000000]>()  i = ConstantOfShape<value = int64[1] {1}>(n)  d = Constant<value_int = 1000000>()  b = Constant<value_floats = [0.0, 1.0]>()  huge = OneHot(i, d, b)",
}  # fmt: skip


def refusal(text: str, folder: Path) -> str:
    started = time.monotonic()
    with pytest.raises(ModelError) as caught:
        graphs.load(graphs.model(text), folder)
    assert time.monotonic() - started < 10
    return str(caught.value)


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_bombs(bomb: str, tmp_path: Path) -> None:
    message = refusal(NET.format(8, 192, bomb), tmp_path)
    assert "GB of this machine's memory" in message
    assert "made by" in message


def test_as_many_as_the_image_has_pixels(tmp_path: Path) -> None:
    count = "s = Shape(x)  i = Constant<value_int = 2>()  n = Gather(s, i)  p = Mul(n, n)  a = Constant<value_int = 0>()  c = Constant<value_int = 1>()"
    text = NET.format(100000, 10, f"{count}  r = Range(a, p, c)  huge = Cast<to = 1>(r)")
    assert "made by Range" in refusal(text, tmp_path)


def test_products_that_take_minutes(tmp_path: Path) -> None:
    body = (
        "n = Constant<value_ints = [9000, 9000]>()  k = ConstantOfShape<value = float[1] {0.5}>(n)  huge = MatMul(k, k)"
    )
    assert "would take minutes" in refusal(NET.format(8, 192, body), tmp_path)


def test_what_stays_small_is_computed(tmp_path: Path) -> None:
    body = "n = Constant<value_ints = [1000, 1000]>()  k = ConstantOfShape<value = float[1] {0.5}>(n)  huge = Cos(k)"
    assert graphs.load(graphs.model(NET.format(8, 192, body)), tmp_path).logits == "m"
