"""An execution provider, and all that depends on where it keeps values: mini-batches, chunks, threads, worker processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxnoise.machine import cores
from onnxnoise.runtime import cuda

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

# Nothing here may depend on a timing (EXHAUSTIVE does) or on how much memory is free, and a product has all its 24 bits
_CUDA_OPTIONS = (
    ("use_tf32", "0"),
    ("cudnn_conv_algo_search", "HEURISTIC"),
    ("arena_extend_strategy", "kSameAsRequested"),
)
_LEAST_GPU_BYTES = 2 << 30
"""Bytes of memory that a GPU is assumed to have to spare where the driver doesn't say."""


@dataclass(frozen=True)
class BatchLimits:
    """The largest mini-batch: `bytes` at the largest cut, but never less than `fewest` or more than `most` images."""

    bytes: int
    fewest: int
    most: int

    def images(self, image_bytes: int) -> int:
        """The most images in a mini-batch, where one image has `image_bytes` at the largest cut."""
        return min(max(self.bytes // image_bytes, self.fewest), self.most)


@dataclass(frozen=True)
class Provider:
    """An execution provider that was proven to work here. This one keeps values in host memory and runs on the processor's cores.

    `options` are given to ONNX Runtime with its `name`. `note` says why `auto` left a GPU alone; it is empty otherwise.
    """

    name: str
    options: tuple[tuple[str, str], ...] = ()
    note: str = ""

    device: ClassVar[str] = "cpu"
    """ONNX Runtime's name of the device that holds the values."""

    own_memory: ClassVar[bool] = False
    """Whether values lie in memory of the provider's own, with an allocator of its own."""

    shares_sessions: ClassVar[bool] = False
    """Whether one session should serve many draws, since making a session takes longer than running it."""

    batch_limits: ClassVar[BatchLimits] = BatchLimits(bytes=2 << 20, fewest=4, most=64)
    """A mini-batch's values should stay in a core's cache."""

    largest_chunk: ClassVar[int] = 1000
    """The most images in a chunk: more would cost memory and delay progress, while its sessions are long paid for."""

    def lanes(self, threads: int | None = None, /) -> int:
        """The number of mini-batches that run at a time, each on one of `threads` threads; None: one thread for each core.

        A mini-batch to a core beats all cores on one mini-batch, and no result depends on the number of threads.
        """
        return threads or cores().threads

    def value_bytes(self, host_bytes: int, /) -> int:
        """The bytes that values at cuts may take, where `host_bytes` of host memory are left."""
        return host_bytes

    def chunk_images(self, cut_bytes: int, pixel_bytes: int, host_bytes: int) -> int:
        """The most images in a chunk, each with `cut_bytes` at the largest cut and `pixel_bytes` as pixels and input."""
        return min(self.largest_chunk, host_bytes // (cut_bytes + pixel_bytes))

    def devices(self) -> tuple[str, ...] | None:
        """Names of the devices that worker processes get, one each; None where workers share the processor's cores."""
        return None


@dataclass(frozen=True)
class CudaProvider(Provider):
    """CUDA's execution provider: values stay in the GPU's memory, which wants enough to do at a time."""

    name: str = CUDA
    options: tuple[tuple[str, str], ...] = _CUDA_OPTIONS

    device: ClassVar[str] = "cuda"
    own_memory: ClassVar[bool] = True
    shares_sessions: ClassVar[bool] = True
    batch_limits: ClassVar[BatchLimits] = BatchLimits(bytes=256 << 20, fewest=16, most=512)
    largest_chunk: ClassVar[int] = 10_000

    def lanes(self, _threads: int | None = None, /) -> int:
        """One mini-batch at a time, since one thread keeps a GPU busy."""
        return 1

    def value_bytes(self, _host_bytes: int, /) -> int:
        """Half of the GPU's memory: the rest is for weights and activations."""
        found = cuda.driver()
        return found.gpus[0].memory_bytes // 2 if found and found.gpus else _LEAST_GPU_BYTES

    def chunk_images(self, cut_bytes: int, pixel_bytes: int, host_bytes: int) -> int:
        return min(self.largest_chunk, host_bytes // pixel_bytes, self.value_bytes(host_bytes) // cut_bytes)

    def devices(self) -> tuple[str, ...] | None:
        return cuda.visible_devices()
