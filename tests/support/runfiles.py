"""Run files made up of random hits, and the same hits as plain lists, for tests of what reads run files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from onnxnoise.records import Realized, Tally
from onnxnoise.results.run_file.store import RunStore

INF = float("inf")
Key = tuple[str, int | None, float, int]
KINDS = ("conv", "batchnorm")


@dataclass
class RunFile:
    """Hits as lists of booleans by (sweep, layer, snr, draw); the more noise and the earlier the layer, the fewer.

    `forgotten` are the (key, start of chunk) that are not written, as after an interruption. `asked` is what the run's
    command is said to have asked for, `told` is the number of classes that the file keeps; None: the file does not say.
    """

    path: Path
    names: Sequence[str] = ("conv1", "bn1", "fc")
    snrs: tuple[float, ...] = (10.0, 2.5)
    sweeps: tuple[str, ...] = ("single", "cumulative", "all")
    draws: int = 3
    chunks: tuple[int, ...] = (13, 8, 9)
    classes: int = 10
    model: str = "net"
    bn: str = "group"
    dataset: str = "cifar10"
    seed: int = 0
    design: str = "crossed"
    forgotten: frozenset[tuple[Key, int]] = frozenset()
    asked: dict[str, Any] | None = None
    told: int | None = None
    top1: dict[Key, list[bool]] = field(default_factory=dict)
    top5: dict[Key, list[bool]] = field(default_factory=dict)
    nonfinite: dict[Key, list[bool]] = field(default_factory=dict)
    negative: dict[Key, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        images, layers = sum(self.chunks), range(1, len(self.names) + 1)
        clean = rng.random(images) < 0.8
        self._keep(("clean", None, INF, 0), clean, rng)
        for sweep, snr, draw in product(self.sweeps, self.snrs, range(self.draws)):
            for layer in [None] if sweep == "all" else layers:
                share = {"single": 1 / (layer or 1), "cumulative": (layer or 1) / len(layers), "all": 1.0}[sweep]
                broken = rng.random(images) < min(1.0, 2 * share / snr)
                self._keep((sweep, layer, snr, draw), clean & ~(broken & (rng.random(images) < 0.9)), rng)
        self.write()

    def write(self) -> None:
        """Make the file from the lists."""
        with RunStore.open(self.path, self._identity(), self._description()) as store:
            if self.asked is not None:
                store.begin({"command": "onnxnoise bench net.onnx", "spec": self.asked, "versions": {"numpy": "2"}})
            for chunk in self.ranges:
                store.lay_down(chunk.stop, chunk.__len__)
                store.append(self._tallies(chunk))
            found = product(range(1, len(self.names) + 1), self.snrs)
            store.keep_realized(Realized(k, snr, snr * (1 + k / 100), 0.9, 0.1 * k, self.draws) for k, snr in found)

    @property
    def images(self) -> int:
        return sum(self.chunks)

    @property
    def ranges(self) -> list[range]:
        starts = np.cumsum([0, *self.chunks[:-1]]).tolist()
        return [range(start, start + size) for start, size in zip(starts, self.chunks, strict=True)]

    def forget(self, condition: str) -> None:
        """Take tallies away, as if they had not been measured: an SQL condition."""
        with RunStore.existing(self.path) as store:
            store.database._connection.execute(f"DELETE FROM tally WHERE {condition}")

    def _keep(self, key: Key, top1: Any, rng: np.random.Generator) -> None:
        images = len(top1)
        self.top1[key] = top1.tolist()
        self.top5[key] = (top1 | (rng.random(images) < 0.5)).tolist()
        lost = ~np.array(self.top5[key]) & (rng.random(images) < 0.2) & (key[1] == 1)
        self.nonfinite[key] = lost.tolist()
        self.negative[key] = 2 * key[3] if key[1] is not None and KINDS[(key[1] - 1) % 2] == "batchnorm" else 0

    def _tallies(self, chunk: range) -> Iterator[Tally]:
        own = slice(chunk.start, chunk.stop)
        for key in self.top1:
            if (key, chunk.start) not in self.forgotten:
                top5 = packed(self.top5[key][own]) if self.classes > 5 else b""
                top1, nonfinite = packed(self.top1[key][own]), packed(self.nonfinite[key][own])
                yield Tally(*key, chunk.start, len(chunk), top1, top5, nonfinite, self.negative[key])

    def _identity(self) -> dict[str, Any]:
        return {
            "model": f"{self.seed:064x}",
            "data": "b" * 64,
            "seed": 40,
            "bn": self.bn,
            "sigma_scope": "tensor",
            "layers": list(range(1, len(self.names) + 1)),
            "preprocessing": {"dataset": self.dataset},
            "provider": "CPUExecutionProvider",
            "design": self.design,
        }

    def _description(self) -> dict[str, Any]:
        layers = [
            {
                "index": i,
                "name": name,
                "kind": KINDS[(i - 1) % 2],
                "parameters": 12 * i,
                "sigma_w": 0.5,
                "initializers": [{"name": f"{name}.weight", "shape": [4, 3 * i], "sigma_w": 0.5}],
            }
            for i, name in enumerate(self.names, 1)
        ]
        notices = [{"code": "tied_kernels", "message": f"about {self.names[0]}"}]
        told = {} if self.told is None else {"classes": self.told}
        return {"model": self.model, "dataset": "images", **told, "layers": layers, "notices": notices}


def packed(bits: list[bool]) -> bytes:
    """First bit highest, the last byte filled with zeros."""
    padded = [*bits, *[False] * (-len(bits) % 8)]
    octets = ["".join("01"[bit] for bit in padded[i : i + 8]) for i in range(0, len(padded), 8)]
    return bytes(int(octet, 2) for octet in octets)


HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\" onmouseover=\"document.title='owned'\" x='",
    "a" * 300,
    "${document.title='owned'} {{7*7}} %s \\u003c \\",
    "line\nbreak\ttab\x00nul\x1b[31m\u202egnp.exe\udcff",
    '=HYPERLINK("http://example.invalid/","x")',
    'layer1.0.conv1, "quoted"; &amp; <b>',
)
"""Names that a page, an image, a spreadsheet or a terminal could stumble over."""


def identity(indices: tuple[int, ...]) -> dict[str, Any]:
    return {
        "model": "a" * 64,
        "data": "b" * 64,
        "seed": 40,
        "bn": "group",
        "sigma_scope": "tensor",
        "layers": list(indices),
        "provider": "CPUExecutionProvider",
    }


def description(indices: tuple[int, ...], name: str = "net") -> dict[str, Any]:
    initializer = {"name": f"{name}.weight", "shape": [4, 3], "sigma_w": 0.5}
    return {
        "model": name,
        "dataset": "images",
        "layers": [
            {"index": i, "name": name, "kind": "conv", "parameters": 12, "sigma_w": 0.5, "initializers": [initializer]}
            for i in indices
        ],
        "notices": [{"code": "tied_kernels", "message": f"about {name}"}],
    }
