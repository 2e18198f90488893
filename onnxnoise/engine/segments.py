"""Cuts segments out of a network: in-memory graphs of the nodes between two cuts, some constants with other values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxnoise.model.network import Network
from onnxnoise.records import NoiseLayer
from onnxnoise.runtime.protos import reads

Array = npt.NDArray[Any]
TensorType = tuple[int, tuple[int, ...]]
"""A tensor's ONNX element type and shape."""

_BY_REFERENCE_BYTES = 1024
"""Constants above this size are handed over by reference, smaller ones are part of the stub."""


@dataclass(frozen=True)
class Segment:
    """A serialized ModelProto without the payload of `references`, constants by name that the session takes by reference."""

    stub: bytes
    references: Mapping[str, Array]
    outputs: tuple[str, ...]


class Cutter:
    """Cuts a network's graph into segments; a position is that of a node in `network.nodes`, `end` lies behind the last."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.end = len(network.nodes)
        given = network.constants
        self._constants = [
            tuple(name for name in dict.fromkeys(reads(node)) if name in given) for node in network.nodes
        ]
        self._reads = [
            tuple(name for name in dict.fromkeys(reads(node)) if name not in given) for node in network.nodes
        ]
        self._last_use = {name: i for i, names in enumerate(self._reads) for name in names}
        self._last_use[network.logits] = self.end
        made = [(name, i) for i, node in enumerate(network.nodes) for name in node.output if name]
        self._made = {network.image.name: -1, **dict(made)}
        self._live: dict[int, tuple[str, ...]] = {}
        self._stages = sorted({layer.start for layer in network.layers if layer.kind in ("conv", "dense")})
        self._bearers = self._nodes_with_noise()

    def _nodes_with_noise(self) -> dict[int, tuple[int, ...]]:
        """The positions of the nodes that read each layer's initializers, by layer index."""
        owner = {tensor.value: layer.index for layer in self.network.layers for tensor in layer.tensors}
        found: dict[int, list[int]] = {layer.index: [] for layer in self.network.layers}
        for i, names in enumerate(self._constants):
            for name in names:
                if name in owner:
                    found[owner[name]].append(i)
        return {index: tuple(places) for index, places in found.items()}

    def live(self, position: int) -> tuple[str, ...]:
        """The names of the values made before `position` and needed from there on, in the order they are made."""
        if position not in self._live:
            self._live[position] = tuple(
                name for name, at in self._made.items() if at < position <= self._last_use.get(name, -1)
            )
        return self._live[position]

    def stage(self, position: int) -> int:
        """The start of the last convolution or dense layer that starts at `position` or before it, or 0."""
        return max((start for start in self._stages if start <= position), default=0)

    def join(self, layer: NoiseLayer) -> int:
        """The start of the first convolution or dense layer behind all nodes of `layer` and of those before it, or `end`."""
        ours = (i for index, places in self._bearers.items() if index <= layer.index for i in places)
        last = max(layer.start, *ours)
        return min((start for start in self._stages if start > last), default=self.end)

    def inside(self, layers: Iterable[NoiseLayer], start: int, stop: int) -> list[NoiseLayer]:
        """The layers among `layers` that have initializers read by nodes [start, stop)."""
        here = set(range(start, stop))
        return [layer for layer in layers if not here.isdisjoint(self._bearers[layer.index])]

    def segment(
        self,
        start: int,
        stop: int,
        types: Mapping[str, TensorType],
        *,
        replaced: Mapping[str, Array] | None = None,
        lifted: Mapping[str, TensorType] | None = None,
        outputs: tuple[str, ...] | None = None,
    ) -> Segment:
        """The segment of nodes [start, stop); `types` are those of the values live at `start`.

        Its outputs are `outputs`, by default the values live at `stop`. Constants in `replaced` get other values, those in
        `lifted` become inputs of these types.
        """
        nodes = self.network.nodes[start:stop]
        made = {name for node in nodes for name in node.output}
        outputs = outputs or tuple(name for name in self.live(stop) if name in made)
        read = set().union(*self._reads[start:stop]) if nodes else set()
        inputs = [
            onnx.helper.make_tensor_value_info(name, *types[name])
            for name in self.live(start)
            if name in read and name not in made
        ]
        lifted = lifted or {}
        values = {**self.network.constants, **(replaced or {})}
        read_here = dict.fromkeys(name for names in self._constants[start:stop] for name in names)
        inputs += [onnx.helper.make_tensor_value_info(name, *lifted[name]) for name in read_here if name in lifted]
        used = [name for name in read_here if name not in lifted]
        return _model(self.network.opsets, nodes, inputs, outputs, {name: values[name] for name in used})


def _model(
    opsets: Mapping[str, int],
    nodes: Sequence[onnx.NodeProto],
    inputs: Iterable[onnx.ValueInfoProto],
    outputs: tuple[str, ...],
    constants: Mapping[str, Array],
) -> Segment:
    references = {name: value for name, value in constants.items() if value.nbytes > _BY_REFERENCE_BYTES}
    graph = onnx.GraphProto(name="segment", node=nodes, input=inputs)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    for name, value in constants.items():
        tensor = graph.initializer.add(
            name=name, dims=value.shape, data_type=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
        )
        if name in references:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="by-reference")
        else:
            tensor.raw_data = value.tobytes()
    model = onnx.ModelProto(ir_version=8, graph=graph)
    for domain, version in opsets.items():
        model.opset_import.add(domain=domain, version=version)
    return Segment(model.SerializeToString(), references, outputs)
