"""A float .tflite file -> ONNX.

The batch is left open where the file has a batch of one and two samples together get the answers that each gets alone:
that is tried, since nothing in a file says so. LiteRT itself is never asked: files of strangers can end it.
"""

import json
import math
import struct
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from lowbit.engines import open_session
from lowbit.engines.litert_reader import LiteRtFile, StoredTensor, read_litert
from lowbit.errors import LowbitError, ModelError
from lowbit.files import read_model_file
from lowbit.graph.preprocessing import METADATA_KEY
from lowbit.importing.imported import Array, Given, Imported, first_line
from lowbit.importing.tflite.data_movement import identity_of_type
from lowbit.importing.tflite.operators import OPERATORS, REFUSED, translated_by
from lowbit.importing.tflite.translation import BATCH, GIVE_NETWORK, TYPES, Translation

LAYOUT_KEY = "lowbit.layout"  # of files that lowbit wrote: how their axes lie
QUANTIZED = ("int8", "uint8", "int16", "int4", "uint4", "int2")
LARGEST_PROBE = 1 << 35  # multiplications and values of two samples; networks with more keep their batch
LARGEST_TENSOR = 1 << 26  # values of two samples in one tensor; networks with more keep their batch, too
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
GIVE_FLOAT = "Give the float model that it was made from."


def read_tflite(path: Path, given: Given) -> Imported:
    """A float `.tflite` file.

    Raises:
        ModelError: damaged, quantized, or with an operator that cannot become ONNX; names it.
    """
    source = str(path)
    file = read_litert(read_model_file(path), source)
    _check_float(file, source)
    inputs = [file.graphs[0].tensors[index] for index in file.graphs[0].inputs]
    proto = _translated(file, source, open_batch=True) if _may_be_open(inputs) else None
    if proto is None or not _answers_sample_by_sample(proto):
        proto = _translated(file, source, open_batch=False)
    return Imported(proto, source)


def _check_float(file: LiteRtFile, source: str) -> None:
    for operator in file.graphs[0].operators:
        for index in (*operator.inputs, *operator.outputs):
            tensor = file.graphs[0].tensors[index] if index >= 0 else None
            if tensor is not None and tensor.dtype in QUANTIZED and tensor.scale.size:
                name = OPERATORS[operator.code][0] if operator.code in OPERATORS else str(operator.code)
                raise ModelError(
                    f"is quantized already: operator {name} has the {tensor.dtype} tensor '{tensor.name}'.",
                    where=source,
                    remedy=f"{GIVE_FLOAT} `lowbit measure` takes this file as it is, behind that one.",
                )


def _translated(file: LiteRtFile, source: str, *, open_batch: bool) -> onnx.ModelProto:
    model = Translation(file, source, open_batch=open_batch)
    try:
        layout = _layout(file)
        inputs = [_input(model, index, layout["inputs"]) for index in model.graph.inputs]
        for operator in model.graph.operators:
            model.operator = operator
            outputs = [model.tensor(index) for index in operator.outputs if index >= 0]
            model.label = (outputs[0].name.split(";")[0] if outputs else "") or f"operator{len(model.nodes)}"
            translate = translated_by(operator)
            if translate is None:
                name = operator.custom or REFUSED.get(operator.code, f"number {operator.code}")
                raise ModelError(
                    f"has the operator {name} ('{model.label}'), which is not read.", where=source, remedy=GIVE_NETWORK
                )
            translate(model)
        model.label = "output"
        outputs_info = [_output(model, index, layout["outputs"]) for index in model.graph.outputs]
        proto = model.message(inputs, outputs_info)
    except (ValueError, IndexError, KeyError, struct.error, ZeroDivisionError, OverflowError, MemoryError) as error:
        raise ModelError(
            f"is a damaged .tflite file: {first_line(error)}.", where=source, remedy="Copy or write it again."
        ) from error
    how = file.text(METADATA_KEY)
    if how is not None:
        helper.set_model_props(proto, {METADATA_KEY: how})
    return proto


