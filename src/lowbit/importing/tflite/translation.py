"""The ONNX graph that grows while a .tflite file is walked.

Images stay channels-last between operators, as the file has them: what ONNX computes channels-first stands between two
Transposes, which cancel when the model is prepared. int32 numbers become int64, which ONNX wants of shapes and indices.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lowbit.engines.litert_reader import LiteRtFile, StoredOperator, StoredTensor
from lowbit.errors import ModelError
from lowbit.importing.imported import Array
from lowbit.importing.tflite.sparsity import with_zeros

OPSET = 20
BATCH = "batch"
SHARED = 1 << 24
GIVE_NETWORK = "Give the network that the file was made from, as ONNX, .keras or a torch module."
FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)  # channels-last to channels-first, and back
TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT,
    "int32": TensorProto.INT64,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
}
# Of fused activation functions, by their number in the schema; others have a number, but LiteRT does not compute them.
FUSED = {1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}


class Translation:
    """Nodes and constants so far, and which of them stands for each tensor of the file.

    Args:
        file: walked, with one graph.
        source: file name, for messages.
        open_batch: whether a first dimension of 1 of the inputs is left open.

    Attributes:
        values: the ONNX name of what stands for a tensor, by its index.
        arrays: content of constants that were read.
        ends: names of inputs and outputs of the graph, by index; nothing else gets them.
        spare: bytes of constants that may still be read: tensors of a file can share one content.
        operator, label: what is translated now, and what its nodes are named after.
    """

    def __init__(self, file: LiteRtFile, source: str, *, open_batch: bool) -> None:
        self.file, self.graph, self.source, self.open_batch = file, file.graphs[0], source, open_batch
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.values: dict[int, str] = {}
        self.arrays: dict[int, Array] = {}
        self.names: set[str] = set()
        self.ends = {index: self.unique(self.tensor(index).name) for index in (*self.graph.inputs, *self.graph.outputs)}
        self.spare = len(file.content) + SHARED
        self.operator = StoredOperator(-1, (), ())
        self.label = ""

    def tensor(self, index: int) -> StoredTensor:
        """A tensor of the file."""
        return self.graph.tensors[index]

    def shape(self, index: int) -> tuple[int, ...]:
        """As the file has it, for a batch of one."""
        return self.tensor(index).shape

    def given(self, at: int) -> bool:
        """Whether the operator has this input."""
        return at < len(self.operator.inputs) and self.operator.inputs[at] >= 0

    def array(self, at: int) -> Array | None:
        """An input of the operator, if it is a constant; int32 as int64, float16 as float32."""
        return self.content(self.operator.inputs[at]) if self.given(at) else None

    def content(self, index: int) -> Array | None:
        """A constant tensor of the file, or one that an operator made of constants; None of all others."""
        if index in self.arrays:
            return self.arrays[index]
        tensor = self.tensor(index)
        span = self.file.buffers[tensor.buffer]
        if index in self.values or not (span.size or tensor.sparsity):
            return None
        if tensor.dtype not in TYPES:
            raise self.refused(f"has the constant '{tensor.name}' of type {tensor.dtype}, which is not read")
        stored = self.file.array(span, "bool" if tensor.dtype == "bool" else np.dtype(tensor.dtype).str)
        self.spare -= math.prod(tensor.shape) * stored.itemsize
        if self.spare < 0:
            raise ValueError("its tensors are far larger than it, since they share their content or leave out zeros")
        if tensor.sparsity:
            stored = with_zeros(stored, tensor.shape, tensor.sparsity)
        if stored.size != math.prod(tensor.shape):
            raise ValueError(f"tensor '{tensor.name}' has {stored.size} values, not {list(tensor.shape)}")
        wide = helper.tensor_dtype_to_np_dtype(TYPES[tensor.dtype])
        self.arrays[index] = stored.reshape(tensor.shape).astype(wide)
        return self.arrays[index]

    def integers(self, at: int) -> list[int]:
        """An input of the operator that must be known: axes, sizes, pads."""
        array = self.array(at)
        if array is None:
            raise self.refused(f"computes its input {at}, which must be a constant")
        return [int(value) for value in array.reshape(-1)]

    def read(self, at: int) -> str:
        """The ONNX name of an input of the operator."""
        index = self.operator.inputs[at]
        if index not in self.values:
            array = self.content(index)
            if array is None:
                raise ValueError(f"tensor '{self.tensor(index).name}' is read before it is computed")
            self.values[index] = self.constant(array, self.tensor(index).name)
        return self.values[index]

    def constant(self, array: Array | np.generic | Sequence[int], name: str = "") -> str:
        """The ONNX name of a new constant; numbers without a type are int64."""
        values = np.asarray(array, None if isinstance(array, np.ndarray | np.generic) else np.int64)
        name = self.unique(name or f"{self.label}/constant")
        self.constants[name] = values
        return name

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:  # noqa: ANN401 - of ONNX
        """A new node with one output, whose name is returned."""
        return self.several(op, inputs, 1, **attributes)[0]

    def several(self, op: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:  # noqa: ANN401
        """A new node with this many outputs."""
        name = self.unique(
            f"{self.label}/{op}" if op not in ("Conv", "ConvTranspose", "Gemm", "MatMul") else self.label
        )
        outputs = (
            [self.unique(f"{name}_output")] if count == 1 else [self.unique(f"{name}_{at}") for at in range(count)]
        )
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=name, **attributes))
        return outputs

    def channels_first(self, name: str) -> str:
        """Images turned as ONNX wants them."""
        return self.node("Transpose", [name], perm=FIRST)

    def channels_last(self, name: str) -> str:
        """Images turned back."""
        return self.node("Transpose", [name], perm=LAST)

    def give(self, value: str, *, activation: float = 0, at: int = 0) -> None:
        """Let a value stand for an output of the operator, behind its fused activation."""
        if activation:
            if int(activation) not in FUSED:
                raise self.refused(f"has the fused activation {int(activation)}, which is not read")
            value = self.activated(value, FUSED[int(activation)])
        self.values[self.operator.outputs[at]] = value

    def activated(self, value: str, name: str) -> str:
        """A value behind an activation function of this name in the schema."""
        bounds = {"RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}
        if name not in bounds:
            return self.node({"RELU": "Relu", "TANH": "Tanh"}[name], [value])
        low, high = (self.constant(np.float32(bound)) for bound in bounds[name])
        return self.node("Clip", [value, low, high])

    def option(self, field: int, kind: str = "b", default: float = 0) -> int:
        """A whole number among the operator's options."""
        return int(self.operator.options.number(field, kind, default))

    def flag(self, field: int) -> bool:
        """A truth value among the operator's options."""
        return self.option(field) != 0

    def fixed_shape(self, index: int) -> list[int] | None:
        """The shape of a tensor with -1 for the batch, if nothing else of it is open; None if something is."""
        tensor = self.tensor(index)
        if any(axis > 0 for axis in tensor.open_axes):
            return None
        return [-1, *tensor.shape[1:]] if self.open_batch and tensor.shape else list(tensor.shape)

    def whole_batch(self, axis: int, start: int, size: int, index: int) -> bool:
        """Whether a cut along an axis takes the one sample that there is in the file: with others it takes all."""
        return self.open_batch and axis == 0 and start == 0 and size in (1, -1) and self.shape(index)[:1] == (1,)

    def unique(self, name: str) -> str:
        """A name that nothing has yet."""
        base, count = name or "tensor", 1
        while name in self.names or not name:
            name = f"{base}_{count}"
            count += 1
        self.names.add(name)
        return name

    def refused(self, what: str) -> ModelError:
        """The error of an operator that cannot become ONNX."""
        return ModelError(
            f"operator {self.label_of_operator} {what}.",
            where=self.source,
            remedy=GIVE_NETWORK,
        )

    @property
    def label_of_operator(self) -> str:
        """For messages."""
        return f"'{self.label}'" if self.label else str(self.operator.code)

    def message(self, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """The whole model."""
        stored = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(self.nodes, "tflite", inputs, outputs, stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
