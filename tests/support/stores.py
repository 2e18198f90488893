"""A small run file's identity, tallies and an open store of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from onnxnoise.records import Tally, TallyKey
from onnxnoise.results.run_file import database
from onnxnoise.results.run_file.store import RunStore

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


DESCRIPTION: dict[str, Any] = {
    "model": "net",
    "dataset": "images",
    "layers": [
        {"index": i, "name": f"layer{i}", "kind": "conv", "parameters": 12, "sigma_w": 0.5, "initializers": []}
        for i in range(1, 6)
    ],
    "notices": [],
}


def tally(sweep: str = "single", layer: int | None = 1, level: float = 10.0, draw: int = 0, start: int = 0) -> Tally:
    return Tally(sweep, layer, level, draw, start, 8, bytes([draw % 256]), b"\xff", b"\x00", 3)


def opened(path: Path, *, images: int = 16, **changed: Any) -> RunStore:
    """An open store whose first images are laid down in chunks of 8."""
    store = RunStore.open(path, {**IDENTITY, **changed}, DESCRIPTION)
    with store.closed_on_error():
        store.lay_down(images, lambda: 8)
    return store


KEYS: list[TallyKey] = [("single", layer, 10.0, 0, 0) for layer in (1, 2, 3, 5)]


def edited(path: Path, *statements: str, values: Sequence[object] = ()) -> None:
    """Change a run file by SQL, its checksums with it: what somebody who knows the format could do."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement, values)
        connection.create_function("checksum", -1, database.checksum)
        for table, columns in database.SUMMED.items():
            connection.execute(f"UPDATE {table} SET checksum = checksum({', '.join(columns)})")
