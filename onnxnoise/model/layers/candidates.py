"""Candidates for noise layers while they are being found, each with its initializers and their roles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onnxnoise.model.graph import Array, Graph, Place
from onnxnoise.records import WEIGHT
from onnxnoise.words import Kind


@dataclass(frozen=True)
class Candidate:
    """A noise layer in the making: its anchor node and, for each role, the place where the initializer enters the graph.

    `transposed` says that the graph stores the weight as (in, out). `outputs` and `channel` are the number of output channels of
    a convolution or dense layer, and their dimension, counted from the end.
    """

    kind: Kind
    anchor: int
    members: dict[int, Place]
    transposed: bool = False
    outputs: int = 0
    channel: int = 0


def is_filled(value: Array) -> bool:
    """Whether all elements of a constant are the same."""
    return value.size > 0 and bool((value == value.flat[0]).all())


class Candidates:
    """The candidates so far. Each float constant of the graph belongs to one of them, is known to be no weight, or is
    still free.
    """

    def __init__(self, graph: Graph, behind: Callable[[str], tuple[str, ...]]) -> None:
        self.graph = graph
        self.found: list[Candidate] = []
        self.at: dict[int, Candidate] = {}
        """The first candidate at each anchor node."""
        self.cores: set[int] = set()
        """Normalizing nodes without weights of their own."""
        self._behind = behind
        self._claimed: set[Place] = set()

    def add(self, kind: Kind, anchor: int, roles: Mapping[int, Place | None], **more: int) -> None:
        """Add a candidate with the roles that have a place; where no role has one, nothing happens."""
        members = {role: place for role, place in roles.items() if place is not None}
        if members:
            candidate = Candidate(kind, anchor, members, bool(more.pop("transposed", False)), **more)
            self.found.append(candidate)
            self.at.setdefault(anchor, candidate)
            self._claimed.update(members.values())

    def parameter(self, anchor: int, place: Place | None) -> None:
        """Add a constant that is a layer of its own, if it is free and has several values: nobody trained zeros that pad."""
        if place is None or not self.free(place):
            return
        if is_filled(self.graph.value(place)):
            self.no_weight(place)
        else:
            self.add("parameter", anchor, {WEIGHT: place})

    def join(self, candidate: Candidate, role: int, place: Place) -> None:
        """Give one more initializer to a candidate that is already there."""
        candidate.members[role] = place
        self._claimed.add(place)

    def no_weight(self, *places: Place | None) -> None:
        """Mark constants that never get noise."""
        self._claimed.update(place for place in places if place is not None)

    def free(self, place: Place | None) -> bool:
        """Whether a float constant has more than one element, belongs to no candidate yet, and is not made of scalars alone."""
        if place is None or place in self._claimed or self.graph.value(place).size < 2:
            return False
        return not self.is_computed(place)

    def is_computed(self, place: Place) -> bool:
        """Whether constant folding made the value of one-element constants: an attention mask, zeros in place of a bias."""
        node, slot = place
        return not self._behind(self.graph.nodes[node].input[slot])
