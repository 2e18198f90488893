"""An Einsum of images and one weight becomes the product that it is, so that its weight is a dense layer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnxnoise.model.origins import constants
from onnxnoise.records import Shape

_ELLIPSIS = "."
"""Stands in a term for all dimensions that `...` leaves out, which must be the first."""


def restore_products(model: ir.Model, shapes: Mapping[str, Shape]) -> None:
    """Turn each Einsum of two operands, one of them constant, into Transpose, Reshape and MatMul, in place.

    An Einsum that contracts nothing becomes a Mul. The optimizer lays out the weight once; its values stay as they are.
    """
    known = constants(model)
    for node in list(model.graph):
        if node.op_type != "Einsum" or node.domain or len(node.inputs) != 2 or None in node.inputs:
            continue
        first, second = node.inputs
        if first is None or second is None or (first in known) == (second in known):
            continue
        data, weight = (first, second) if second in known else (second, first)
        equation = node.attributes["equation"].as_string()
        terms = _terms(equation, shapes.get(data.name or ""), first is data)
        tensor = weight.const_value
        sizes = shapes.get(weight.name or "") if tensor is None else tuple(tensor.shape.numpy())
        if terms is not None and sizes is not None and None not in sizes and known[weight]:
            _Product(model.graph, node, terms, [d or 1 for d in sizes]).write(data, weight)
    common.LiftConstantsToInitializersPass(size_limit=0, lift_all_constants=True)(model)
    common.RemoveUnusedNodesPass()(model)


@dataclass(frozen=True)
class _Terms:
    """The letters of the data's, the weight's and the result's dimensions."""

    data: str
    weight: str
    result: str

    def of(self, *, weight: bool, result: bool) -> str:
        """The data's dimensions that are, or aren't, also the weight's and the result's, as the arguments say."""
        return "".join(d for d in self.data if (d in self.weight) == weight and (d in self.result) == result)

    @property
    def made(self) -> str:
        """The dimensions that only the weight and the result have."""
        return "".join(d for d in self.weight if d not in self.data)


def _terms(equation: str, data: Shape | None, data_first: bool) -> _Terms | None:
    """The terms of an equation that is a product; None for another."""
    text = equation.replace(" ", "").replace("...", _ELLIPSIS)
    match = re.fullmatch(r"(\.?[A-Za-z]*),(\.?[A-Za-z]*)(?:->(\.?[A-Za-z]*))?", text)
    if match is None:
        return None
    left, right, result = match.groups()
    if result is None:
        once = sorted(d for d in set(left + right) if (left + right).count(d) == 1 and d != _ELLIPSIS)
        result = (_ELLIPSIS if _ELLIPSIS in left + right else "") + "".join(once)
    images, weight = (left, right) if data_first else (right, left)
    if _ELLIPSIS in weight:
        return None
    if _ELLIPSIS in images and data is not None:
        free = [chr(c) for c in range(ord("À"), ord("À") + len(data) - len(images) + 1)]
        images, result = images.replace(_ELLIPSIS, "".join(free)), result.replace(_ELLIPSIS, "".join(free))
    terms = _Terms(images, weight, result)
    whole = all(len(set(term)) == len(term) for term in (images, weight, result))
    summed = terms.of(weight=False, result=False) or [d for d in weight if d not in images and d not in result]
    return None if not whole or summed or set(result) - set(images + weight) else terms


