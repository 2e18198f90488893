"""Groups initializers into noise layers: one layer per weight-bearing operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from onnxnoise.model.graph import QUANTIZE, Graph
from onnxnoise.model.layers.candidates import Candidate, Candidates
from onnxnoise.model.layers.elementwise import claim_constants, weighted_values
from onnxnoise.model.layers.operators import claim_fused_bias, claim_operator, claim_separate_bias
from onnxnoise.records import BIAS, Unattached
from onnxnoise.runtime.protos import nested

_NEVER_WEIGHTS = QUANTIZE | {"Clip", "OneHot", "Pad", "Resize", "Upsample"}
_PACKED = frozenset(("int8", "uint8", "int4", "uint4"))


def group(
    graph: Graph, behind: Callable[[str], tuple[str, ...]], source: str
) -> tuple[list[Candidate], list[Unattached]]:
    """(the candidates of a normalized graph in no particular order, the tensors that belong to no candidate).

    `behind` gives the names of the file's weights in a constant, `source` names the file in errors. Raises ModelError for norms
    in training mode.
    """
    candidates = Candidates(graph, behind)
    for node in range(len(graph.nodes)):
        claim_operator(candidates, node, source)
    for candidate in candidates.found:
        if candidate.outputs and BIAS not in candidate.members:
            claim_separate_bias(candidates, candidate)
    for node in range(len(graph.nodes)):
        claim_fused_bias(candidates, node)
    weighted = weighted_values(candidates)
    for node in range(len(graph.nodes)):
        claim_constants(candidates, node, weighted)
    left = {each.name: each for each in _left_over(candidates)}
    return candidates.found, list(left.values())


def _left_over(candidates: Candidates) -> Iterator[Unattached]:
    graph = candidates.graph
    for i, node in enumerate(graph.nodes):
        if node.op_type in _NEVER_WEIGHTS and not node.domain:
            continue
        for slot, name in enumerate(node.input):
            value = graph.constants.get(name)
            if value is None or value.size < 2:
                continue
            packed = node.domain and str(value.dtype) in _PACKED
            if (
                packed
                or (value.dtype.kind == "f" and value.dtype != "float32")
                or candidates.free(graph.weight(i, slot))
            ):
                yield Unattached(name, node.op_type, value.size)
        for inner in nested([node]):
            if inner is node or (inner.op_type in _NEVER_WEIGHTS and not inner.domain):
                continue
            for name in inner.input:
                value = graph.constants.get(name)
                if value is not None and value.size > 1 and value.dtype.kind == "f":
                    yield Unattached(name, f"{inner.op_type} inside {node.op_type}", value.size)
