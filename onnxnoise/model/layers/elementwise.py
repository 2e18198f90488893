"""Constants that enter element by element: decomposed norms, scales, and parameters of their own."""

from __future__ import annotations

from collections.abc import Collection

from onnxnoise.model.graph import LAYOUT, QUANTIZE, SHAPE_OF, Array, Place
from onnxnoise.model.layers.candidates import Candidate, Candidates
from onnxnoise.records import BIAS, CAFFE_BIAS, CAFFE_SCALE, MEAN, SCALE, WEIGHT

_SCALE, _SHIFT = ("Mul", "Div"), ("Add", "Sub")
_STATISTICS = frozenset(("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2"))
_DEVIATION = frozenset(("Sqrt", "Reciprocal", "Pow", "ReduceL2"))
_MASKED = -50.0
_ELEMENTWISE = frozenset(("Add", "Sub", "Mul", "Div", "Sqrt", "Reciprocal", "Neg", "Pow", "Where"))


def weighted_values(candidates: Candidates) -> set[str]:
    """The names of the values that a noise layer feeds. A constant that meets none of these is preprocessing, or shape
    arithmetic.
    """
    graph = candidates.graph
    weighted: set[str] = set()
    waiting = [name for candidate in candidates.found for name in graph.nodes[candidate.anchor].output]
    while waiting:
        name = waiting.pop()
        if not name or name in weighted:
            continue
        weighted.add(name)
        users = (graph.nodes[i] for i in graph.consumers.get(name, ()))
        waiting += [output for user in users if user.op_type not in SHAPE_OF for output in user.output]
    return weighted


def claim_constants(candidates: Candidates, i: int, weighted: Collection[str]) -> None:
    """Give the constants of node `i`, an Add, Sub, Mul, Div or Concat, to layers; call it in an executable order of
    the nodes.
    """
    graph = candidates.graph
    node = graph.nodes[i]
    if node.domain or node.op_type not in ("Add", "Sub", "Mul", "Div", "Concat"):
        return
    data = [name for slot, name in enumerate(node.input) if graph.root(i, slot) is None]
    if not data:  # a weight made of others in a way that the optimizer could not compute
        return
    meets_weights = any(name in weighted for name in data)
    for slot in range(len(node.input)):
        place = graph.weight(i, slot)
        if place is None or not candidates.free(place):
            continue
        if not meets_weights or (node.op_type == "Add" and _is_mask(graph.value(place))):
            candidates.no_weight(place)
        elif node.op_type == "Concat" and _is_token(graph.value(place)):
            candidates.add("parameter", i, {WEIGHT: place})  # zeros too: that is how training begins
        elif node.op_type == "Concat":
            candidates.parameter(i, place)
        else:
            _claim_operand(candidates, i, slot, place)


def _is_token(value: Array) -> bool:
    """Whether a constant is one token of a sequence, (1, 1, features): a class token."""
    return value.ndim == 3 and value.shape[:2] == (1, 1)


def _is_mask(value: Array) -> bool:
    """Whether a constant is an attention mask that an exporter computed: 0, or a large negative number where nothing passes."""
    low = value.min()
    return bool(low <= _MASKED and ((value == 0) | (value == low)).all())


def _claim_operand(candidates: Candidates, i: int, slot: int, place: Place) -> None:
    graph = candidates.graph
    op = graph.nodes[i].op_type
    channels = graph.vector(place)
    before = graph.source(i, 1 - slot)
    norm = candidates.at.get(before) if before is not None else None
    if norm is not None and _is_caffe(candidates, norm, op, channels):
        _join_caffe(candidates, norm, i, place)
    elif op in _SCALE and _is_normalized(candidates, i, 1 - slot):
        candidates.add("norm", i, {SCALE: place, BIAS: _norm_shift(candidates, i, channels)})
    elif op == "Mul" or (op == "Div" and slot == 1):
        _, shift = _next(candidates, i, _SHIFT, channels)
        candidates.add("scale" if shift is None else "batchnorm", i, {SCALE: place, BIAS: shift})
    else:
        node, scale = _next(candidates, i, _SCALE, channels) if op == "Sub" and slot == 1 else (i, None)
        _, shift = _next(candidates, node, _SHIFT, channels) if scale is not None else (i, None)
        if shift is not None:
            candidates.add("batchnorm", i, {MEAN: place, SCALE: scale, BIAS: shift})
        else:
            candidates.parameter(i, place)


