"""A batch size written inside a graph whose input takes any number of images: it runs with that number, and says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import graphs

from onnxnoise.model.network import find_layers

NET = (
    "(float[N,3,8,8] x, float[4,3,3,3] w, float[1,1,4] token, float[5,4] fw, float[5] fb) => (float[N,5] y) {{"
    " c = Conv(x, w)  g = GlobalAveragePool(c)  zero = Constant<value_ints = [0]>()  back = Constant<value_ints = [1, 4]>()  {}  y = Gemm<transB = 1>(f, fw, fb) }}"
)
TOKENS = "i = Constant<value_ints = [0, 4, 36]>()  r = Reshape(c, i)  t = Transpose<perm = [0, 2, 1]>(r)"
FIXED = {
    "Reshape": "i = Constant<value_ints = [1, 4]>()  f = Reshape(g, i)",
    "Reshape to a row": "i = Constant<value_ints = [1, -1]>()  f = Reshape(g, i)",
    "Concat": f"{TOKENS}  d = Concat<axis = 1>(token, t)  a = Constant<value_int = 0>()  f = Gather<axis = 1>(d, a)",
    "Gather": "k = Constant<value_int = 0>()  s = Gather(g, k)  f = Reshape(s, back)",
    "Squeeze": "s = Squeeze(c, zero)  a = Constant<value_ints = [1, 2]>()  m = ReduceMean<keepdims = 0>(s, a)  f = Unsqueeze(m, zero)",
}


@pytest.mark.parametrize("how", FIXED)
def test_one_image_at_a_time(how: str, tmp_path: Path) -> None:
    proto = graphs.model(NET.format(FIXED[how]))
    network = find_layers(graphs.load(proto, tmp_path))
    assert network.image.shape == (1, 3, 8, 8)
    (notice,) = [notice for notice in network.notices if notice.code == "fixed_batch"]
    assert f"{how.split(maxsplit=1)[0]} '" in notice.message
    assert "written for 1" in notice.message
    x = graphs.image((1, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        "f = Flatten(g)",
        "i = Constant<value_ints = [-1, 4]>()  f = Reshape(g, i)",
        "i = Constant<value_ints = [0, -1]>()  f = Reshape(g, i)",
        "a = Constant<value_ints = [2, 3]>()  f = Squeeze(g, a)",
    ],
)
def test_a_free_batch_stays_free(body: str, tmp_path: Path) -> None:
    network = find_layers(graphs.load(graphs.model(NET.format(body)), tmp_path))
    assert network.image.batch is None
    assert not [notice for notice in network.notices if notice.code == "fixed_batch"]


@pytest.mark.parametrize(
    "token",
    [
        "n = Shape<start = 0, end = 1>(x)  one = Constant<value_ints = [1]>()  four = Constant<value_ints = [4]>()  s = Concat<axis = 0>(n, one, four)"
        "  nil = Constant<value_float = 0.0>()  z = Expand(nil, s)  e = Add(z, token)",
        "n = Shape<start = 0, end = 1>(x)  one = Constant<value_ints = [1]>()  four = Constant<value_ints = [4]>()  s = Concat<axis = 0>(n, one, four)"
        "  z = ConstantOfShape(s)  e = Add(token, z)",
        "n = Shape<start = 0, end = 1>(x)  one = Constant<value_ints = [1]>()  four = Constant<value_ints = [4]>()  s = Concat<axis = 0>(n, one, four)"
        "  z = ConstantOfShape<value = float[1] {1.0}>(s)  e = Mul(z, token)",
    ],
)
def test_a_class_token_added_to_zeros_is_a_parameter(token: str, tmp_path: Path) -> None:
    body = f"{TOKENS}  {token}  d = Concat<axis = 1>(e, t)  k = Constant<value_int = 0>()  f = Gather<axis = 1>(d, k)"
    proto = graphs.model(NET.format(body))
    network = find_layers(graphs.load(proto, tmp_path))
    assert ("parameter", {0: "token"}) in graphs.members(network)
    assert not network.unattached
    x = graphs.image((2, 3, 8, 8))
    np.testing.assert_allclose(graphs.logits(network, x), graphs.run(proto, x), atol=1e-5)
