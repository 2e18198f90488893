"""The values at a cut, mini-batch by mini-batch: the pieces of network that carry them onward, and the memory they lie in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx.helper import tensor_dtype_to_np_dtype

from onnxnoise.engine.segments import Cutter, TensorType
from onnxnoise.errors import ModelError
from onnxnoise.model.network import Network
from onnxnoise.runtime import session
from onnxnoise.runtime.base import Provider
from onnxnoise.runtime.session import Runs, Session, Value
from onnxnoise.text import counted

Array = npt.NDArray[Any]
Values = Mapping[str, Value]
Types = Mapping[str, TensorType]

Cut = list[Callable[[], Values]]
"""The values live at a cut: for each mini-batch of a chunk, a function that waits for its values."""

_SLAB_BYTES = 64 << 20


@cache
def lanes(threads: int) -> ThreadPoolExecutor:
    """The threads that run mini-batches, the same for all sweeps of a process: memory of ended threads would stay scattered."""
    return ThreadPoolExecutor(threads, thread_name_prefix="onnxnoise-lane")


@dataclass(frozen=True)
class Piece:
    """A segment ready to run in a session; `noise` has the noisy constants that are inputs of the session, by name."""

    session: Session
    noise: Values = field(default_factory=dict)

    def run(self, values: Values, into: Values | None = None, runs: Runs | None = None) -> dict[str, Value]:
        """`values` together with the outputs that the nodes make of them, which are written to `into` where it is given."""
        return {**values, **self.session.run({**values, **self.noise}, into, runs)}


def only(values: Values, names: tuple[str, ...]) -> Values:
    """The values of these names, which later nodes still need."""
    return {name: values[name] for name in names}


def room(types: Types, batches: int, provider: Provider) -> Iterator[Values | None]:
    """Yield for each mini-batch a value of each of `types` to write to; None on a device, which has an allocator of its own.

    In host memory the values of a cut lie in slabs that the system gets back when their last mini-batch goes. In small pieces
    of its own, the allocator would keep several times the memory of the values that are alive.
    """
    if provider.own_memory or not types:
        yield from [None] * batches
        return
    empty = {name: np.empty((0, *shape), tensor_dtype_to_np_dtype(kind)) for name, (kind, shape) in types.items()}
    sizes = [int(np.prod(array.shape[1:])) * array.itemsize for array in empty.values()]
    together = max(1, _SLAB_BYTES // max(1, min(sizes)))
    for start in range(0, batches, together):
        count = min(together, batches - start)
        slabs = {name: np.empty((count, *array.shape[1:]), array.dtype) for name, array in empty.items()}
        for i in range(count):
            # a slice, since an index into a slab of scalars would give a copy
            rows = {name: slab[i : i + 1].reshape(slab.shape[1:]) for name, slab in slabs.items()}
            yield {name: session.to_device(row, provider) for name, row in rows.items()}


@dataclass(frozen=True)
class BlankPass:
    """The findings of a pass over blank images: bytes that one takes at the largest cut and as the model's input, and the number
    of logits.

    `stage_bytes` is the most at a cut where a convolution or dense layer starts, at which `cumulative` waits. `placement` has
    for each execution provider the number of nodes of each operator that it runs.
    """

    cut_bytes: int
    stage_bytes: int
    input_bytes: int
    classes: int
    placement: Mapping[str, Mapping[str, int]]


def blank_pass(network: Network, provider: Provider, batch: Array, seconds: float = inf) -> BlankPass:
    """Run one mini-batch of the model's inputs with every cut's values as outputs.

    Raises ModelError if it doesn't run, or not within `seconds`.
    """
    cutter = Cutter(network)
    starts = sorted({layer.start for layer in network.layers})
    image = {network.image.name: session.to_device(batch, provider)}
    names = dict.fromkeys(
        [network.logits, *(name for start in starts for name in cutter.live(start) if name not in image)]
    )
    whole = cutter.segment(0, cutter.end, session.types(image), outputs=tuple(names))
    run = Session(whole.stub, whole.references, provider)
    values = run_within(run, image, seconds, f"{network.name}: a pass over {counted(len(batch), 'image')}")
    sizes = {name: value.tensor_size_in_bytes() for name, value in {**image, **values}.items()}
    at = {start: sum(sizes[name] for name in cutter.live(start)) // len(batch) for start in starts}
    logits = session.to_host(values[network.logits])
    stages = [at[start] for start in starts if cutter.stage(start) == start]
    placement = {name: dict(nodes) for name, nodes in run.placement().items()}
    return BlankPass(max(1, *at.values()), max(1, *stages), batch[0].nbytes, logits.size // len(batch), placement)


def run_within(run: Session, feeds: Values, seconds: float, what: str) -> dict[str, Value]:
    """The outputs of a session; raises ModelError that names `what` and the node where it takes longer than `seconds`."""
    try:
        return run.run_within(seconds, feeds)
    except session.OvertimeError as over:
        node = f", at node {over}" if str(over) else ""
        raise ModelError(
            f"{what} was not done after {seconds:g} s{node}; export it without a loop that has no end in sight, "
            "or allow more with --timeout"
        ) from None
