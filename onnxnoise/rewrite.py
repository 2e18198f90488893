"""In-memory graphs cut from a network: a run of nodes between two cuts, some constants with other values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxnoise.graph import reads
from onnxnoise.network import Network
from onnxnoise.records import NoiseLayer

Array = npt.NDArray[Any]
TensorType = tuple[int, tuple[int, ...]]
"""ONNX element type and shape."""

_BY_REFERENCE_BYTES = 1024
"""Constants above this size are handed over by reference, the rest is part of the stub."""


@dataclass(frozen=True)
class Segment:
    """A serialized ModelProto without the payload of `references`, constants by name that the session takes by reference."""

    stub: bytes
    references: Mapping[str, Array]
    outputs: tuple[str, ...]


class Cutter:
    """Cuts a network's graph; positions are those of `network.nodes`, `end` is behind the last."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.end = len(network.nodes)
        self._reads = [
            tuple(name for name in dict.fromkeys(reads(node)) if name not in network.constants)
            for node in network.nodes
        ]
        self._last_use = {name: i for i, names in enumerate(self._reads) for name in names}
        self._last_use[network.logits] = self.end

    def live(self, position: int) -> tuple[str, ...]:
        """Values made before `position` and needed from there on, in the order they are made."""
        made = [self.network.image.name]
        made += [name for node in self.network.nodes[:position] for name in node.output if name]
        return tuple(name for name in made if self._last_use.get(name, -1) >= position)

    def join(self, layer: NoiseLayer) -> int:
        """Where the first convolution or dense layer after `layer` starts, or `end`."""
        starts = (each.start for each in self.network.layers if each.kind in ("conv", "dense"))
        return min((start for start in starts if start > layer.start), default=self.end)

    def segment(
        self,
        start: int,
        stop: int,
        types: Mapping[str, TensorType],
        *,
        replaced: Mapping[str, Array] | None = None,
        outputs: tuple[str, ...] | None = None,
    ) -> Segment:
        """Nodes [start, stop) as a model: `types` of the values live at `start`, `outputs` (default: those live at `stop`).

        Constants in `replaced` get other values.
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
        values = {**self.network.constants, **(replaced or {})}
        used = dict.fromkeys(name for node in nodes for name in reads(node) if name in values)
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
