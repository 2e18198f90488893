"""The canonical order: the same walk over a network whichever exporter wrote it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from math import prod

import numpy as np
import numpy.typing as npt

from onnxnoise.model.graph import CONSTANT_PATH, Graph
from onnxnoise.model.layers.candidates import Candidate

_COMMUTATIVE = frozenset(("Add", "Mul", "Sum", "Max", "Min", "Mean"))
_SKIPPING = frozenset(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"))
"""Operators of com.microsoft that add their first two operands."""


def canonical_order(
    graph: Graph, candidates: Sequence[Candidate], image: str, logits: str
) -> tuple[list[int], list[Candidate]]:
    """(positions of the nodes that `logits` needs, candidates in the order of their anchors).

    A post-order depth-first walk from the logits: a node comes after everything it needs. Operands are walked in their given
    order, those of commutative operators deepest first (`_Operands`).
    """
    at: dict[int, list[int]] = {}
    for number, candidate in enumerate(candidates):
        at.setdefault(candidate.anchor, []).append(number)
    given = _post_order(graph, logits, graph.reads)
    operands = _Operands(graph, candidates, at, image)
    order = _post_order(graph, logits, {node: operands.ranked(node) for node in given})
    numbers = [number for node in order for number in at.get(node, ())]
    return _late(graph, candidates, order), [candidates[number] for number in numbers]


def _post_order(graph: Graph, target: str, operands: Sequence[list[str]] | dict[int, list[str]]) -> list[int]:
    """The nodes that `target` needs, each after the makers of its `operands`, which are visited in their order."""
    order: list[int] = []
    done: set[int] = set()
    stack = [(graph.producer[target], False)]
    while stack:
        node, complete = stack.pop()
        if node in done:
            continue
        if complete:
            done.add(node)
            order.append(node)
            continue
        stack.append((node, True))
        makers = [graph.producer.get(name) for name in operands[node]]
        stack += [(maker, False) for maker in reversed(makers) if maker is not None and maker not in done]
    return order


class _Operands:
    """The operands of each node in the order to walk them; nodes must be asked for after everything they need.

    Deepest first: depth is the largest number of noise layers on any path from the image. Ties: more parameters in the operand's
    subgraph first, then the smaller SHA-256 of that subgraph's noise values, then the given order.
    """

    def __init__(self, graph: Graph, candidates: Sequence[Candidate], at: dict[int, list[int]], image: str) -> None:
        self.graph, self.candidates, self.at = graph, candidates, at
        self.depths: dict[str, int] = {image: 0}
        self.fed: dict[str, int] = {}
        """The layers that a value needs, as bits by number."""
        self.sizes = [sum(prod(graph.value(p).shape) for p in candidate.members.values()) for candidate in candidates]
        self.digests = _Digests(graph, candidates)

    def ranked(self, node: int) -> list[str]:
        names = self.graph.reads[node]
        here = self.at.get(node, [])
        depth = max((self.depths.get(name, -1) for name in names), default=-1)
        fed = 0
        for name in names:
            fed |= self.fed.get(name, 0)
        for number in here:
            fed |= 1 << number
        for output in self.graph.nodes[node].output:
            self.depths[output] = depth + len(here) if depth >= 0 else -1  # -1: no path from the image
            self.fed[output] = fed
        proto = self.graph.nodes[node]
        if proto.op_type in _SKIPPING:
            return [*self._deepest_first(names[:2]), *names[2:]]
        return self._deepest_first(names) if proto.op_type in _COMMUTATIVE and not proto.domain else names

    def _deepest_first(self, names: list[str]) -> list[str]:
        ranked = sorted(names, key=lambda name: -self.depths.get(name, -1))
        return [
            name
            for _, tied in groupby(ranked, lambda name: self.depths.get(name, -1))
            for name in self._untied(list(tied))
        ]

    def _untied(self, names: list[str]) -> list[str]:
        """The operands of equal depth, which come in their given order, sorted by the layers that feed them."""
        fed = {name: self.fed.get(name, 0) for name in names}
        if len(set(fed.values())) < 2:
            return names
        sizes = {name: sum(self.sizes[number] for number in _bits(layers)) for name, layers in fed.items()}
        ranked = sorted(names, key=lambda name: -sizes[name])
        untied: list[str] = []
        for _, group in groupby(ranked, lambda name: sizes[name]):
            tied = list(group)
            different = list({fed[name] for name in tied})
            digests = self.digests(different) if len(different) > 1 else {}
            untied += sorted(tied, key=lambda name: digests.get(fed[name], b""))
        return untied


def _bits(number: int) -> Iterator[int]:
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


class _Digests:
    """Computes the SHA-256 of all noise values of a set of layers, float32 and sorted.

    Operands that tie share most of the layers that feed them, and the ties follow each other: the shared part is sorted once.
    """

    def __init__(self, graph: Graph, candidates: Sequence[Candidate]) -> None:
        self.graph, self.candidates = graph, candidates
        self.shared = 0
        self.sorted: npt.NDArray[np.float32] = np.empty(0, "<f4")

    def __call__(self, sets: Sequence[int]) -> dict[int, bytes]:
        shared = sets[0]
        for layers in sets:
            shared &= layers
        if self.shared & ~shared:
            self.shared, self.sorted = 0, np.empty(0, "<f4")
        self.sorted, self.shared = self._with(shared & ~self.shared), shared
        return {layers: hashlib.sha256(self._with(layers & ~shared).tobytes()).digest() for layers in sets}

    def _with(self, layers: int) -> npt.NDArray[np.float32]:
        """The shared values together with those of more `layers`, sorted."""
        more = [self.graph.value(place).ravel() for n in _bits(layers) for place in self.candidates[n].members.values()]
        if not more:
            return self.sorted
        extra = np.sort(np.concatenate(more, dtype="<f4"))
        merged = np.insert(self.sorted, np.searchsorted(self.sorted, extra), extra) if self.shared else extra
        zeros = slice(np.searchsorted(merged, 0, "left"), np.searchsorted(merged, 0, "right"))
        negative = np.sort(np.signbit(merged[zeros]))[::-1]  # sorting leaves -0.0 and 0.0 as they come
        merged[zeros] = np.where(negative, np.float32(-0.0), np.float32(0.0))
        return merged


def _late(graph: Graph, candidates: Sequence[Candidate], order: list[int]) -> list[int]:
    """The order in which nodes that only lay out a layer's constant (Expand of a class token) come right before the layer."""
    moved: dict[int, list[int]] = {}
    for candidate in candidates:
        for start, _ in candidate.members.values():
            node, chain = start, []
            while graph.nodes[node].op_type in CONSTANT_PATH:
                user = graph.only_consumer(graph.nodes[node].output[0])
                if user is None:
                    break
                chain.append(node)
                node = user
            if node == candidate.anchor:
                moved.setdefault(node, []).extend(chain)
    early = {node for chain in moved.values() for node in chain}
    return [each for node in order if node not in early for each in (*moved.get(node, ()), node)]
