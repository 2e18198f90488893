"""Layers while they are being found: which initializers are spoken for, by which layer and in which role."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onnxnoise.model.graph import Graph, Place
from onnxnoise.records import Kind


@dataclass(frozen=True)
class Draft:
    """A layer: its anchor node and, for each role, where the initializer enters.

    `transposed`: the graph stores the weight as (in, out). `outputs`, `channel`: a convolution's or dense layer's output channels
    and their dimension, counted from the end.
    """

    kind: Kind
    anchor: int
    members: dict[int, Place]
    transposed: bool = False
    outputs: int = 0
    channel: int = 0


class Claims:
    """The drafts so far; each float constant of a graph is claimed by one of them, or as no weight, or left over."""

    def __init__(self, graph: Graph, behind: Callable[[str], tuple[str, ...]]) -> None:
        self.graph = graph
        self.drafts: list[Draft] = []
        self.at: dict[int, Draft] = {}
        """The first draft at each anchor node."""
        self.cores: set[int] = set()
        """Normalizing nodes without weights of their own."""
        self._behind = behind
        self._claimed: set[Place] = set()

    def layer(self, kind: Kind, anchor: int, roles: Mapping[int, Place | None], **more: int) -> None:
        """A layer of the roles that have a place, if any has."""
        members = {role: place for role, place in roles.items() if place is not None}
        if members:
            draft = Draft(kind, anchor, members, bool(more.pop("transposed", False)), **more)
            self.drafts.append(draft)
            self.at.setdefault(anchor, draft)
            self._claimed.update(members.values())

    def join(self, draft: Draft, role: int, place: Place) -> None:
        """One more initializer of a layer that is already there."""
        draft.members[role] = place
        self._claimed.add(place)

    def no_weight(self, *places: Place | None) -> None:
        """Constants that never get noise."""
        self._claimed.update(place for place in places if place is not None)

    def free(self, place: Place | None) -> bool:
        """Whether a float constant of more than one element is still unclaimed, and not made of scalars alone."""
        if place is None or place in self._claimed or self.graph.value(place).size < 2:
            return False
        return not self.is_computed(place)

    def is_computed(self, place: Place) -> bool:
        """Whether constant folding made it of one-element constants: an attention mask, zeros in place of a bias."""
        node, slot = place
        return not self._behind(self.graph.nodes[node].input[slot])
