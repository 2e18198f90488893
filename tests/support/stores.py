"""A small run file's identity, tallies and an open store of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxnoise.records import Tally, TallyKey
from onnxnoise.results.store import RunStore

INF = float("inf")


IDENTITY: dict[str, Any] = {
    "model": "a" * 64,
    "data": "b" * 64,
    "seed": 40,
    "bn": "group",
    "sigma_scope": "tensor",
    "layers": [1, 2, 3, 5],
    "preprocessing": {"size": 32, "mean": [0.5, 0.5, 0.5], "layout": "nchw"},
    "output": "logits",
    "provider": "CPUExecutionProvider",
}


DESCRIPTION = {"model": "net", "layers": [], "notices": []}


def tally(sweep: str = "single", layer: int | None = 1, snr: float = 10.0, draw: int = 0, start: int = 0) -> Tally:
    return Tally(sweep, layer, snr, draw, start, 8, bytes([draw % 256]), b"\xff", b"\x00", 3)


def opened(path: Path, **changed: Any) -> RunStore:
    return RunStore.open(path, {**IDENTITY, **changed}, DESCRIPTION)


KEYS: list[TallyKey] = [("single", layer, 10.0, 0, 0) for layer in range(1, 5)]