def _input(model: Translation, index: int, layout: dict[str, list[int]]) -> onnx.ValueInfoProto:
    """A graph input, turned as the model was that lowbit wrote the file of."""
    tensor = model.tensor(index)
    if tensor.dtype not in TYPES:
        raise ValueError(f"its input '{tensor.name}' is {tensor.dtype}")
    name = model.label = model.ends[index]
    dims: list[int | str] = [
        f"{name}_{axis}" if axis in tensor.open_axes else size for axis, size in enumerate(tensor.shape)
    ]
    if dims and (model.open_batch or 0 in tensor.open_axes):
        dims[0] = BATCH
    value, order = name, layout.get(tensor.name)
    if order is not None and sorted(order) == list(range(len(dims))):
        dims = [dims[order.index(axis)] for axis in range(len(dims))]
        value = model.node("Transpose", [name], perm=order)
    kind = TYPES[tensor.dtype]
    if tensor.dtype == "int32":
        kind = onnx.TensorProto.INT32
        value = model.node("Cast", [value], to=TYPES["int32"])
    model.values[index] = value
    return helper.make_tensor_value_info(name, kind, dims)


def _output(model: Translation, index: int, layout: dict[str, list[int]]) -> onnx.ValueInfoProto:
    tensor = model.tensor(index)
    if index not in model.values:
        raise ValueError(f"its output '{tensor.name}' is not computed")
    value, order = model.values[index], layout.get(tensor.name)
    if order is not None and sorted(order) == list(range(len(tensor.shape))):
        value = model.node("Transpose", [value], perm=[order.index(axis) for axis in range(len(order))])
    value = identity_of_type(model, value, tensor.dtype)
    name = model.ends[index]
    model.nodes.append(helper.make_node("Identity", [value], [name], name=model.unique(f"{name}/Identity")))
    kind = onnx.TensorProto.INT32 if tensor.dtype == "int32" else TYPES[tensor.dtype]
    return helper.make_tensor_value_info(name, kind, None)


def _layout(file: LiteRtFile) -> dict[str, dict[str, list[int]]]:
    try:
        said = json.loads(file.text(LAYOUT_KEY) or "{}")
        return {
            kind: {str(name): list(map(int, axes)) for name, axes in said.get(kind, {}).items()}
            for kind in ("inputs", "outputs")
        }
    except (AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"its entry {LAYOUT_KEY} is none") from error


def _may_be_open(inputs: list[StoredTensor]) -> bool:
    """Whether each input has a first dimension of 1, or one that is open."""
    return bool(inputs) and all(
        len(tensor.shape) > 1 and (tensor.shape[0] == 1 or 0 in tensor.open_axes) for tensor in inputs
    )


def work(proto: onnx.ModelProto) -> float:
    """How much two samples cost: multiplications of layers and values of all tensors; infinite if that is not known.

    Infinite as well if an input or another tensor of theirs would fill the memory.
    """
    two = onnx.ModelProto()
    two.CopyFrom(proto)
    for value in two.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 2
    inferred = onnx.shape_inference.infer_shapes(two).graph
    sizes = {
        value.name: [dim.dim_value or math.inf for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }
    if any(math.prod(dims) > LARGEST_TENSOR for dims in sizes.values() if math.inf not in dims):
        return math.inf
    sizes |= {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    total = 0.0
    for node in proto.graph.node:
        outputs = sum(math.prod(sizes.get(name, [math.inf])) for name in node.output)
        weight = sizes.get(node.input[1], []) if node.op_type in PRODUCTS else []
        total += outputs * max(1, math.prod(weight) if node.op_type == "ConvTranspose" else math.prod(weight[1:]))
    return total


def _samples(proto: onnx.ModelProto) -> list[Array]:
    """Two random samples; of integers, which may be indices, zeros and ones."""
    random = np.random.default_rng(0)
    arrays: list[Array] = []
    for value in proto.graph.input:
        sizes = [2, *(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])]
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        floats = np.issubdtype(dtype, np.floating)
        values = random.standard_normal(sizes, np.float32) if floats else random.integers(0, 2, sizes, np.int8)
        arrays.append(values.astype(dtype))
    return arrays


def _answers_sample_by_sample(proto: onnx.ModelProto) -> bool:
    """Whether two samples together get the answers that each gets alone."""
    if not work(proto) <= LARGEST_PROBE:
        return False
    samples = _samples(proto)
    try:
        session = open_session(proto.SerializeToString())
        both = session.run(dict(zip(session.input_names, samples, strict=True)))
        for at in range(2):
            one = {name: array[at : at + 1] for name, array in zip(session.input_names, samples, strict=True)}
            for name, alone in session.run(one).items():
                if alone.shape[:1] != (1,) or both[name].shape != (2, *alone.shape[1:]):
                    return False
                if not np.allclose(both[name][at : at + 1], alone, rtol=1e-3, atol=1e-5, equal_nan=True):
                    return False
    except LowbitError:
        return False
    return True
