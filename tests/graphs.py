"""ONNX models node by node, for tests that look at a few operators."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lowbit.engines import open_session

Row = tuple[str, Sequence[str], Sequence[str], Mapping[str, object]]
Shape = Sequence[int | str | None] | None


def make_node(op: str, reads: str, makes: str, *, name: str | None = None, **attributes: object) -> onnx.NodeProto:
    """A node; the names of its tensors have spaces between them. Unless named it bears the name of its first output."""
    outputs = makes.split(" ")
    return helper.make_node(op, reads.split(" ") if reads else [], outputs, name=name or outputs[0], **attributes)


def make(
    nodes: Sequence[onnx.NodeProto | Row],
    inputs: Mapping[str, Shape],
    outputs: Sequence[str] | Mapping[str, Shape],
    weights: Mapping[str, object],
    *,
    opset: int = 17,
    ir_version: int = 8,
    dtype: int = TensorProto.FLOAT,
    types: Mapping[str, int] = MappingProxyType({}),
) -> onnx.ModelProto:
    """A model.

    Args:
        nodes: by `make_node`, or rows of (operator, inputs, outputs, attributes) for nodes without names.
        inputs: shapes by name.
        outputs: names, or shapes by name.
        weights: arrays, or what numpy makes arrays of, by name; float64 becomes float32 unless `dtype` is DOUBLE.
        opset: version of the operators.
        ir_version: version of the file.
        dtype: of inputs and outputs.
        types: of those inputs and outputs that have another.
    """
    outputs = outputs if isinstance(outputs, Mapping) else dict.fromkeys(outputs)
    graph = helper.make_graph(
        [item if isinstance(item, onnx.NodeProto) else helper.make_node(*item[:3], **item[3]) for item in nodes],
        "network",
        [helper.make_tensor_value_info(name, types.get(name, dtype), shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, types.get(name, dtype), shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(_array(value, dtype), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def change_weights(proto: onnx.ModelProto, place: object, values: Mapping[str, object]) -> onnx.ModelProto:
    """The model itself, once `weight[place] = value` was done to each named weight."""
    for tensor in proto.graph.initializer:
        if tensor.name in values:
            array = numpy_helper.to_array(tensor).copy()
            array[place] = values[tensor.name]
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return proto


def run(content: bytes | Path, x: np.ndarray, engine: str = "onnxruntime") -> np.ndarray:
    """The first output for one input, on one thread."""
    session = open_session(content, engine=engine, threads=1)
    return session.run({session.input_names[0]: x})[session.output_names[0]]


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Root of the squared error over the squared size."""
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


def _array(value: object, dtype: int) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 and dtype != TensorProto.DOUBLE else array
