"""What a .tflite file holds, read without trust: every offset, count and index is checked against the file.

LiteRT's own verifier checks offsets too, but not that arithmetic has its operands and scales, without which some of its
kernels end the whole process; so a file is walked here before it gets there. What remains is up to the runtime: options
and sizes that no check knows can still make it fail. Files of strangers belong into a process of their own. Only the
parts that lowbit asks about are read, and reading them needs no LiteRT.

Source: the flatbuffers binary format ("FlatBuffer Internals") and the TensorFlow Lite schema, version 3.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.errors import ModelError

Array = np.ndarray[Any, np.dtype[Any]]

IDENTIFIER = b"TFL3"
# Field numbers of the tables, in the order of the schema.
MODEL = {"operator_codes": 1, "subgraphs": 2, "buffers": 4, "metadata": 6}
CODE = {"short": 0, "custom": 1, "version": 2, "code": 3}
SUBGRAPH = {"tensors": 0, "inputs": 1, "outputs": 2, "operators": 3}
TENSOR = {
    "shape": 0,
    "type": 1,
    "buffer": 2,
    "name": 3,
    "quantization": 4,
    "variable": 5,
    "sparsity": 6,
    "signature": 7,
}
QUANTIZATION = {"scale": 2, "zero_point": 3, "axis": 6}
OPERATOR = {"code": 0, "inputs": 1, "outputs": 2, "options": 4, "custom_options": 5}
BUFFER = {"data": 0, "offset": 1, "size": 2}
METADATA = {"name": 0, "buffer": 1}
# By the number of a type in the schema.
TYPES = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float64",
}
TYPES |= {12: "uint64", 15: "uint32", 16: "uint16", 17: "int4", 18: "bfloat16", 19: "int2", 20: "uint4"}

# Operators that compute with the values of their operands: ADD, AVERAGE_POOL_2D, CONCATENATION, CONV_2D,
# DEPTHWISE_CONV_2D, DEQUANTIZE, FULLY_CONNECTED, LOGISTIC, MAX_POOL_2D, MUL, SOFTMAX, MEAN, SUB, TRANSPOSE_CONV,
# LEAKY_RELU, QUANTIZE, BATCH_MATMUL; and how many of their inputs cannot be left out.
ARITHMETIC = {0: 2, 1: 1, 2: 1, 3: 2, 4: 2, 6: 1, 9: 2, 14: 1, 17: 1, 18: 2, 25: 1, 40: 2, 41: 2, 67: 3, 98: 1}
ARITHMETIC |= {114: 1, 126: 2}


@dataclass(frozen=True)
class Span:
    """A piece of the file."""

    start: int
    size: int


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of the file.

    Attributes:
        name: may be empty.
        shape: as stored.
        dtype: name of its type, or "other".
        buffer: index of its content; 0 if it has none.
        scale: float32 values, if there are any.
        zero_point: int64 values.
        axis: dimension that the scales run along.
        variable: whether it keeps its values from one run to the next.
        open_axes: dimensions that a runtime may resize.
        sparsity: the table that says which zeros its content leaves out, if it does.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    buffer: int
    scale: Span
    zero_point: Span
    axis: int
    variable: bool
    open_axes: tuple[int, ...] = ()
    sparsity: "Options | None" = None


@dataclass(frozen=True)
class Options:
    """A table of the file, such as an operator's options; fields by their number in the schema.

    What is damaged raises ValueError. A table that is left out is at 0: all its fields have their defaults.
    """

    content: bytes
    at: int

    def number(self, field: int, kind: str, default: float = 0) -> float:
        """A number, of this format of `struct`."""
        walk = _Walk(self.content)
        at = walk.field(self.at, field) if self.at else 0
        if not at:
            return default
        walk.check(at, struct.calcsize("<" + kind))
        return float(struct.unpack_from("<" + kind, self.content, at)[0])

    def numbers(self, field: int) -> tuple[int, ...]:
        """A vector of 32-bit integers; empty if it is left out."""
        return tuple(self.vector(field).tolist())

    def vector(self, field: int, dtype: str = "<i4") -> Array:
        """A vector of numbers of this type; empty if it is left out."""
        size = np.dtype(dtype).itemsize
        span = _Walk(self.content).vector(self.at, field, size) if self.at else Span(0, 0)
        return np.frombuffer(self.content, dtype, span.size // size, span.start)

    def table(self, field: int) -> "Options":
        """A table within this one."""
        walk = _Walk(self.content)
        at = walk.field(self.at, field) if self.at else 0
        return Options(self.content, walk.follow(at) if at else 0)

    def tables(self, field: int) -> list["Options"]:
        """A vector of tables."""
        found = _Walk(self.content).tables(self.at, field) if self.at else []
        return [Options(self.content, at) for at in found]


@dataclass(frozen=True)
class StoredOperator:
    """One operator: its number in the schema's `BuiltinOperator`, tensor indices (-1: left out), and its options.

    `custom` is the name of an operator that the schema does not have, `custom_options` its options as bytes.
    """

    code: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    custom: str = ""
    options: Options = Options(b"", 0)
    custom_options: Span = Span(0, 0)


@dataclass(frozen=True)
class StoredGraph:
    """One subgraph."""

    tensors: tuple[StoredTensor, ...]
    operators: tuple[StoredOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class LiteRtFile:
    """A whole file."""

    content: bytes
    graphs: tuple[StoredGraph, ...]
    buffers: tuple[Span, ...]
    metadata: Mapping[str, int]

    def text(self, name: str) -> str | None:
        """A metadata entry as text; None if it is not there or no UTF-8."""
        if name not in self.metadata:
            return None
        span = self.buffers[self.metadata[name]]
        try:
            return self.content[span.start : span.start + span.size].decode()
        except UnicodeDecodeError:
            return None

    def array(self, span: Span, dtype: str) -> Array:
        """The numbers in a piece of the file."""
        return np.frombuffer(self.content, dtype, span.size // np.dtype(dtype).itemsize, span.start)


def read_litert(content: bytes, source: str) -> LiteRtFile:
    """Walk a file.

    Raises:
        ModelError: not a .tflite file, or damaged.
    """
    if content[4:8] != IDENTIFIER:
        raise ModelError(
            "is not a .tflite file.", where=source, remedy="Give a .tflite file, or choose another engine."
        )
    try:
        return _Walk(content).model()
    except (ValueError, struct.error, UnicodeDecodeError) as error:
        raise ModelError(
            f"is a damaged .tflite file: {error}.", where=source, remedy="Copy or write it again."
        ) from error


class _Walk:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def model(self) -> LiteRtFile:
        root = self.follow(0)
        codes = [self.code(table) for table in self.tables(root, MODEL["operator_codes"])]
        buffers = tuple(self.buffer(table) for table in self.tables(root, MODEL["buffers"]))
        graphs = tuple(self.graph(table, codes, len(buffers)) for table in self.tables(root, MODEL["subgraphs"]))
        if not graphs:
            raise ValueError("it holds no graph")
        metadata = {}
        for table in self.tables(root, MODEL["metadata"]):
            index = self.number(table, METADATA["buffer"], "I")
            metadata[self.string(table, METADATA["name"])] = checked(index, len(buffers), "metadata buffer")
        return LiteRtFile(self.content, graphs, buffers, metadata)

    def graph(self, table: int, codes: list[tuple[int, str]], buffers: int) -> StoredGraph:
        tensors = tuple(self.tensor(entry, buffers) for entry in self.tables(table, SUBGRAPH["tensors"]))
        operators = []
        for entry in self.tables(table, SUBGRAPH["operators"]):
            index = checked(self.number(entry, OPERATOR["code"], "I"), len(codes), "operator code")
            inputs = self.indices(entry, OPERATOR["inputs"], len(tensors), optional=True)
            outputs = self.indices(entry, OPERATOR["outputs"], len(tensors), optional=True)
            place = self.field(entry, OPERATOR["options"])
            options = Options(self.content, self.follow(place) if place else 0)
            code, custom = codes[index]
            own = self.vector(entry, OPERATOR["custom_options"], 1)
            operators.append(StoredOperator(code, inputs, outputs, custom, options, own))
            check_operands(operators[-1], tensors)
        inputs = self.indices(table, SUBGRAPH["inputs"], len(tensors))
        outputs = self.indices(table, SUBGRAPH["outputs"], len(tensors))
        return StoredGraph(tensors, tuple(operators), inputs, outputs)

    def tensor(self, table: int, buffers: int) -> StoredTensor:
        span = self.vector(table, TENSOR["shape"], 4)
        shape = tuple(np.frombuffer(self.content, "<i4", span.size // 4, span.start).tolist())
        if any(size < 0 for size in shape) or math.prod(shape) > 1 << 40:
            raise ValueError(f"a tensor has the impossible shape {list(shape)[:8]}")
        buffer = checked(self.number(table, TENSOR["buffer"], "I"), buffers, "tensor buffer")
        dtype = TYPES.get(self.number(table, TENSOR["type"], "b"), "other")
        quantization = self.field(table, TENSOR["quantization"])
        scale = zero_point = Span(0, 0)
        axis = 0
        if quantization:
            target = self.follow(quantization)
            scale = self.vector(target, QUANTIZATION["scale"], 4)
            zero_point = self.vector(target, QUANTIZATION["zero_point"], 8)
            axis = self.number(target, QUANTIZATION["axis"], "i")
            count = scale.size // 4
            if count > 1 and not (0 <= axis < len(shape) and shape[axis] == count):
                raise ValueError(f"a tensor of shape {list(shape)[:8]} has {count} scales along axis {axis}")
        named = self.vector(table, TENSOR["signature"], 4)
        signature = np.frombuffer(self.content, "<i4", named.size // 4, named.start)
        open_axes = tuple(np.flatnonzero(signature < 0).tolist()) if signature.size == len(shape) else ()
        place = self.field(table, TENSOR["sparsity"])
        sparsity = Options(self.content, self.follow(place)) if place else None
        variable = bool(self.number(table, TENSOR["variable"], "b"))
        name = self.string(table, TENSOR["name"])
        return StoredTensor(name, shape, dtype, buffer, scale, zero_point, axis, variable, open_axes, sparsity)

    def buffer(self, table: int) -> Span:
        offset, size = self.number(table, BUFFER["offset"], "Q"), self.number(table, BUFFER["size"], "Q")
        if offset > 1:
            # Content of large files lies behind the flatbuffer.
            self.check(offset, size)
            return Span(offset, size)
        return self.vector(table, BUFFER["data"], 1)

    def code(self, table: int) -> tuple[int, str]:
        number = max(self.number(table, CODE["short"], "b"), self.number(table, CODE["code"], "i"))
        return number, self.string(table, CODE["custom"])

    def check(self, start: int, size: int) -> None:
        if start < 0 or size < 0 or start + size > len(self.content):
            raise ValueError(f"it points to byte {start + size} of {len(self.content)}")

    def unpack(self, kind: str, at: int) -> int:
        self.check(at, struct.calcsize("<" + kind))
        return int(struct.unpack_from("<" + kind, self.content, at)[0])

    def follow(self, at: int) -> int:
        return at + self.unpack("I", at)

    def field(self, table: int, number: int) -> int:
        """Where a field of a table is; 0 if it has its default."""
        vtable = table - self.unpack("i", table)
        length = self.unpack("H", vtable)
        place = 4 + 2 * number
        if place + 2 > length:
            return 0
        offset = self.unpack("H", vtable + place)
        return table + offset if offset else 0

    def number(self, table: int, number: int, kind: str) -> int:
        at = self.field(table, number)
        return self.unpack(kind, at) if at else 0

    def vector(self, table: int, number: int, item: int) -> Span:
        at = self.field(table, number)
        if not at:
            return Span(0, 0)
        start = self.follow(at)
        size = self.unpack("I", start) * item
        self.check(start + 4, size)
        return Span(start + 4, size)

    def tables(self, table: int, number: int) -> list[int]:
        span = self.vector(table, number, 4)
        return [self.follow(at) for at in range(span.start, span.start + span.size, 4)]

    def indices(self, table: int, number: int, count: int, *, optional: bool = False) -> tuple[int, ...]:
        span = self.vector(table, number, 4)
        values = np.frombuffer(self.content, "<i4", span.size // 4, span.start)
        if values.size and not (-int(optional) <= values.min() and values.max() < count):
            raise ValueError(f"it names a tensor outside 0..{count - 1}")
        return tuple(values.tolist())

    def string(self, table: int, number: int) -> str:
        span = self.vector(table, number, 1)
        return self.content[span.start : span.start + span.size].decode(errors="replace")


def checked(index: int, count: int, what: str) -> int:
    """`index`, if there are that many."""
    if not 0 <= index < count:
        raise ValueError(f"it names {what} {index} of {count}")
    return index


def check_operands(operator: StoredOperator, tensors: tuple[StoredTensor, ...]) -> None:
    """Refuse arithmetic without its operands, or on 8-bit codes without a scale."""
    needed = ARITHMETIC.get(operator.code)
    if needed is None:
        return
    if len(operator.inputs) < needed or -1 in operator.inputs[:needed] or not operator.outputs:
        raise ValueError(f"operator {operator.code} lacks an operand")
    for index in (*operator.inputs, *operator.outputs):
        tensor = tensors[index] if index >= 0 else None
        if tensor is not None and tensor.dtype in ("int8", "uint8") and not tensor.scale.size:
            raise ValueError(f"operator {operator.code} computes with codes without a scale")