class _Product:
    """Writes an Einsum as other nodes."""

    def __init__(self, graph: ir.Graph, node: ir.Node, terms: _Terms, sizes: Sequence[int]) -> None:
        self.graph, self.node, self.terms = graph, node, terms
        self.size = dict(zip(terms.weight, sizes, strict=True))
        self.nodes: list[ir.Node] = []

    def write(self, data: ir.Value, weight: ir.Value) -> None:
        terms = self.terms
        shared, kept = terms.of(weight=True, result=True), terms.of(weight=False, result=True)
        summed, made = terms.of(weight=True, result=False), terms.made
        several = _ELLIPSIS in terms.data
        if several and (shared or len(summed) > 1 or len(made) != 1 or not terms.data.startswith(_ELLIPSIS)):
            return
        if not summed:
            if not made and not several:
                self._scale(data, weight)
            return
        x = self._ordered(data, terms.data, shared + kept + summed)
        if len(summed) > 1:
            x = self._reshaped(x, [*[0] * len(shared + kept), -1])
        if shared and not kept:
            x = self._add("Unsqueeze", [x, self._numbers([-2])])
        w = self._ordered(weight, terms.weight, shared + summed + made)
        between = [1] * (len(kept) - 1) if shared else []
        columns = prod(self.size[d] for d in made)
        w = self._reshaped(w, [*(self.size[d] for d in shared), *between, prod(self.size[d] for d in summed), columns])
        x = self._add("MatMul", [x, w])
        if shared and not kept:
            x = self._add("Squeeze", [x, self._numbers([-2])])
        end, order = self.node.outputs[0], shared + kept + made
        if len(made) > 1:
            bias = self._bias(order)
            if bias is not None:
                addition, value = bias
                x = self._add("Add", [x, self._reshaped(value, [-1])])
                end = addition.outputs[0]
            x = self._reshaped(x, [*[0] * len(shared + kept), *(self.size[d] for d in made)])
        elif not made:
            x = self._add("Squeeze", [x, self._numbers([-1])])
        self._finish(self._ordered(x, order, terms.result), end)

    def _scale(self, data: ir.Value, weight: ir.Value) -> None:
        """Write a product without a sum, in which each value is multiplied by one of the weight's."""
        terms = self.terms
        w = self._ordered(weight, terms.weight, "".join(d for d in terms.data if d in terms.weight))
        w = self._reshaped(w, [self.size.get(d, 1) for d in terms.data])
        self._finish(self._ordered(self._add("Mul", [data, w]), terms.data, terms.result), self.node.outputs[0])

    def _bias(self, order: str) -> tuple[ir.Node, ir.Value] | None:
        """(the Add that alone uses the result, its constant) where that has the dimensions that the weight makes."""
        uses = list(self.node.outputs[0].uses())
        if order != self.terms.result or len(uses) != 1 or self.node.outputs[0].is_graph_output():
            return None
        user = uses[0].node
        if user.op_type != "Add" or user.domain or len(user.inputs) != 2:
            return None
        other = user.inputs[1 - uses[0].idx]
        if other is None or other.const_value is None:
            return None
        shape = [int(d) for d in other.const_value.shape.numpy()]
        wanted = [self.size[d] for d in self.terms.made]
        fits = shape[-len(wanted) :] == wanted and all(d == 1 for d in shape[: -len(wanted)])
        return (user, other) if fits else None

    def _ordered(self, value: ir.Value, now: str, wanted: str) -> ir.Value:
        if now == wanted:
            return value
        return self._add("Transpose", [value], perm=[now.index(d) for d in wanted])

    def _reshaped(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        return self._add("Reshape", [value, self._numbers(shape)])

    def _numbers(self, numbers: Sequence[int]) -> ir.Value:
        self.nodes.append(ir.node("Constant", [], attributes={"value": ir.tensor(np.array(numbers, np.int64))}))
        return self.nodes[-1].outputs[0]

    def _add(self, op_type: str, inputs: Sequence[ir.Value], **attributes: Any) -> ir.Value:
        self.nodes.append(ir.node(op_type, inputs, attributes=attributes))
        return self.nodes[-1].outputs[0]

    def _finish(self, result: ir.Value, replaced: ir.Value) -> None:
        name, last = replaced.name, replaced.producer()
        for made in self.nodes:
            if made.op_type in ("MatMul", "Mul"):
                made.name = self.node.name
        self.graph.insert_after(last if last is not None else self.node, self.nodes)
        ir.convenience.replace_all_uses_with(replaced, result, replace_graph_outputs=True)
        result.name = name
