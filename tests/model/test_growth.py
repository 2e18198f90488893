"""A few bytes can't fill the memory: what constants would grow to is computed before they are."""

from __future__ import annotations

import subprocess
import sys
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


MANY = (
    "n = Constant<value_ints = [{0}, {0}]>()  k0 = ConstantOfShape<value = float[1] {{0.0001}}>(n) "
    + " ".join(f"k{i + 1} = MatMul(k{i}, k0)" for i in range(60))
    + "  huge = Identity(k60)"
)


@pytest.mark.parametrize(
    "body",
    [
        MANY.format(3000),
        "n = Constant<value_ints = [10000, 10000]>()  k0 = ConstantOfShape<value = float[1] {0.5}>(n) "
        + " ".join(f"k{i + 1} = Cos(k{i})" for i in range(60))
        + "  huge = Identity(k60)",
    ],
    ids=["products", "cosines"],
)
def test_many_steps_that_together_take_minutes(body: str, tmp_path: Path) -> None:
    assert "would take minutes" in refusal(NET.format(8, 192, body), tmp_path)


INTERRUPTED = """
import os, signal, sys, threading, time
from onnxnoise import cli
from onnxnoise.model.checks import growth
from onnxnoise.runtime.attended import is_running
growth._WORK = 1e99
def send():
    while not is_running():
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=send, daemon=True).start()
sys.argv = ["onnxnoise", "layers", sys.argv[1]]
cli.main()
"""


def test_ctrl_c_is_heard_while_constants_are_computed(tmp_path: Path) -> None:
    """A minute's work of the optimizer, which nothing but the end of the process ends."""
    (tmp_path / "bomb.onnx").write_bytes(graphs.model(NET.format(8, 192, MANY.format(4000))).SerializeToString())
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path / "bomb.onnx")], check=False, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (130, "error: interrupted\n")
    assert time.monotonic() - began < 30


def test_what_stays_small_is_computed(tmp_path: Path) -> None:
    body = "n = Constant<value_ints = [1000, 1000]>()  k = ConstantOfShape<value = float[1] {0.5}>(n)  huge = Cos(k)"
    assert graphs.load(graphs.model(NET.format(8, 192, body)), tmp_path).logits == "m"
