"""A batch size that is written inside a graph whose input takes any number of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx

from onnxnoise.model.checks.mixing import BatchFinder
from onnxnoise.model.graph import SHAPE_OF, Graph
from onnxnoise.records import Shape
from onnxnoise.runtime.protos import attribute, named


@dataclass(frozen=True)
class FixedBatch:
    """The only number of images that a graph runs with, and the node that fixes it, as a person knows it."""

    images: int
    node: str


def fixed_batch(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, np.ndarray[Any, Any]],
    shapes: Mapping[str, Shape],
    image: str,
    opset: int,
) -> FixedBatch | None:
    """The batch size that the first of `nodes` (in an executable order) fixes for certain; None where none does."""
    finder = BatchFinder(constants, shapes, opset)
    finder.at[image] = 0
    graph = Graph(nodes, constants)
    for node in nodes:
        images = _images(node, finder, graph, image) if not node.domain else None
        if images is not None:
            return FixedBatch(images, named(node))
        finder.mixes(node)
    return None


def _images(node: onnx.NodeProto, finder: BatchFinder, graph: Graph, image: str) -> int | None:
    """The number of images that a node needs in a batch, where it works with no other number."""
    axis = finder.at.get(node.input[0]) if node.input else None
    shape = finder.shapes.get(node.input[0]) if node.input else None
    match node.op_type:
        case "Reshape" if axis == 0 and shape and None not in shape[1:]:
            target = finder.constants.get(node.input[1])
            return None if target is None else _of_reshape(node, target.ravel().tolist(), shape, graph)
        case "Squeeze" if axis is not None and shape:
            named = attribute(node, "axes", None)
            given = finder.constants.get(node.input[1]) if len(node.input) > 1 and node.input[1] else None
            axes = named if named is not None else [] if given is None else given.ravel().tolist()
            return 1 if axis in [each % len(shape) for each in axes] else None
        case "Gather" if axis is not None and shape:
            index = finder.constants.get(node.input[1])
            whole = attribute(node, "axis", 0) % len(shape) == axis and index is not None and index.ndim == 0
            # An index in a list keeps the axis, and one image beside the others is broadcast to them: both mix a batch.
            return 1 if whole and not _passed_by(node, image, graph) else None
        case "Concat":
            placed = [finder.at[name] for name in node.input if name in finder.at]
            ranks = {finder.constants[name].ndim for name in node.input if name in finder.constants}
            if set(placed) == {0} and len(ranks) == 1 and attribute(node, "axis", 0) % ranks.pop() != 0:
                return next(len(finder.constants[name]) for name in node.input if name in finder.constants)
    return None


def _passed_by(node: onnx.NodeProto, image: str, graph: Graph) -> bool:
    """Whether the images also reach what `node` reaches by a way around it; ways to their shape alone don't count."""
    reached, waiting = set(), [image]
    while waiting:
        for user in graph.consumers.get(waiting.pop(), ()):
            follower = graph.nodes[user]
            if follower is not node and user not in reached and follower.op_type not in SHAPE_OF:
                reached.add(user)
                waiting += follower.output
    behind, waiting = set(), [node.output[0]]
    while waiting:
        for user in graph.consumers.get(waiting.pop(), ()):
            if user not in behind:
                behind.add(user)
                waiting += graph.nodes[user].output
    return not behind.isdisjoint(reached)


def _of_reshape(node: onnx.NodeProto, target: list[int], shape: Shape, graph: Graph) -> int | None:
    pixels = prod(d or 1 for d in shape[1:])
    if not target or target[0] < 1:
        return None
    if min(target) > 0:
        return target[0] if prod(target) == target[0] * pixels else None
    users = [graph.nodes[user] for user in graph.consumers.get(node.output[0], ())]
    rows = target == [1, -1] and all(user.op_type in ("Gemm", "MatMul") for user in users)
    return 1 if rows and users else None
