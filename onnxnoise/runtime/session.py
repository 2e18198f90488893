"""Sessions: in-memory graphs ready to run on one execution provider, with values that stay on its device."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import wait
from functools import cache
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from onnxnoise.errors import ModelError, ProviderError
from onnxnoise.runtime.attended import attended, inside
from onnxnoise.runtime.base import CPU, Provider
from onnxnoise.runtime.large import as_inputs

Array = npt.NDArray[Any]
Value = Any
"""An `onnxruntime.OrtValue`: a tensor on the provider's device."""

VERSION: str = ort.__version__

_ERRORS_ONLY, _NOTHING = 3, 4

_AS_REQUESTED = 1
"""ONNX Runtime's strategy to take no more memory from the system than is asked for."""

_GRACE = 2.0
"""Seconds that a run which was told to end gets for the node that it is in."""


class OvertimeError(Exception):
    """A run took longer than it was allowed to; the message names the node that it was in, empty where that isn't known."""


def session_options() -> Any:
    """The `onnxruntime.SessionOptions` that every session here starts from: one thread, the same bits each time, no log."""
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY if os.environ.get("ONNXNOISE_ORT_LOG") else _NOTHING
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # else ORT would quantize noisy weights again
    options.intra_op_num_threads = 1  # the sweep runs a mini-batch to a core instead
    options.use_deterministic_compute = True
    return options


@cache
def _shared_memory() -> None:
    """Make the allocator that all sessions of this process share."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg({"arena_extend_strategy": _AS_REQUESTED}))


def _share_memory(options: Any) -> None:
    """Let a session take memory for its activations where others do: each would keep what it needed once for itself."""
    _shared_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")


def reason(error: Exception) -> str:
    """The first line of ONNX Runtime's message, without its error code and the place in its source."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", lines[0])
    found = re.sub(r"(Exception during \w+: )?\S*/onnxruntime\S*:\d+ .*?\) ", "", line).strip()
    return f"{found}; memory ran out: give less with --memory" if re.search("bad.?alloc|to allocate", found) else found


def _node(error: BaseException | None) -> str:
    """The node that a run was in when it failed, empty where the error doesn't tell."""
    found = re.search(r"while running (\S+) node\. Name:'([^']*)'", str(error))
    return f"{found[2] or 'without a name'} ({found[1]})" if found else ""


class Runs:
    """Runs of any sessions that can be ended together."""

    def __init__(self) -> None:
        self.options = ort.RunOptions()

    def stop(self) -> None:
        """End these runs, now and later, with a ModelError before the next node, in loops before their next step."""
        self.options.terminate = True


class Session:
    """A graph ready to run on one provider, its large initializers handed over by reference.

    `weights` has the values of the stub's external initializers (see `engine.segments.Segment`). The session keeps them alive:
    large matrices are used where they lie, and ONNX Runtime may use others so. `prepacked` copies the other matrices into the
    order that a processor likes best, which pays for a session that runs often. Without `optimized` each node is one kernel, as
    written. Raises ModelError for a graph that can't run, and ProviderError where ONNX Runtime takes another provider.
    """

    def __init__(
        self,
        stub: bytes,
        weights: Mapping[str, Array],
        provider: Provider,
        *,
        prepacked: bool = False,
        optimized: bool = True,
    ) -> None:
        options = session_options()
        if not prepacked:
            options.add_session_config_entry("session.disable_prepacking", "1")
        if not optimized:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        large: frozenset[str] = frozenset()
        if provider.name == CPU:
            _share_memory(options)
            stub, large = as_inputs(stub, weights)
        self._weights = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in weights.items()}
        self._held = {name: self._weights[name] for name in sorted(large)}
        handed_over = {name: value for name, value in self._weights.items() if name not in large}
        if handed_over:
            options.add_external_initializers(list(handed_over), list(handed_over.values()))
        choice = [(provider.name, dict(provider.options))] if provider.options else [provider.name]
        fallback = [] if provider.name == CPU else [CPU]  # for nodes that the provider has no kernel for
        try:
            self._session = ort.InferenceSession(stub, options, providers=[*choice, *fallback], enable_fallback=0)
        except Exception as error:
            raise ModelError(f"ONNX Runtime can't run the graph: {reason(error)}") from error
        self._device = provider.device
        self.inputs = [each.name for each in self._session.get_inputs() if each.name not in large]
        self.outputs = [each.name for each in self._session.get_outputs()]
        self.provider: str = self._session.get_providers()[0]
        if self.provider != provider.name:
            raise ProviderError(f"ONNX Runtime fell back from {provider.name} to {self.provider}")

    def placement(self) -> dict[str, Counter[str]]:
        """The number of nodes of each operator that each provider runs; empty where ONNX Runtime can't tell (before 1.24)."""
        placed: dict[str, Counter[str]] = {}
        if hasattr(self._session, "get_provider_graph_assignment_info"):
            for part in self._session.get_provider_graph_assignment_info():
                placed.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
        return placed

    def seconds(self, feeds: Mapping[str, Value], runs: int = 3) -> float:
        """Wall time of the fastest of `runs` runs, after one that warms up (kernels chosen, memory allocated, device awake)."""
        self.run(feeds)
        taken = []
        for _ in range(runs):
            start = time.perf_counter()
            self.run(feeds)  # returns when the device is done
            taken.append(time.perf_counter() - start)
        return min(taken)

    def run_within(self, seconds: float, feeds: Mapping[str, Value]) -> dict[str, Value]:
        """Run as `run` does, but Ctrl-C or an OvertimeError after `seconds` ends it."""
        runs = Runs()
        made = attended(lambda: self.run(feeds, runs=runs))
        try:
            return made.result(None if seconds == inf else seconds)
        except TimeoutError:
            runs.stop()
            wait([made], _GRACE)
            raise OvertimeError(_node(made.exception()) if made.done() else "") from None
        except BaseException:
            runs.stop()
            wait([made], _GRACE)
            raise

    def run(
        self, feeds: Mapping[str, Value], into: Mapping[str, Value] | None = None, runs: Runs | None = None
    ) -> dict[str, Value]:
        """The outputs by name, on the provider's device; `feeds` may have more than the inputs. Several threads may call it.

        `into` has a value for each output, of its shape and type, which is written to instead of a new one; `runs` can end
        the run. Raises ModelError with ONNX Runtime's reason.
        """
        binding = self._session.io_binding()
        for name, value in self._held.items():
            binding.bind_ortvalue_input(name, value)
        for name in self.inputs:
            binding.bind_ortvalue_input(name, feeds[name])
        for name in self.outputs:
            if into is not None:
                binding.bind_ortvalue_output(name, into[name])
            else:
                binding.bind_output(name, self._device)
        try:
            with inside():
                self._session.run_with_iobinding(binding, runs.options if runs else None)
        except Exception as error:
            raise ModelError(f"ONNX Runtime failed while running the graph: {reason(error)}") from error
        if into is not None:  # these own their memory; the binding's copies of them do not
            return {name: into[name] for name in self.outputs}
        return dict(zip(self.outputs, binding.get_outputs(), strict=True))


def to_device(array: Array, provider: Provider) -> Value:
    """The array as a value on the provider's device; in host memory it aliases `array`, which must not change afterwards."""
    return ort.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"), provider.device, 0)  # a scalar stays one


def to_host(value: Value) -> Array:
    """The value as an array in host memory."""
    return np.asarray(value.numpy())


def types(values: Mapping[str, Value]) -> dict[str, tuple[int, tuple[int, ...]]]:
    """The ONNX element type and shape of each value."""
    return {name: (value.element_type(), tuple(value.shape())) for name, value in values.items()}
