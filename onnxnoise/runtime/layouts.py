"""Has ONNX Runtime optimize a graph once for all values of some constants, which become inputs in the layout that it chose."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from onnxnoise.runtime.base import CPU
from onnxnoise.runtime.protos import values
from onnxnoise.runtime.session import session_options

Floats = npt.NDArray[np.float32]

_FIRST_MARK = 0x0080_0000
"""The bits of the smallest normal float32: a mark is this plus an index, so every mark is a finite number above 0."""

_MOST_MARKS = 0x0300_0000
"""Marks stay below 4e-37: no network has a constant that small, but 0."""

_WEIGHTS = "weights"


@dataclass(frozen=True)
class Layout:
    """The order in which the optimizer wants the values of the constant `source`.

    Value i of the `shape` is that at flat position `places[i]` (0 is a filling zero, 1 the first value), or, where there are no
    `places`, the values are those of a strided view with `lengths` and `strides` (in values, from the first one on).
    """

    source: str
    shape: tuple[int, ...]
    lengths: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    places: npt.NDArray[np.uint32] | None = None

    def of(self, values: Floats) -> Floats:
        """The values of `source` in this order."""
        if self.places is not None:
            return np.concatenate([np.zeros(1, np.float32), values.ravel()])[self.places].reshape(self.shape)
        flat = np.ascontiguousarray(values)
        if self.strides == (1,):
            return flat.reshape(self.shape)
        view = np.ndarray(self.lengths, flat.dtype, flat, strides=[stride * flat.itemsize for stride in self.strides])
        return np.ascontiguousarray(view).reshape(self.shape)


@dataclass(frozen=True)
class LaidOut:
    """An optimized graph, to be run as it is: `layouts` says for each of its inputs that was a constant what it must be given."""

    model: bytes
    layouts: Mapping[str, Layout]


def laid_out(model: onnx.ModelProto, references: Mapping[str, Any], variable: Iterable[str]) -> LaidOut | None:
    """The graph after ONNX Runtime's optimizer, for any values of the float32 constants `variable`.

    `references` has the model's external initializers by name. To see what the optimizer does with a constant, each of its
    values is a mark of its own. None where it does more than lay the values out anew: then each value needs a session of its own.
    """
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    names = [name for name in variable if name in sizes]
    if sum(sizes[name] for name in names) >= _MOST_MARKS - _FIRST_MARK:
        return None
    first = dict(zip(names, np.cumsum([0, *(sizes[name] for name in names)]).tolist(), strict=False))
    marked = onnx.ModelProto()
    marked.CopyFrom(model)
    given = {name: value for name, value in references.items() if name in sizes and name not in first}
    for tensor in marked.graph.initializer:
        if tensor.name in first:
            at = _FIRST_MARK + first[tensor.name]
            marks = np.arange(at, at + sizes[tensor.name], dtype=np.uint32).view(np.float32)
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                given[tensor.name] = marks.reshape(tuple(tensor.dims))
            else:
                tensor.raw_data = marks.tobytes()
    with tempfile.TemporaryDirectory(prefix="onnxnoise-") as scratch:
        made = _optimized(marked, given, Path(scratch))
        return None if made is None else _read(made, Path(scratch), first, sizes)


def _optimized(model: onnx.ModelProto, given: Mapping[str, Any], folder: Path) -> onnx.ModelProto | None:
    options = session_options()
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
    options.optimized_model_filepath = str(folder / "model.onnx")
    if given:
        values = [ort.OrtValue.ortvalue_from_numpy(value) for value in given.values()]
        options.add_external_initializers(list(given), values)
    try:
        ort.InferenceSession(model.SerializeToString(), options, providers=[CPU])
        return onnx.load(options.optimized_model_filepath, load_external_data=False)
    except Exception:  # a graph that can't be written; ONNX Runtime's exceptions share no base
        return None


def _read(model: onnx.ModelProto, folder: Path, first: Mapping[str, int], sizes: Mapping[str, int]) -> LaidOut | None:
    """The marks as layouts; every mark must be there, and an initializer must have those of one constant only."""
    missing = dict(first)
    layouts: dict[str, Layout] = {}
    for tensor in model.graph.initializer:
        stored = values(tensor, folder)
        marks = stored.view(np.uint32).ravel() if stored.dtype == np.float32 else np.zeros(0, np.uint32)
        is_mark = (marks >= _FIRST_MARK) & (marks < _MOST_MARKS)
        if not is_mark.any():
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                tensor.CopyFrom(onnx.numpy_helper.from_array(stored, tensor.name))
            continue
        index = int(marks[is_mark].min()) - _FIRST_MARK
        source = next((name for name, start in first.items() if start <= index < start + sizes[name]), None)
        if source is None or first[source] != index:
            return None
        places = np.where(is_mark, marks - np.uint32(_FIRST_MARK + index - 1), marks)
        if not _whole(places, sizes[source]):
            return None
        layouts[tensor.name] = _layout(source, tuple(tensor.dims), places)
        missing.pop(source, None)
    if missing:
        return None
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name in layouts]:
        model.graph.initializer.remove(tensor)
    for name, layout in layouts.items():
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(layout.shape)))
    return LaidOut(model.SerializeToString(), layouts)


def _whole(places: npt.NDArray[np.uint32], size: int) -> bool:
    """Whether each of the positions 1 to `size` is there once, and nothing else but zeros."""
    if int(places.max()) != size or len(places) < size:
        return False
    return bool((np.bincount(places, minlength=size + 1)[1:] == 1).all())


def _layout(source: str, shape: tuple[int, ...], places: npt.NDArray[np.uint32]) -> Layout:
    """The layout with these places, as a strided view where it is one."""
    lengths: list[int] = []
    strides: list[int] = []
    rest = places.astype(np.int64)
    while places[0] == 1 and len(rest) > 1:
        stride = int(rest[1] - rest[0])
        ends = np.flatnonzero(np.diff(rest) != stride)
        length = int(ends[0]) + 1 if len(ends) else len(rest)
        if len(rest) % length or (rest.reshape(-1, length) - rest[::length, None] != stride * np.arange(length)).any():
            break
        lengths.insert(0, length)
        strides.insert(0, stride)
        rest = rest[::length]
    if len(rest) == 1 and rest[0] == 1:
        return Layout(source, shape, tuple(lengths), tuple(strides))
    return Layout(source, shape, places=places)
