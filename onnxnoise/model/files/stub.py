"""An ONNX file's bytes, walked in protobuf's wire format: a copy in which large tensors are references into the file."""

from __future__ import annotations

import mmap

import onnx

from onnxnoise.wire import BYTES, fields

INLINE_BYTES = 1024
"""Tensors up to this size stay inside the copy."""

_MODEL_GRAPH, _GRAPH_INITIALIZER = 7, 5
_TENSOR_RAW_DATA, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 9, 13, 14


def model_stub(data: mmap.mmap, location: str) -> bytes:
    """The encoded ModelProto in `data`, its initializers above INLINE_BYTES external to the file `location`, which has it."""
    out = bytearray()
    for number, start, value, end in fields(data, 0, len(data)):
        out += (
            _encoded_field(number, _graph_stub(data, value, end, location))
            if number == _MODEL_GRAPH
            else data[start:end]
        )
    return bytes(out)


def _graph_stub(data: mmap.mmap, at: int, end: int, location: str) -> bytes:
    out = bytearray()
    for number, start, value, stop in fields(data, at, end):
        if number == _GRAPH_INITIALIZER and stop - value > INLINE_BYTES:
            out += _encoded_field(number, _tensor_stub(data, value, stop, location))
        else:
            out += data[start:stop]
    return bytes(out)


def _tensor_stub(data: mmap.mmap, at: int, end: int, location: str) -> bytes:
    found = list(fields(data, at, end))
    large = [field for field in found if field[0] == _TENSOR_RAW_DATA and field[3] - field[2] > INLINE_BYTES]
    if not large:
        return bytes(data[at:end])
    reference = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
    _, _, value, stop = large[-1]
    for key, text in (("location", location), ("offset", value), ("length", stop - value)):
        reference.external_data.add(key=key, value=str(text))
    # a writer can say that the data is inside: of two places the last would count
    replaced = (_TENSOR_RAW_DATA, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION)
    kept = b"".join(data[start:stop] for number, start, _, stop in found if number not in replaced)
    return bytes(kept + reference.SerializeToString())


def _encoded_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _encoded_field(number: int, payload: bytes) -> bytes:
    return _encoded_varint(number << 3 | BYTES) + _encoded_varint(len(payload)) + payload
