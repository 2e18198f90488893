"""Reads the pickles of CIFAR's Python version, without running anything that a pickle may ask for."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnoise.data.sources.cifar.pickle_check import check_pickle
from onnxnoise.errors import DataError


class PickledType:
    """Stands for numpy's dtype: keeps its code and byte order."""

    def __init__(self, code: str, *_: object) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class PickledArray:
    """Stands for numpy's ndarray: keeps what the array is made of, and makes it from checked parts only."""

    def __init__(self, *_: object) -> None:
        self.shape: Any = None
        self.type: Any = None
        self.column_major: Any = False
        self.content: Any = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.type, self.column_major, self.content = state

    def array(self) -> npt.NDArray[Any]:
        """The integers; raises ValueError or TypeError where the parts are not those of an integer array."""
        dtype = np.dtype(self.type.code)
        if dtype.kind not in "iu":
            raise TypeError(f"an array of {dtype}, not of integers")
        content = self.content.encode("latin1") if isinstance(self.content, str) else self.content
        flat = np.frombuffer(content, dtype.newbyteorder(self.type.order))
        shape = tuple(int(length) for length in self.shape)
        return flat.reshape(shape, order="F" if self.column_major else "C")


def array_from_buffer(content: Any, dtype: PickledType, shape: Any, order: str) -> PickledArray:
    """Stands for numpy's `_frombuffer` of pickle protocol 5."""
    array = PickledArray()
    array.__setstate__((1, shape, dtype, order == "F", content))
    return array


# NumPy 1 and 2 name their modules differently.
STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): PickledType,
    ("numpy", "ndarray"): PickledArray,
    ("numpy.core.multiarray", "_reconstruct"): PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): PickledArray,
    ("numpy.core.numeric", "_frombuffer"): array_from_buffer,
    ("numpy._core.numeric", "_frombuffer"): array_from_buffer,
}


class ArrayUnpickler(pickle.Unpickler):
    """Knows arrays of integers beside Python's own values; anything else that a pickle names is refused."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._left = len(content)

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) == ("_codecs", "encode"):
            return self._encoded
        stand_in = STAND_INS.get((module, name))
        if stand_in is None:
            raise DataError(
                f"the pickle asks to load {module}.{name}; only numpy arrays are allowed, and nothing was run"
            )
        return stand_in

    def _encoded(self, text: str, encoding: str) -> bytes:
        """Stands for `_codecs.encode`, which is how Python 3 writes bytes in protocol 2: each text once."""
        if encoding != "latin1":
            raise DataError(f"the pickle encodes text as {encoding!r}, which is no way to store an array")
        self._left -= len(text)
        if self._left < 0:
            raise ValueError("it encodes more text than it has")
        return text.encode("latin1")


def unpickle(content: bytes) -> dict[str, Any]:
    """The pickled dict, its keys as text, arrays as `numpy.ndarray`. Raises DataError, without the file's name."""
    try:
        check_pickle(content)
        loaded = ArrayUnpickler(content).load()
        if not isinstance(loaded, dict):
            raise TypeError(f"it holds a {type(loaded).__name__}, not a dict")
        return {
            key.decode("latin1") if isinstance(key, bytes) else str(key): _plain(value) for key, value in loaded.items()
        }
    except DataError:
        raise
    except Exception as error:  # a damaged pickle makes the unpickler stumble on anything
        raise DataError(f"the pickle is damaged or truncated: {error}") from error


def _plain(value: Any) -> Any:
    return value.array() if isinstance(value, PickledArray) else value
