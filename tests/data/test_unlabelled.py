"""Images whose labels don't count (`--labels clean`): no layout looks for any, and whoever lacks them is told of the way."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from support.imaging import card, flat_color, write, write_tar

from onnxnoise.data.images import open_images
from onnxnoise.data.sources.base import ImageSource
from onnxnoise.errors import DataError, UsageError
from onnxnoise.spec import OwnData

LEVELS = [10, 30, 20]
PNGS = [flat_color(level) for level in LEVELS]
PIXELS = np.array(LEVELS, np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
CODE = """
import numpy as np
x = np.load("x.npy")
def alone():
    yield from x
def pairs():
    return [(image, None) for image in x]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each layout, without labels or with such as no card of three classes could have."""
    monkeypatch.chdir(tmp_path)
    names = [f"{number}.png" for number in range(3)]
    write(tmp_path, {f"flat/{name}": png for name, png in zip(names, PNGS, strict=True)})
    write(tmp_path, {f"split/test/{name}": png for name, png in zip(names, PNGS, strict=True)})
    write_tar(tmp_path / "alone.tar", dict(zip(names, PNGS, strict=True)))
    labelled = {"0.png": PNGS[0], "0.cls": b"-1", "1.png": PNGS[1], "1.json": b"{}", "2.json": b"{}", "3.png": PNGS[2]}
    write_tar(tmp_path / "odd.tar", labelled)
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    column = pyarrow.array([{"bytes": png, "path": None} for png in PNGS], kind)
    parquet.write_table(pyarrow.table({"image": column}), "alone.parquet")
    parquet.write_table(pyarrow.table({"image": column, "label": [-1, -1, -1]}), "held.parquet")
    np.save("x.npy", PIXELS)
    np.savez("x.npz", x=PIXELS)
    np.savez("held.npz", x_train=PIXELS[:1], y_train=[0], x_test=PIXELS, y_test=[-1, -1, -1])
    grey = PIXELS[..., 0]
    write(tmp_path / "idx", {"t10k-images-idx3-ubyte": struct.pack(">HBB3I", 0, 8, 3, *grey.shape) + grey.tobytes()})
    Path("own.py").write_text(CODE)
    return tmp_path


def opened(data: Any, labels: str | None = "clean") -> ImageSource:
    own = data if isinstance(data, str) else OwnData(data)
    return open_images(own, card(Path(), '[input]\ndataset = "signs"\nclasses = 3\nsize = 8'), labels=labels)


DATA: dict[str, Any] = {
    **{name: name for name in ("flat", "split", "alone.tar", "odd.tar", "alone.parquet", "held.parquet")},
    **{name: name for name in ("x.npy", "x.npz", "held.npz", "idx", "idx/t10k-images-idx3-ubyte")},
    **{name: name for name in ("python:own.py:alone", "python:own.py:pairs")},
    "array": PIXELS,
    "two arrays": (PIXELS, np.array([7, -1, 1.5])),
    "list": list(PIXELS),
}


@pytest.mark.parametrize("data", DATA)
def test_no_label_is_looked_for(data: str) -> None:
    source = opened(DATA[data])
    (chunk,) = source.chunks([range(3)], threads=2)
    assert (chunk.pixels[:, 0, 0, 0].tolist(), source.labels.tolist()) == (LEVELS, [0, 0, 0])


@pytest.mark.parametrize(
    "data", ["flat", "split", "alone.tar", "alone.parquet", "held.parquet", "x.npy", "x.npz", "idx"]
)
def test_who_has_no_labels_is_told_of_the_way(data: str) -> None:
    with pytest.raises(DataError, match="--labels clean"):
        opened(data, None)


@pytest.mark.parametrize("labels", ["Clean", "CLEAN", "clen"])
def test_a_slip_for_clean_is_told(labels: str) -> None:
    with pytest.raises(UsageError, match=rf"--labels {labels}: there is no such file; did you mean clean\?"):
        opened("flat", labels)
    Path(labels).write_bytes(b"")
    with pytest.raises(DataError, match=r"is no \.npy"):
        opened("x.npy", labels)


def test_imagenet_too(tmp_path: Path) -> None:
    found = card(tmp_path, '[input]\ndataset = "imagenet"\nsize = 8')
    with pytest.raises(DataError, match=r"has no known label.*--labels clean"):
        open_images("flat", found)
    assert open_images("flat", found, labels="clean").labels.tolist() == [0, 0, 0]
