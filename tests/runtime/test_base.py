"""What follows from where a provider keeps values: in host memory, or in a GPU's own."""

from __future__ import annotations

import pickle

import pytest

from onnxnoise.machine import cores
from onnxnoise.runtime import cuda
from onnxnoise.runtime.base import CPU, CudaProvider, Provider

HOST, GPU = Provider(CPU), CudaProvider()
GIB = 1 << 30


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, memory: int = 8 * GIB) -> None:
    """The driver shows so many GPUs."""
    found = tuple(cuda.Gpu(f"gpu {i}", memory, "9.0") for i in range(count))
    monkeypatch.setattr(cuda, "driver", lambda: cuda.Driver("1", (12, 0), 0, found))


@pytest.mark.parametrize(
    ("provider", "image_bytes", "images"),
    [(HOST, 1, 64), (HOST, 1 << 17, 16), (HOST, 1 << 30, 4), (GPU, 1, 512), (GPU, 1 << 20, 256), (GPU, 1 << 30, 16)],
)
def test_a_mini_batch_stays_within_its_bytes_and_its_numbers(provider: Provider, image_bytes: int, images: int) -> None:
    assert provider.batch_limits.images(image_bytes) == images


def test_host_memory_has_room_for_pixels_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert HOST.chunk_images(3 << 20, 1 << 20, GIB) == 256
    assert HOST.chunk_images(3, 1, GIB) == 1000
    assert HOST.value_bytes(GIB) == GIB


def test_a_gpu_has_room_for_values_and_the_host_for_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 1)
    assert GPU.value_bytes(GIB) == 4 * GIB
    assert GPU.chunk_images(1 << 20, 1 << 10, GIB) == 4096
    assert GPU.chunk_images(1 << 10, 1 << 20, GIB) == 1024
    assert GPU.chunk_images(1, 1, GIB) == 10_000
    monkeypatch.setattr(cuda, "driver", lambda: None)
    assert GPU.value_bytes(GIB) == 2 * GIB


def test_cores_are_shared_and_gpus_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert (HOST.lanes(), HOST.lanes(3), HOST.devices()) == (cores().threads, 3, None)
    assert (GPU.lanes(), GPU.lanes(3), GPU.devices()) == (1, 1, ("0", "1"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-7,-1")
    assert GPU.devices() == ("5", "GPU-7")


@pytest.mark.parametrize("provider", [HOST, GPU])
def test_a_provider_travels_to_workers(provider: Provider) -> None:
    assert pickle.loads(pickle.dumps(provider)) == provider
    assert provider.options == (() if provider is HOST else CudaProvider().options)
