"""Tensors and operators -> the bytes of a .tflite flatbuffer: nothing here knows of ONNX or of quantization rules.

The schema (`schema_py_generated`) comes from the `ai-edge-litert` package and is imported only when a file is written.
Its own object packer aligns buffers to 4 bytes and stores each vector anew; here buffers are aligned to 16 bytes, as
the schema demands, and equal buffers, shapes, scales and zero points are stored once.

Source: the TensorFlow Lite schema, version 3 (`schema.fbs`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt

from lowbit.errors import ModelError
from lowbit.extras import imported
from lowbit.packing.bits import pack

Array = np.ndarray[Any, np.dtype[Any]]

SCHEMA = "ai_edge_litert.schema_py_generated"
SCHEMA_VERSION = 3
IDENTIFIER = b"TFL3"
ALIGNMENT = 16
SIGNATURE = "serving_default"  # by the name that TensorFlow's converter gives it
# Offsets in a flatbuffer are signed 32-bit numbers.
LARGEST_BYTES = 2**31 - 1
# Codes above this do not fit the schema's first, one-byte field.
LAST_SHORT_CODE = 127
TYPES = {
    "float32": "FLOAT32",
    "float16": "FLOAT16",
    "int4": "INT4",
    "int8": "INT8",
    "uint8": "UINT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
}


@dataclass(frozen=True, eq=False)
class FileTensor:
    """One tensor of the file.

    Attributes:
        shape: as stored, with a batch of one.
        dtype: a key of `TYPES`.
        name: may be empty for constants that are never looked up.
        data: content of a constant.
        scale: float32, one or one per channel; None for float.
        zero_point: the code of 0.0, the same for all channels.
        axis: dimension that `scale` runs along.
        batch_axis: dimension that may be resized at run time, if any.
    """

    shape: tuple[int, ...]
    dtype: str
    name: str = ""
    data: Array | None = None
    scale: npt.NDArray[np.float32] | None = None
    zero_point: int = 0
    axis: int = 0
    batch_axis: int | None = None


@dataclass(frozen=True)
class FileOperator:
    """One operator of the file.

    Attributes:
        code: its name in the schema's `BuiltinOperator`.
        inputs: tensor indices; -1 for an optional one that is left out.
        outputs: tensor indices.
        options: fields of its options table, in the schema's spelling.
        table: name of that table; empty for operators without one.
        version: least version of the operator that does this.
    """

    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int | float | bool | Sequence[int]] = field(default_factory=dict)
    table: str = ""
    version: int = 1


def load_schema() -> Any:  # noqa: ANN401 - generated code without types
    """The generated schema module.

    Raises:
        EngineError: the package is not installed.
    """
    return imported(SCHEMA, "writing .tflite files")


def serialize(
    tensors: Sequence[FileTensor],
    operators: Sequence[FileOperator],
    *,
    inputs: Sequence[int],
    outputs: Sequence[int],
    metadata: Mapping[str, str],
    source: str,
) -> bytes:
    """The bytes of the file; the same input always gives the same bytes.

    Args:
        tensors: all tensors of the one subgraph.
        operators: in execution order.
        inputs: indices of the model's inputs.
        outputs: indices of its outputs.
        metadata: entries by name, each a buffer of UTF-8 text.
        source: what to name in errors.

    Raises:
        EngineError: `ai-edge-litert` is not installed.
        ModelError: the file would pass 2 GB.
    """
    size = sum(tensor.data.nbytes for tensor in tensors if tensor.data is not None)
    if size > LARGEST_BYTES - (1 << 24):
        raise ModelError("the model is too large for one LiteRT file (2 GB).", where=source)
    return _Writer(load_schema()).model(tensors, operators, inputs, outputs, metadata)


class _Writer:
    """A flatbuffer under construction, and where the vectors are that it holds already."""

    def __init__(self, schema: Any) -> None:  # noqa: ANN401 - generated code without types
        self.schema = schema
        self.builder = flatbuffers.Builder(1 << 16)
        self.vectors: dict[tuple[str, int, bytes], int] = {}
        # The schema wants the first buffer empty: it stands for tensors without content.
        self.buffers: list[bytes] = [b""]
        self.buffer_index: dict[bytes, int] = {}

    def model(
        self,
        tensors: Sequence[FileTensor],
        operators: Sequence[FileOperator],
        inputs: Sequence[int],
        outputs: Sequence[int],
        metadata: Mapping[str, str],
    ) -> bytes:
        codes = list(dict.fromkeys((operator.code, operator.version) for operator in operators))
        tensor_tables = [self.tensor(tensor) for tensor in tensors]
        operator_tables = [self.operator(operator, codes) for operator in operators]
        subgraph = self.table(
            "SubGraph",
            Tensors=self.offsets(tensor_tables),
            Inputs=self.vector(np.array(inputs, np.int32)),
            Outputs=self.vector(np.array(outputs, np.int32)),
            Operators=self.offsets(operator_tables),
        )
        entries = [self.metadata(name, text) for name, text in sorted(metadata.items())]
        subgraphs = self.offsets([subgraph])
        code_tables = self.offsets([self.operator_code(code, version) for code, version in codes])
        kept = self.offsets(entries) if entries else None
        description = self.builder.CreateSharedString("lowbit")
        buffers = self.offsets([self.buffer(data) for data in self.buffers])
        fields = {"Metadata": kept} if kept is not None else {}
        fields["SignatureDefs"] = self.offsets([self.signature(tensors, inputs, outputs)])
        root = self.table(
            "Model",
            Version=SCHEMA_VERSION,
            OperatorCodes=code_tables,
            Subgraphs=subgraphs,
            Description=description,
            Buffers=buffers,
            **fields,
        )
        self.builder.Finish(root, file_identifier=IDENTIFIER)
        return bytes(self.builder.Output())

    def signature(self, tensors: Sequence[FileTensor], inputs: Sequence[int], outputs: Sequence[int]) -> int:
        """What callers name inputs and outputs by (`Interpreter.get_signature_runner`); names are stored once."""
        maps = [
            self.offsets(
                self.table("TensorMap", Name=self.builder.CreateSharedString(tensors[at].name), TensorIndex=at)
                for at in dict.fromkeys(ends)
            )
            for ends in (inputs, outputs)
        ]
        key = self.builder.CreateSharedString(SIGNATURE)
        return self.table("SignatureDef", Inputs=maps[0], Outputs=maps[1], SignatureKey=key, SubgraphIndex=0)

    def table(self, name: str, **fields: int | bool) -> int:
        """A table of the schema with these fields, whose vectors and tables are written already."""
        getattr(self.schema, f"{name}Start")(self.builder)
        for key, value in fields.items():
            getattr(self.schema, f"{name}Add{key}")(self.builder, value)
        return int(getattr(self.schema, f"{name}End")(self.builder))

    def vector(self, array: Array, alignment: int = 4) -> int:
        """A vector of numbers; equal ones are stored once."""
        data = np.ascontiguousarray(array).tobytes()
        key = (str(array.dtype), alignment, data)
        if key not in self.vectors:
            self.builder.StartVector(array.itemsize, array.size, max(alignment, array.itemsize))
            # The builder writes from back to front: make room, then fill it at once.
            self.builder.head = self.builder.head - len(data)
            self.builder.Bytes[self.builder.head : self.builder.head + len(data)] = data
            self.vectors[key] = int(self.builder.EndVector())
        return self.vectors[key]

    def offsets(self, tables: Iterable[int]) -> int:
        """A vector of references to tables."""
        listed = list(tables)
        self.builder.StartVector(4, len(listed), 4)
        for table in reversed(listed):
            self.builder.PrependUOffsetTRelative(table)
        return int(self.builder.EndVector())

    def tensor(self, tensor: FileTensor) -> int:
        fields: dict[str, int | bool] = {}
        if tensor.name:
            fields["Name"] = self.builder.CreateSharedString(tensor.name)
        if tensor.scale is not None:
            scale = np.asarray(tensor.scale, np.float32).reshape(-1)
            zero_point = np.full(scale.size, tensor.zero_point, np.int64)
            quantization = {"Scale": self.vector(scale), "ZeroPoint": self.vector(zero_point)}
            fields["Quantization"] = self.table(
                "QuantizationParameters", **quantization, QuantizedDimension=tensor.axis
            )
        fields["Shape"] = self.vector(np.array(tensor.shape, np.int32))
        if tensor.batch_axis is not None:
            signature = np.array(tensor.shape, np.int32)
            signature[tensor.batch_axis] = -1
            fields["ShapeSignature"] = self.vector(signature)
        if tensor.data is not None:
            fields["Buffer"] = self.store(_content(tensor.data, tensor.dtype))
        return self.table("Tensor", Type=getattr(self.schema.TensorType, TYPES[tensor.dtype]), **fields)

    def store(self, data: bytes) -> int:
        """Index of the buffer with this content."""
        if data not in self.buffer_index:
            self.buffer_index[data] = len(self.buffers)
            self.buffers.append(data)
        return self.buffer_index[data]

    def buffer(self, data: bytes) -> int:
        if not data:
            return self.table("Buffer")
        return self.table("Buffer", Data=self.vector(np.frombuffer(data, np.uint8), ALIGNMENT))

    def operator_code(self, code: str, version: int) -> int:
        number = getattr(self.schema.BuiltinOperator, code)
        short = min(number, LAST_SHORT_CODE)
        return self.table("OperatorCode", DeprecatedBuiltinCode=short, BuiltinCode=number, Version=version)

    def operator(self, operator: FileOperator, codes: list[tuple[str, int]]) -> int:
        fields: dict[str, int | bool] = {}
        if operator.table:
            options = getattr(self.schema, f"{operator.table}T")()
            for key, value in operator.options.items():
                assert hasattr(options, key), f"{operator.table} has no field {key}"
                setattr(options, key, value)
            fields["BuiltinOptions"] = int(options.Pack(self.builder))
            fields["BuiltinOptionsType"] = getattr(self.schema.BuiltinOptions, operator.table)
        fields["OpcodeIndex"] = codes.index((operator.code, operator.version))
        fields["Inputs"] = self.vector(np.array(operator.inputs, np.int32))
        fields["Outputs"] = self.vector(np.array(operator.outputs, np.int32))
        return self.table("Operator", **fields)

    def metadata(self, name: str, text: str) -> int:
        named = self.builder.CreateSharedString(name)
        return self.table("Metadata", Name=named, Buffer=self.store(text.encode()))


def _content(data: Array, dtype: str) -> bytes:
    """Numbers as the file has them; of 4 bits there are two in a byte, the first in its low half."""
    if dtype != "int4":
        return np.ascontiguousarray(data, np.dtype(dtype)).tobytes()
    return pack(data.astype(np.int8).view(np.uint8) & np.uint8(15), 4).tobytes()
