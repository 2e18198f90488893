"""Values that are no batch of images (the batch size, shapes made of it) live across cuts like any other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from support import graphs, nets

from onnxnoise.engine.sweep import ChunkSweep
from onnxnoise.engine.values import blank_pass, room
from onnxnoise.model.network import find_layers
from onnxnoise.records import NoiseSetting, Tally, Variant
from onnxnoise.runtime import session
from onnxnoise.runtime.providers import find_provider

VARIANTS = [Variant(snr, draw) for draw in (0, 1) for snr in (10.0, 1.5)]
CONSTANTS = (
    "i0 = Constant<value_int = 0>()  i9 = Constant<value_int = 9>()  i4 = Constant<value_int = 4>()  i2 = Constant<value_int = 2>()"
    "  a0 = Constant<value_ints = [0]>()  v4 = Constant<value_ints = [4]>()  v9 = Constant<value_ints = [9]>()  v2 = Constant<value_ints = [2]>()"
)
TORCHSCRIPT = (  # the batch size is a scalar that every Reshape unsqueezes
    f"{CONSTANTS}  sh = Shape(x)  n = Gather(sh, i0)  n1 = Unsqueeze(n, a0)  heads = Concat<axis = 0>(n1, v9, v2, v2)",
    "m1 = Unsqueeze(n, a0)  back = Concat<axis = 0>(m1, v9, v4)",
)
DYNAMO = (  # the batch size is a part of the shape
    f"{CONSTANTS}  n1 = Shape<start = 0, end = 1>(x)  heads = Concat<axis = 0>(n1, v9, v2, v2)",
    "back = Concat<axis = 0>(n1, v9, v4)",
)
PLAIN = ("heads = Constant<value_ints = [0, 9, 2, 2]>()", "back = Constant<value_ints = [0, 9, 4]>()")
ATTENTION = (
    "(float[N,3,6,6] x, float[4,3,2,2] w, float[4] b, float[4] ga, float[4] be, float[4,4] q, float[4,4] k, float[4,4] v, float[4,4] o,"
    " float[5,4] fw, float[5] fb) => (float[N,5] y) {{ {} c = Conv<strides = [2, 2]>(x, w, b)  flat = Constant<value_ints = [0, 4, 9]>()"
    "  c1 = Reshape(c, flat)  t = Transpose<perm = [0, 2, 1]>(c1)  l = LayerNormalization(t, ga, be)"
    "  qm = MatMul(l, q)  qr = Reshape(qm, heads)  qt = Transpose<perm = [0, 2, 1, 3]>(qr)"
    "  km = MatMul(l, k)  kr = Reshape(km, heads)  kt = Transpose<perm = [0, 2, 3, 1]>(kr)"
    "  vm = MatMul(l, v)  vr = Reshape(vm, heads)  vt = Transpose<perm = [0, 2, 1, 3]>(vr)"
    "  s = MatMul(qt, kt)  p = Softmax<axis = -1>(s)  z = MatMul(p, vt)  zt = Transpose<perm = [0, 2, 1, 3]>(z)  {}"
    "  zr = Reshape(zt, back)  zo = MatMul(zr, o)  u = Add(t, zo)  ax = Constant<value_ints = [1]>()  f = ReduceMean<keepdims = 0>(u, ax)"
    "  y = Gemm<transB = 1>(f, fw, fb) }}"
)


LAYERS = {1: ("w", "b"), 2: ("ga", "be"), **{i: (name,) for i, name in enumerate("qkvo", 3)}, 7: ("fw", "fb")}
MATRICES = ("q", "k", "v", "o")


def tallies(form: tuple[str, str], folder: Path, lifted: bool | None = None) -> list[Tally]:
    network = find_layers(graphs.load(graphs.model(ATTENTION.format(*form)), folder))
    assert {each.index: tuple(tensor.name for tensor in each.tensors) for each in network.layers} == LAYERS
    provider = find_provider("cpu")
    batches = [IMAGES[i : i + 8] for i in range(0, 24, 8)]
    todo = {layer.index: VARIANTS for layer in network.layers}
    assert blank_pass(network, provider, batches[0]).classes == 5
    with ChunkSweep(network, NoiseSetting(), provider, batches, LABELS, 0, lifted=lifted) as chunk:
        parts = [chunk.all(VARIANTS, network.layers), chunk.single(todo), chunk.cumulative(todo, network.layers)]
        return [chunk.clean(), *(tally for part in parts for made in part for tally in made)]


IMAGES = graphs.image((24, 3, 6, 6))
LABELS = np.arange(24) % 5


@pytest.mark.parametrize("lifted", [False, True])
@pytest.mark.parametrize("form", [TORCHSCRIPT, DYNAMO])
def test_a_batch_size_that_lives_across_cuts(form: tuple[str, str], lifted: bool, tmp_path: Path) -> None:
    assert tallies(form, tmp_path, lifted) == tallies(PLAIN, tmp_path, lifted)


def by_hand(tally: Tally) -> npt.NDArray[np.float32]:
    """Logits of the whole file with its weights patched; noise on a dense kernel is drawn in its shape (out, in)."""
    plain = graphs.model(ATTENTION.format(*TORCHSCRIPT))

    def turned(values: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        return {name: value.T if name in MATRICES else value for name, value in values.items()}

    last = tally.layer or len(LAYERS)
    first = last if tally.sweep == "single" else 1
    noisy = {} if tally.sweep == "clean" else {index: LAYERS[index] for index in range(first, last + 1)}
    changed = turned(nets.noisy(turned(graphs.initializers(plain)), tally.level, tally.draw, noisy))
    for tensor in plain.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(changed[tensor.name]), tensor.name))
    return graphs.run(plain, IMAGES)


@pytest.mark.parametrize("form", [TORCHSCRIPT, DYNAMO])
def test_its_hits_are_those_of_the_whole_file_with_patched_weights(form: tuple[str, str], tmp_path: Path) -> None:
    made = tallies(form, tmp_path)
    assert len(made) == 1 + len(VARIANTS) * (1 + 2 * len(LAYERS))
    for tally in made:
        scores = by_hand(tally)
        assert np.unpackbits(np.frombuffer(tally.top1, np.uint8), count=24).tolist() == nets.hits(scores, LABELS, 1)


def test_every_value_has_a_place_of_its_shape() -> None:
    types: dict[str, tuple[int, tuple[int, ...]]] = {
        "scalar": (7, ()),
        "shape": (7, (4,)),
        "images": (1, (8, 3, 2, 2)),
        "none": (1, (0, 3)),
    }
    places = list(room(types, 3, find_provider("cpu")))
    for place in places:
        assert place is not None
        assert session.types(place) == types


def test_a_scalar_stays_a_scalar() -> None:
    array: npt.NDArray[Any] = np.array(8, np.int64)
    assert session.to_host(session.to_device(array, find_provider("cpu"))).shape == ()
