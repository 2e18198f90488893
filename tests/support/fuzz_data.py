"""Small data files of every layout, damaged by a number, given to `bench`: it must take them or say why not."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import parquet

from support import graphs, nets
from support.data_mutants import spoiled
from support.fuzzing import Child
from support.imaging import encoded, write

COUNT = 6
CARD = '[input]\ndataset = "own"\nclasses = 10\nsize = 32\nscale = 255\n'
PIXELS = nets.pictures(COUNT)
LABELS = np.arange(COUNT)
PNGS = [encoded(each, "PNG") for each in PIXELS]


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _npz(*, packed: bool) -> bytes:
    content = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(content, x=PIXELS, y=LABELS)
    return content.getvalue()


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def _tar(ending: str, label: Callable[[int], bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for number, png in enumerate(PNGS):
            for name, data in ((f"{number}.png", png), (f"{number}.{ending}", label(number))):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def _parquet() -> bytes:
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = pyarrow.array([{"bytes": png, "path": "a.png"} for png in PNGS], kind)
    features = {"label": {"_type": "ClassLabel", "names": [f"class {i}" for i in range(10)]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    content = io.BytesIO()
    made = pyarrow.table({"image": images, "label": LABELS}).replace_schema_metadata(metadata)
    parquet.write_table(made, content, row_group_size=4)
    return content.getvalue()


_CODE = b"""
import numpy
def f():
    for i in range(6):
        yield numpy.full((32, 32, 3), i, numpy.uint8), i
"""


def layouts() -> dict[str, tuple[dict[str, bytes], str]]:
    """The files of each layout by its name, and what `--data` is for them."""
    folders = {f"{i}/a.png": PNGS[i % COUNT] for i in range(10)}
    table = "".join(f"{i}.png,{i}\n" for i in range(COUNT)).encode()
    pictures = {f"{i}.png": png for i, png in enumerate(PNGS)}
    return {
        "folders": (folders, "."),
        "csv": (pictures | {"labels.csv": b"path,label\n" + table}, "."),
        "list": (pictures | {"val.txt": table.replace(b",", b" ")}, "."),
        "npz": ({"a.npz": _npz(packed=False)}, "a.npz"),
        "packed npz": ({"a.npz": _npz(packed=True)}, "a.npz"),
        "npy": ({"x.npy": _npy(PIXELS), "labels.npy": _npy(LABELS)}, "x.npy"),
        "idx": ({"images-idx4-ubyte": _idx(PIXELS), "labels-idx1-ubyte": _idx(LABELS)}, "."),
        "packed idx": (
            {"images-idx4-ubyte.gz": gzip.compress(_idx(PIXELS)), "labels-idx1-ubyte": _idx(LABELS)},
            "images-idx4-ubyte.gz",
        ),
        "parquet": ({"a.parquet": _parquet()}, "a.parquet"),
        "cls": ({"a.tar": _tar("cls", lambda i: str(i).encode())}, "a.tar"),
        "json": ({"a.tar": _tar("json", lambda i: json.dumps({"label": i}).encode())}, "a.tar"),
        "python": ({"f.py": _CODE}, "python:f.py:f"),
    }


@dataclass(frozen=True)
class Damaged:
    """A set of files one of which was damaged, and how `bench` took it where it did what it must not."""

    seed: int
    what: str
    folder: Path
    how: str | None


def damaged(seeds: Iterator[int], folder: Path) -> Iterator[Damaged]:
    """Each seed's files, written to a folder of their own in `folder` and given to `bench` in a child process with limits."""
    values = nets.balanced(nets.weights(), PIXELS)
    model = graphs.saved(nets.residual(values), folder, "net.onnx")
    (folder / "net.toml").write_text(CARD)
    good = layouts()
    child = Child(folder)
    try:
        for seed in seeds:
            chance = random.Random(seed)
            name = chance.choice([each for each in good if each != "python"])
            files, data = good[name]
            victim = chance.choice(sorted(files))
            content = files[victim]
            cut = chance.random() < 0.3
            wrong = content[: chance.randrange(len(content))] if cut else spoiled(content, chance)
            own = write(folder / str(seed), files | {victim: wrong})
            bench = ("bench", model, "--data", own / data, "--out", own / "run.sqlite", "--sweep", "all", "--snr", "10")
            how = child.run(*map(str, bench), "--draws", "1", "--provider", "cpu", "--no-clean-check", "-q")
            yield Damaged(seed, f"{name}, {victim} {'cut' if cut else 'spoiled'}", own, how)
    finally:
        child.close()
