"""Where raw bytes of stored tensors lie in an ONNX file: a walk over the protobuf wire format, which copies nothing."""

from collections.abc import Iterator
from dataclasses import dataclass

from lowbit.errors import ModelError
from lowbit.packing.spans import Span

# Field numbers of onnx.proto, which never change: ModelProto.graph, GraphProto.initializer, TensorProto.*
_GRAPH, _INITIALIZER, _DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 7, 5, 1, 2, 8, 9


@dataclass(frozen=True)
class RawTensor:
    """A stored tensor and where its raw bytes are in the file."""

    dims: tuple[int, ...]
    data_type: int
    span: Span


def raw_tensors(content: bytes) -> Iterator[tuple[str, RawTensor]]:
    """Initializers of the main graph that keep their numbers as raw bytes, each name once."""
    seen: set[str] = set()
    view = memoryview(content)
    for number, value in _fields(view, 0, len(content)):
        if number != _GRAPH or not isinstance(value, Span):
            continue
        for inner, part in _fields(view, value.start, value.start + value.length):
            if inner != _INITIALIZER or not isinstance(part, Span):
                continue
            name, tensor = _tensor(view, part)
            if tensor.span.length and name not in seen:
                seen.add(name)
                yield name, tensor


def _tensor(view: memoryview, part: Span) -> tuple[str, RawTensor]:
    name, dims, data_type, raw = "", [], 0, Span(0, 0)
    for number, value in _fields(view, part.start, part.start + part.length):
        if isinstance(value, int):
            if number == _DIMS:
                dims.append(value)
            elif number == _DATA_TYPE:
                data_type = value
        elif number == _NAME:
            name = bytes(view[value.start : value.start + value.length]).decode("utf-8", "replace")
        elif number == _RAW_DATA:
            raw = value
        elif number == _DIMS:  # packed
            at = value.start
            while at < value.start + value.length:
                dim, at = _varint(view, at)
                dims.append(dim)
    return name, RawTensor(tuple(dims), data_type, raw)


def _fields(view: memoryview, start: int, end: int) -> Iterator[tuple[int, int | Span]]:
    """Fields of a protobuf message as (number, integer or the range of bytes); protobuf has parsed it before."""
    while start < end:
        tag, start = _varint(view, start)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, start = _varint(view, start)
            yield number, value
        elif wire_type == 2:
            length, start = _varint(view, start)
            yield number, Span(start, length)
            start += length
        elif wire_type in (1, 5):
            start += 8 if wire_type == 1 else 4
        else:
            raise ModelError(f"protobuf wire type {wire_type}.", where="file to pack", remedy="Save the model again.")


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
