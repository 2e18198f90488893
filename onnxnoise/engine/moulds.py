"""Moulds: pieces of network that ONNX Runtime optimizes once, and that every draw's noisy constants are poured into as inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxnoise.engine.segments import Segment
from onnxnoise.engine.values import Piece
from onnxnoise.runtime import session
from onnxnoise.runtime.base import Provider
from onnxnoise.runtime.layouts import Layout, laid_out
from onnxnoise.runtime.protos import attribute, reads
from onnxnoise.runtime.session import Session

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Merged:
    """A batch norm that is merged into the convolution before it, in float32 and in the steps of ONNX Runtime's ConvBNFusion.

    `kernel`, `bias` (of the convolution, if it has one) and `norm` (scale, bias, mean, variance) are names of constants.
    """

    kernel: str
    bias: str | None
    norm: tuple[str, str, str, str]
    epsilon: float

    @property
    def names(self) -> tuple[str, str]:
        """The names of the merged kernel and bias."""
        return f"{self.kernel}@merged", f"{self.norm[1]}@merged"

    def of(self, values: Mapping[str, Any]) -> dict[str, Floats]:
        """The merged kernel and bias by name."""
        kernel = values[self.kernel]
        scale, bias, mean, variance = (values[name] for name in self.norm)
        with np.errstate(all="ignore"):  # as ONNX Runtime: a variance below 0 makes NaN
            factor = scale / np.sqrt(variance + np.float32(self.epsilon))
            shift = bias - mean * factor if self.bias is None else (values[self.bias] - mean) * factor + bias
            merged = kernel * factor.reshape(-1, *(1,) * (kernel.ndim - 1))
        return dict(zip(self.names, (merged, shift), strict=True))


@dataclass(frozen=True)
class Mould:
    """A piece of network whose noisy constants are inputs of one session that all variants share."""

    session: Session
    merged: tuple[Merged, ...]
    layouts: Mapping[str, Layout]
    clean: Mapping[str, Array]
    """Constants without noise that are merged with noisy ones, by name."""

    @classmethod
    def of(
        cls, segment: Segment, noisy: Iterable[str], constants: Mapping[str, Array], provider: Provider
    ) -> Mould | None:
        """The mould of a segment in which the constants `noisy` vary; None where ONNX Runtime's optimizer computes with them.

        `constants` has the network's clean values. What comes out of a mould is, to the bit, what comes out of a session that
        has the noisy values as constants.
        """
        model = onnx.ModelProto.FromString(segment.stub)
        varying = set(noisy)
        merged = tuple(_merge(model.graph, varying))
        for each in merged:
            varying |= set(each.names)
        made = laid_out(model, segment.references, sorted(varying))
        if made is None:
            return None
        inside = {name for each in merged for name in (each.kernel, *each.norm, *([each.bias] if each.bias else []))}
        clean = {name: constants[name] for name in inside if name not in varying}
        return cls(Session(made.model, {}, provider, optimized=False), merged, made.layouts, clean)

    def piece(self, noisy: Mapping[str, Array], provider: Provider) -> Piece:
        """The piece with these noisy constants, ready to run."""
        values = {**self.clean, **noisy}
        for each in self.merged:
            values |= each.of(values)
        laid = {name: layout.of(values[layout.source]) for name, layout in self.layouts.items()}
        return Piece(self.session, {name: session.to_device(array, provider) for name, array in laid.items()})


def _merge(graph: onnx.GraphProto, varying: set[str]) -> Iterable[Merged]:
    """Merge each batch norm that varies, or whose convolution does, into the convolution, where ONNX Runtime would."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {output.name for output in graph.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in reads(node):
            readers.setdefault(name, []).append(node)
    for conv in [node for node in graph.node if node.op_type == "Conv" and not node.domain]:
        after = readers.get(conv.output[0], [])
        if len(after) != 1 or after[0].op_type != "BatchNormalization" or after[0].domain or conv.output[0] in outputs:
            continue
        norm = after[0]
        kernel, *bias = conv.input[1:]
        used = [kernel, *bias, *norm.input[1:]]
        if (
            norm.input[0] != conv.output[0]
            or not constants.keys() >= set(used)
            or varying.isdisjoint(used)
            or any(len(readers[name]) != 1 or constants[name].data_type != onnx.TensorProto.FLOAT for name in used)
        ):
            continue
        scale, shift, mean, variance = norm.input[1:5]
        found = Merged(
            kernel,
            bias[0] if bias else None,
            (scale, shift, mean, variance),
            float(attribute(norm, "epsilon", 1e-5)),
        )
        for name, like in zip(found.names, (kernel, shift), strict=True):
            graph.initializer.add().CopyFrom(constants[like])
            graph.initializer[-1].name = name
        conv.output[0] = norm.output[0]
        conv.input[:] = [conv.input[0], *found.names]
        graph.node.remove(norm)
        for name in used:
            graph.initializer.remove(constants[name])
        yield found
