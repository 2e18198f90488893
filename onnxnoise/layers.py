"""Which initializers form which noise layer: one layer per weight-bearing operator (DESIGN 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from onnxnoise.errors import ModelError
from onnxnoise.graph import LAYOUT, QUANTIZE, Graph, attribute
from onnxnoise.records import Kind

Place = tuple[int, int]
"""(node, operand) through which an initializer enters the graph."""

_RECURRENT = {"LSTM", "GRU", "RNN"}
_NORMALIZATION = {"LayerNormalization", "InstanceNormalization", "GroupNormalization"}
_STATISTICS = {"ReduceMean", "ReduceSumSquare", "ReduceL2", "BatchNormalization", "InstanceNormalization"}
_ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Sqrt", "Reciprocal", "Neg", "Pow"}
_BIAS_PATH = LAYOUT | QUANTIZE | {"Slice", "Pad"}
_NEVER_WEIGHTS = {"Clip", "Pad", "Resize", "Upsample", "Where", *QUANTIZE}
SCALE, BIAS, MEAN, VARIANCE, CAFFE_SCALE, CAFFE_BIAS = range(6)
"""Roles (the noise's `k`) of a batch norm's initializers; a conv's or dense layer's are weight 0 and bias 1."""


@dataclass
class Draft:
    """A layer while it is found: its anchor node and, for each role, where the initializer enters."""

    kind: Kind
    anchor: int
    members: dict[int, Place] = field(default_factory=dict)
    transposed: bool = False
    """The graph stores the weight (role 0) as (in, out)."""
    outputs: int = 0
    """Elements of the bias of a conv or dense layer."""


@dataclass
class Grouping:
    """Layers in no particular order, and what is left over: `unattached` places and `pooling` convolutions."""

    drafts: list[Draft]
    unattached: list[Place]


def group(graph: Graph, image: str, source: str) -> Grouping:
    """The noise layers of a normalized graph whose image input is named `image`; raises ModelError for training-mode norms."""
    return _Grouper(graph, image, source).run()


class _Grouper:
    def __init__(self, graph: Graph, image: str, source: str) -> None:
        self.graph = graph
        self.source = source
        self.drafts: list[Draft] = []
        self.claimed: set[Place] = set()
        self.cores: set[int] = set()
        self.image = image

    def run(self) -> Grouping:
        graph = self.graph
        for node in range(len(graph.nodes)):
            self._anchor(node)
        self.norms = {d.anchor: d for d in self.drafts if d.kind == "batchnorm"}
        for draft in self.drafts:
            if draft.kind in ("conv", "dense") and BIAS not in draft.members:
                self._separate_bias(draft)
        self.weighted = self._after_first_weight()
        for node in range(len(graph.nodes)):
            self._elementwise(node)
        return Grouping(self.drafts, list(self._left_over()))

    def _claim(self, kind: Kind, node: int, roles: dict[int, Place | None], **more: int | bool) -> Draft | None:
        members = {role: place for role, place in roles.items() if place is not None}
        if not members:
            return None
        draft = Draft(kind, node, members, bool(more.get("transposed", False)), int(more.get("outputs", 0)))
        self.drafts.append(draft)
        self.claimed.update(members.values())
        return draft

    # -- operators that bear weights by their type

    def _anchor(self, i: int) -> None:
        node, weight = self.graph.nodes[i], self.graph.weight
        if node.domain not in ("", "com.microsoft"):
            return
        match node.op_type:
            case "Conv" | "ConvTranspose":
                self._convolution(i)
            case "Gemm":
                self._gemm(i)
            case "MatMul":
                self._matmul(i)
            case "BatchNormalization":
                self._batch_norm(i)
            case op if op in _NORMALIZATION:
                self._normalization(i)
            case op if op in _RECURRENT:
                self._claim("recurrent", i, {0: weight(i, 1), 1: weight(i, 2), 2: weight(i, 3)})
            case "Gather":
                table = weight(i, 0)
                if table is not None and self.graph.value(table).size > 1 and self.graph.root(i, 1) is None:
                    self._claim("embedding", i, {0: table})
            case "PRelu":
                self._claim("scale", i, {0: weight(i, 1)})

    def _convolution(self, i: int) -> None:
        node, kernel, bias = self.graph.nodes[i], self.graph.weight(i, 1), self.graph.weight(i, 2)
        if kernel is None:
            return
        value = self.graph.value(kernel)
        if bias is None and bool((value == 1).all()):
            self.claimed.add(kernel)  # an average pooling, not a layer
            return
        first = node.op_type == "Conv"
        outputs = value.shape[0] if first else value.shape[1] * attribute(node, "group", 1)
        if bias is not None and self.graph.value(bias).size != outputs:
            bias = None
        self._claim("conv", i, {0: kernel, BIAS: bias}, outputs=outputs)

    def _gemm(self, i: int) -> None:
        node = self.graph.nodes[i]
        right, left = self.graph.weight(i, 1), self.graph.weight(i, 0)
        place = right or left
        if place is None:
            return
        stored_out_in = bool(attribute(node, "transB", 0)) if right else not attribute(node, "transA", 0)
        shape = self.graph.value(place).shape
        outputs = shape[0 if stored_out_in else 1]
        addend = self.graph.weight(i, 2)
        is_bias = addend is not None and self.graph.value(addend).size == outputs
        self._claim(
            "dense", i, {0: place, BIAS: addend if is_bias else None}, transposed=not stored_out_in, outputs=outputs
        )
        if addend is not None and not is_bias and self.graph.value(addend).size > 1:
            self._claim("parameter", i, {0: addend})

    def _matmul(self, i: int) -> None:
        right, left = self.graph.weight(i, 1), self.graph.weight(i, 0)
        place = right or left
        if place is None or self.graph.value(place).ndim < 2:
            return
        shape = self.graph.value(place).shape
        self._claim(
            "dense", i, {0: place}, transposed=bool(right) and len(shape) == 2, outputs=shape[-1 if right else -2]
        )

    def _normalization(self, i: int) -> None:
        scale, bias = self.graph.weight(i, 1), self.graph.weight(i, 2)
        neutral = all(
            place is None or bool((self.graph.value(place) == fill).all()) for place, fill in ((scale, 1), (bias, 0))
        )
        last = list(self._chain(i, LAYOUT))[-1:]
        if (
            neutral
            and last
            and self.graph.nodes[last[0]].op_type == "Mul"
            and (self.graph.weight(last[0], 0) or self.graph.weight(last[0], 1))
        ):  # torch's GroupNorm: a core whose gamma and beta follow
            self.claimed.update(place for place in (scale, bias) if place is not None)
            self.cores.add(i)
        else:
            self._claim("norm", i, {SCALE: scale, BIAS: bias})

    def _batch_norm(self, i: int) -> None:
        scale, bias, mean, variance = (self.graph.weight(i, slot) for slot in (1, 2, 3, 4))
        if mean is not None and variance is not None:
            self._claim("batchnorm", i, {SCALE: scale, BIAS: bias, MEAN: mean, VARIANCE: variance})
            return
        values = [None if place is None else self.graph.value(place) for place in (scale, bias)]
        trained = any(
            v is not None and v.size > 1 and bool((v != fill).any()) for v, fill in zip(values, (1, 0), strict=True)
        )
        if trained:
            name = self.graph.nodes[i].name or self.graph.nodes[i].output[0]
            raise ModelError(
                f"{self.source}: exported in training mode: batch norm {name!r} takes its mean and variance from the batch; "
                "export the inference graph (model.eval(), tensorpack's predict graph)"
            )
        self.claimed.update(place for place in (scale, bias) if place is not None)
        self.cores.add(i)

    # -- the bias that stayed a separate Add

    def _separate_bias(self, draft: Draft) -> None:
        for i in self._chain(draft.anchor, _BIAS_PATH):
            node = self.graph.nodes[i]
            for slot in (0, 1) if node.op_type == "Add" else ():
                place = self.graph.weight(i, slot)
                if place is not None and place not in self.claimed and self._per_channel(place) == draft.outputs:
                    draft.members[BIAS] = place
                    self.claimed.add(place)

    def _chain(self, i: int, through: frozenset[str] | set[str]) -> Iterator[int]:
        """Nodes after `i` along single consumers; the first that is not one of `through` is the last."""
        while (following := self.graph.only_consumer(self.graph.nodes[i].output[0])) is not None:
            i = following
            yield i
            if self.graph.nodes[i].op_type not in through:
                return

    def _per_channel(self, place: Place) -> int:
        """Elements of a constant with at most one dimension other than 1, else 0."""
        shape = self.graph.value(place).shape
        return self.graph.value(place).size if sum(d != 1 for d in shape) <= 1 else 0

    # -- constants that enter element by element

    def _after_first_weight(self) -> set[str]:
        """Values that depend on a noise layer; constants that meet none of them are preprocessing."""
        anchors = {draft.anchor for draft in self.drafts}
        weighted: set[str] = set()
        waiting = [name for i in anchors for name in self.graph.nodes[i].output]
        while waiting:
            name = waiting.pop()
            if name and name not in weighted:
                weighted.add(name)
                waiting += [out for i in self.graph.consumers.get(name, ()) for out in self.graph.nodes[i].output]
        return weighted

    def _elementwise(self, i: int) -> None:
        node = self.graph.nodes[i]
        if node.op_type not in ("Add", "Sub", "Mul", "Div", "Concat") or node.domain:
            return
        data = [name for slot, name in enumerate(node.input) if self.graph.root(i, slot) is None]
        for slot in range(len(node.input)):
            place = self.graph.weight(i, slot)
            if place is None or place in self.claimed or self.graph.value(place).size < 2:
                continue
            if not any(name in self.weighted for name in data):
                self.claimed.add(place)  # preprocessing
            elif node.op_type == "Concat":
                self._claim("parameter", i, {0: place})
            else:
                self._affine(i, slot, place)

    def _affine(self, i: int, slot: int, place: Place) -> None:
        """The constant of a Mul, Div, Add or Sub: part of a norm, a scale, or a parameter of its own."""
        op = self.graph.nodes[i].op_type
        before = self._producer(i, 1 - slot)
        channels = self._per_channel(place)
        norm = self.norms.get(before) if before is not None and channels else None
        if norm is not None and op in ("Mul", "Add"):
            self._join_caffe(norm, i, place)
        elif op in ("Mul", "Div"):
            shift = self._norm_shift(i, channels) if self._is_normalized(i, 1 - slot) else None
            if shift is not None:
                self._claim("norm", i, {SCALE: place, BIAS: shift})
                return
            shift = self._next(i, ("Add", "Sub"), channels)
            kind: Kind = "scale" if shift is None else "batchnorm"
            if self._is_normalized(i, 1 - slot):
                kind = "norm"
            self._claim(kind, i, {SCALE: place, BIAS: shift})
        elif op == "Sub" and slot == 1 and (scale := self._next(i, ("Mul", "Div"), channels)) is not None:
            shift = self._next(scale[0], ("Add", "Sub"), channels)
            if shift is None:
                self._claim("parameter", i, {0: place})
            else:
                self._claim("batchnorm", i, {MEAN: place, SCALE: scale, BIAS: shift})
        else:
            self._claim("parameter", i, {0: place})

    def _join_caffe(self, norm: Draft, i: int, place: Place) -> None:
        channels = self._per_channel(place)
        if self.graph.nodes[i].op_type == "Add":
            norm.members[CAFFE_BIAS] = place
        else:
            norm.members[CAFFE_SCALE] = place
            shift = self._next(i, ("Add",), channels)
            if shift is not None:
                norm.members[CAFFE_BIAS] = shift
        self.claimed.update(norm.members.values())

    def _producer(self, i: int, slot: int) -> int | None:
        """The node behind an operand, layout and quantization skipped, if this is its only use."""
        name = self.graph.nodes[i].input[slot]
        while len(self.graph.consumers.get(name, ())) == 1:
            maker = self.graph.producer.get(name)
            if maker is None or self.graph.nodes[maker].op_type not in LAYOUT | QUANTIZE:
                return maker
            name = self.graph.nodes[maker].input[0]
        return None

    def _next(self, i: int, operators: tuple[str, ...], channels: int) -> Place | None:
        """The unclaimed per-channel constant of the next operator, if that is one of `operators` and the only consumer."""
        if not channels:
            return None
        for following in self._chain(i, LAYOUT | QUANTIZE):
            if self.graph.nodes[following].op_type in operators:
                for slot in (0, 1):
                    place = self.graph.weight(following, slot)
                    if place is not None and place not in self.claimed and self._per_channel(place) == channels:
                        return place
        return None

    def _is_normalized(self, i: int, slot: int) -> bool:
        """Whether the operand comes from a normalization core: statistics of the data, with no layer in between."""
        waiting = [(self.graph.nodes[i].input[slot], 0)]
        anchors = {draft.anchor for draft in self.drafts}
        while waiting:
            name, depth = waiting.pop()
            maker = self.graph.producer.get(name)
            if maker is None or depth > 8 or maker in anchors:
                continue
            op = self.graph.nodes[maker].op_type
            if maker in self.cores or (op in _STATISTICS and maker not in self.norms):
                return True
            if op in _ELEMENTWISE | LAYOUT | QUANTIZE:
                waiting += [(operand, depth + 1) for operand in self.graph.nodes[maker].input if operand]
        return False

    def _norm_shift(self, i: int, channels: int) -> Place | None:
        """A norm's beta: the per-channel constant of an Add or Sub at most two arithmetic steps after its gamma.

        Keras writes `y = x*a + (-mean*a + beta)` with `a = gamma / std`, so beta need not be on the way of `x`.
        """
        waiting = [(i, 0)]
        while waiting:
            node, steps = waiting.pop(0)
            for following in self.graph.consumers.get(self.graph.nodes[node].output[0], ()):
                op = self.graph.nodes[following].op_type
                if op in LAYOUT:
                    waiting.append((following, steps))
                    continue
                places = [place for slot in (0, 1) if (place := self.graph.weight(following, slot)) is not None]
                if op in ("Add", "Sub") and places:
                    fits = places[0] not in self.claimed and self._per_channel(places[0]) == channels
                    return places[0] if fits else None
                if op == "Mul" and not places and steps < 1:
                    waiting.append((following, steps + 1))
        return None

    # -- what nobody claimed

    def _left_over(self) -> Iterator[Place]:
        for i, node in enumerate(self.graph.nodes):
            if node.op_type in _NEVER_WEIGHTS and not node.domain:
                continue
            for slot, name in enumerate(node.input):
                value = self.graph.constants.get(name)
                if value is None or value.dtype != np.float32 or value.size < 2 or (i, slot) in self.claimed:
                    continue
                yield i, slot