def _is_caffe(candidates: Candidates, norm: Candidate, op: str, channels: int) -> bool:
    """Whether a constant right behind `norm` is Caffe's separate scale or bias of it."""
    if norm.kind != "batchnorm" or candidates.graph.nodes[norm.anchor].op_type != "BatchNormalization":
        return False
    return op in ("Mul", "Add") and channels == candidates.graph.value(norm.members[MEAN]).size


def _join_caffe(candidates: Candidates, norm: Candidate, i: int, place: Place) -> None:
    if candidates.graph.nodes[i].op_type == "Add":
        candidates.join(norm, CAFFE_BIAS, place)
        return
    candidates.join(norm, CAFFE_SCALE, place)
    _, shift = _next(candidates, i, ("Add",), candidates.graph.vector(place))
    if shift is not None:
        candidates.join(norm, CAFFE_BIAS, shift)


def _next(candidates: Candidates, i: int, operators: Collection[str], channels: int) -> tuple[int, Place | None]:
    """(position of the next operator, place of its constant) where it is one of `operators`, the only consumer, and its constant
    is free and has `channels` elements; else (i, None).

    In `constant - data` and `constant / data` the constant neither shifts nor scales the data: it doesn't count.
    """
    graph = candidates.graph
    for following in graph.chain(i, LAYOUT | QUANTIZE) if channels else ():
        op = graph.nodes[following].op_type
        for slot in (0, 1) if op in ("Add", "Mul") else (1,):
            place = graph.weight(following, slot) if op in operators else None
            if place is not None and candidates.free(place) and graph.vector(place) == channels:
                return following, place
    return i, None


def _is_normalized(candidates: Candidates, i: int, slot: int) -> bool:
    """Whether an operand comes from a normalization core: data divided by its own statistics, with no layer in between.

    A mean without a deviation is a pooling, not a core.
    """
    graph = candidates.graph
    waiting, seen = [graph.nodes[i].input[slot]], set()
    mean = deviation = False
    while waiting and not (mean and deviation):
        maker = graph.producer.get(waiting.pop())
        if maker is None or maker in seen or maker in candidates.at:
            continue
        if maker in candidates.cores:
            return True
        seen.add(maker)
        node = graph.nodes[maker]
        data = [name for slot, name in enumerate(node.input) if graph.root(maker, slot) is None]
        mean |= node.op_type in _STATISTICS
        deviation |= node.op_type in _DEVIATION or (node.op_type == "Div" and len(data) > 1)
        residual = node.op_type == "Add" and len(data) > 1
        if node.op_type in _ELEMENTWISE | LAYOUT | QUANTIZE and not residual:
            waiting += data
    return mean and deviation


def _norm_shift(candidates: Candidates, i: int, channels: int) -> Place | None:
    """A norm's beta: the per-channel constant of an Add or Sub at most two arithmetic steps after its gamma.

    Keras writes `y = x*a + (beta - mean*a)` with `a = gamma / std`, so beta need not be on the way of `x`.
    """
    graph = candidates.graph
    waiting = [(i, 0)]
    while waiting:
        node, steps = waiting.pop(0)
        for following in graph.consumers.get(graph.nodes[node].output[0], ()):
            op = graph.nodes[following].op_type
            places = [place for slot in (0, 1) if (place := graph.weight(following, slot)) is not None]
            if op in LAYOUT | QUANTIZE or op == "Neg":
                waiting.append((following, steps))
            elif op in ("Add", "Sub") and places:
                return places[0] if candidates.free(places[0]) and graph.vector(places[0]) == channels else None
            elif op == "Mul" and not places and steps < 1:
                waiting.append((following, steps + 1))
    return None
