"""Mutated ONNX files: five small models, changed in their bytes or in their fields as damage, exporters and attackers change them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import onnx

from support import graphs, nets

SEEDS: dict[str, Callable[[], onnx.ModelProto]] = {
    "residual": lambda: nets.residual(nets.weights()),
    "dense": lambda: graphs.model(
        "(float[N,3,8,8] x, float[192,16] k, float[16] b, float[5,16] fw, float[5] fb) => (float[N,5] y)"
        " { f = Flatten(x)  h = MatMul(f, k)  a = Add(h, b)  r = Relu(a)  y = Gemm<transB = 1>(r, fw, fb) }"
    ),
    "shapes": lambda: graphs.model(
        "(float[N,3,8,8] x, float[4,3,3,3] w, float[5,144] fw) => (float[N,5] y) { c = Conv(x, w)  s = Shape(c)"
        " z = Constant<value_ints = [0]>()  n = Gather(s, z)  m = Constant<value_ints = [-1]>()"
        " t = Concat<axis = 0>(n, m)  f = Reshape(c, t)  y = Gemm<transB = 1>(f, fw) }"
    ),
    "branches": lambda: graphs.model(
        "(float[N,3,8,8] x, float[4,3,3,3] w, float[5,144] fw) => (float[N,5] y) { b = Constant<value_int = 1>()"
        " q = Cast<to = 9>(b)  c = If(q) <then_branch = t () => (float[N,4,6,6] u) { u = Conv(x, w) },"
        " else_branch = e () => (float[N,4,6,6] v) { v = Conv(x, w) }>  f = Flatten(c)  y = Gemm<transB = 1>(f, fw) }"
    ),
    "quantized": lambda: graphs.model(
        "(float[N,3,8,8] x, int8[4,3,3,3] w, float s, int8 z, float[5,144] fw) => (float[N,5] y)"
        " { k = DequantizeLinear(w, s, z)  c = Conv(x, k)  f = Flatten(c)  y = Gemm<transB = 1>(f, fw) }"
    ),
}
EXTREMES = (-(2**63), -(2**31), -1, 0, 1, 2, 7, 255, 65_536, 2**31 - 1, 2**31, 2**40, 2**63 - 1)
OPERATORS = (
    "Range",
    "Expand",
    "Tile",
    "ConstantOfShape",
    "Pad",
    "Loop",
    "Resize",
    "Identity",
    "NoSuchOperator",
    "Conv",
    "Gather",
)


def mutants(seed: int) -> Iterator[tuple[str, bytes]]:
    """Endlessly, (what was done to which model, the file); the same ones for the same seed."""
    dice = random.Random(seed)
    files = {name: make().SerializeToString() for name, make in SEEDS.items()}
    while True:
        name = dice.choice(list(files))
        change = dice.choice((_bytes, _bytes, _fields))
        yield f"{name}, {change.__name__.strip('_')}", change(files[name], dice)


def _bytes(content: bytes, dice: random.Random) -> bytes:
    """Some bytes flipped, cut out, doubled or put in."""
    changed = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 8))):
        if not changed:
            break
        at, length = dice.randrange(len(changed)), dice.choice((1, 1, 4, 64))
        way = dice.randrange(5)
        if way == 0:
            changed[at] ^= 1 << dice.randrange(8)
        elif way == 1:
            del changed[at : at + length]
        elif way == 2:
            changed[at:at] = changed[at : at + length]
        elif way == 3:
            changed[at:at] = dice.randbytes(length)
        else:
            changed = changed[: at + 1]
    return bytes(changed)


def _fields(content: bytes, dice: random.Random) -> bytes:
    """One to three fields of the graph changed to what no exporter writes."""
    model = onnx.ModelProto.FromString(content)
    for _ in range(dice.choice((1, 1, 2, 3))):
        dice.choice(_CHANGES)(model.graph, dice)
    return model.SerializeToString()


def _dimension(graph: onnx.GraphProto, dice: random.Random) -> None:
    tensor = dice.choice(graph.initializer)
    if tensor.dims:
        tensor.dims[dice.randrange(len(tensor.dims))] = dice.choice(EXTREMES)


def _type(graph: onnx.GraphProto, dice: random.Random) -> None:
    dice.choice(graph.initializer).data_type = dice.randrange(40)


def _name(graph: onnx.GraphProto, dice: random.Random) -> None:
    node = dice.choice(graph.node)
    names = [name for each in graph.node for name in (*each.input, *each.output)]
    place = dice.choice((node.input, node.output))
    if place:
        place[dice.randrange(len(place))] = dice.choice([*names, "", "\x00", "x" * 70_000])


def _operator(graph: onnx.GraphProto, dice: random.Random) -> None:
    dice.choice(graph.node).op_type = dice.choice(OPERATORS)


def _attribute(graph: onnx.GraphProto, dice: random.Random) -> None:
    node = dice.choice(graph.node)
    name = dice.choice([*(each.name for each in node.attribute), "axis", "group", "pads", "strides", "kernel_shape"])
    value = dice.choice(
        (dice.choice(EXTREMES), [dice.choice(EXTREMES) for _ in range(dice.randrange(9))] or [0], "x", 1e38)
    )
    node.attribute.append(onnx.helper.make_attribute(name, value))


def _twice(graph: onnx.GraphProto, dice: random.Random) -> None:
    items = dice.choice((graph.node, graph.initializer, graph.input, graph.output))
    items.append(dice.choice(items))


def _gone(graph: onnx.GraphProto, dice: random.Random) -> None:
    items = dice.choice((graph.node, graph.initializer, graph.input, graph.output))
    if items:
        del items[dice.randrange(len(items))]


def _outside(graph: onnx.GraphProto, dice: random.Random) -> None:
    tensor = dice.choice(graph.initializer)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key in ("location", "offset", "length"):
        value = dice.choice(("../../etc/passwd", "/etc/passwd", "model.onnx", "", "0", "-1", "99999999999999999999"))
        tensor.external_data.add(key=key, value=value)


_CHANGES = (_dimension, _type, _name, _operator, _attribute, _twice, _gone, _outside)
