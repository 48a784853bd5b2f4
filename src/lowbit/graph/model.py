"""A prepared network, which nothing changes any more, and the forms in which a runtime takes it."""

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import onnx
import onnx_ir as ir

from lowbit.errors import ModelError
from lowbit.graph.light_model import LightModel
from lowbit.graph.precision import FLOAT32_NETWORK, Precision
from lowbit.graph.preprocessing import Preprocessing
from lowbit.printable import brief, listed, several

Node = ir.Node
Value = ir.Value
Graph = ir.Graph
GraphModel = ir.Model
MEMORY = "memory"
# Protobuf refuses messages of 2 GiB and more.
LARGEST_BYTES = 2**31 - 1
# Weights of at least this size stay beside a light model; what runtimes read while they build the graph is smaller.
LARGE_BYTES = 1 << 14
QUANTIZED_OPERATORS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv"}
    | {"QLinearMatMul", "QGemm", "QLinearAdd", "QLinearGlobalAveragePool", "MatMulNBits", "QAttention"}
)


@dataclass(frozen=True)
class ValueInfo:
    """Name, shape and dtype of a graph input or output; a dimension is a number, a symbol, or None if unknown."""

    name: str
    shape: tuple[int | str | None, ...]
    dtype: np.dtype


@dataclass(frozen=True, eq=False)
class Model:
    """A network ready to be quantized: constants and batch norms folded, shapes inferred, every name unique.

    Args:
        ir: the prepared graph; treat as read-only.
        trained_parameters: weights, biases, batch-norm scale and shift as they stood before folding (running
            statistics are not parameters).
        preprocessing: from the metadata `lowbit.preprocessing`, or as the exporter says it (`graph/exporters.py`).
        source: file name, or "memory".
        remarks: what whoever made the file should know of it.
        precision: the float type that it had before it was prepared.
        preprocessing_note: which exporter says what of the preprocessing, or why that cannot be followed; empty where
            lowbit's own metadata or the user says it, or nobody.
        class_names: in the order of its outputs, from the metadata `lowbit.classes` or its exporter; empty if unknown.

    >>> model = lowbit.load("model.onnx")
    >>> model.inputs[0].shape, model.outputs[0].name
    (('n', 3, 16, 16), 'logits')
    """

    ir: ir.Model
    trained_parameters: int
    preprocessing: Preprocessing | None
    source: str
    remarks: tuple[str, ...] = ()
    precision: Precision = FLOAT32_NETWORK
    preprocessing_note: str = ""
    class_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        ends = " -> ".join(listed(info.name for info in some) for some in (self.inputs, self.outputs))
        sizes = f"{several(len(self.graph), 'node')}, {several(self.trained_parameters, 'parameter')}"
        return f"<Model {brief(self.source)}: {sizes}, {ends}>"

    def _repr_html_(self) -> str:
        from lowbit.reports.notebook import model_html

        return model_html(self)

    @property
    def graph(self) -> Graph:
        """The main graph."""
        return self.ir.graph

    @cached_property
    def inputs(self) -> tuple[ValueInfo, ...]:
        """Graph inputs, without weights."""
        return tuple(_value_info(value) for value in self.graph.inputs)

    @cached_property
    def outputs(self) -> tuple[ValueInfo, ...]:
        """Graph outputs, each once: a file may give a tensor twice under one name."""
        return tuple(_value_info(value) for value in dict.fromkeys(self.graph.outputs))

    @property
    def input(self) -> ValueInfo:
        """The only input.

        Raises:
            ModelError: the model has several.
        """
        if len(self.inputs) != 1:
            names = ", ".join(info.name for info in self.inputs)
            raise ModelError(
                f"the model has {len(self.inputs)} inputs ({names}), expected one.",
                where=self.source,
                remedy="Export it with the image as the only input.",
            )
        return self.inputs[0]

    @property
    def classes(self) -> int | None:
        """Last dimension of the first output, if known: the number of classes of a classifier."""
        last = self.outputs[0].shape[-1] if self.outputs and self.outputs[0].shape else None
        return last if isinstance(last, int) else None

    @property
    def quantized(self) -> bool:
        """Whether the graph computes in integers already, or simulates that: such a model is not a float reference."""
        return any(node.op_type in QUANTIZED_OPERATORS for node in self.graph)

    @cached_property
    def values(self) -> dict[str, Value]:
        """Every tensor of the main graph by name: inputs, initializers, node outputs."""
        values = {value.name: value for value in (*self.graph.inputs, *self.graph.initializers.values())}
        values |= {output.name: output for node in self.graph for output in node.outputs}
        return {name: value for name, value in values.items() if name}

    @cached_property
    def activations(self) -> tuple[str, ...]:
        """Names of the float inputs, and of the float outputs of the nodes of the main graph, in execution order."""
        made = (output for node in self.graph for output in node.outputs if output.name)
        floats = (str(value.name) for value in (*self.graph.inputs, *made) if value.dtype == ir.DataType.FLOAT)
        return tuple(dict.fromkeys(floats))

    @cached_property
    def nodes(self) -> dict[str, Node]:
        """Every node of the main graph by its unique name, in execution order."""
        return {str(node.name): node for node in self.graph}

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """All initializers by name, as read-only arrays."""
        arrays = {}
        for name, value in self.graph.initializers.items():
            if value.const_value is not None:
                arrays[name] = value.const_value.numpy().view()
                arrays[name].flags.writeable = False
        return arrays

    def copy(self) -> GraphModel:
        """A copy of the graph that the caller may change; the weights are shared."""
        clone = self.ir.clone()
        for graph in (clone.graph, *clone.graph.subgraphs()):
            outputs = (output for node in graph for output in node.outputs)
            for value in (*graph.inputs, *graph.initializers.values(), *outputs):
                # A clone's values share their types, and setting `dtype` changes the type itself.
                value.type = copy.copy(value.type)
        return clone

    def to_proto(self) -> onnx.ModelProto:
        """A fresh protobuf of the prepared graph: the caller may change it."""
        return ir.to_proto(self.ir)

    @cached_property
    def large_weights(self) -> dict[str, np.ndarray]:
        """The float32 initializers that stay beside a light model, by name."""
        return {name: np.ascontiguousarray(array) for name, array in self.weights.items() if is_large(array)}

    def light_proto(self) -> onnx.ModelProto:
        """A fresh protobuf of the prepared graph that only names its `large_weights`."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self._light_proto)
        return proto

    @cached_property
    def _light_proto(self) -> onnx.ModelProto:
        light = self.copy()
        for name in self.large_weights:
            value = light.graph.initializers[name]
            tensor = value.const_value
            assert tensor is not None
            value.const_value = ir.ExternalTensor(
                MEMORY, 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.numpy().shape), name=name
            )
        return ir.to_proto(light)

    def light(self, proto: onnx.ModelProto | None = None) -> LightModel:
        """The model, or a variant of its `light_proto` with the same weights, for a session."""
        return LightModel(serialize(self._light_proto if proto is None else proto, self.source), self.large_weights)

    def to_bytes(self) -> bytes:
        """The prepared graph as the content of an ONNX file; the same model always gives the same bytes."""
        return serialize(self.to_proto(), self.source)

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of the prepared graph and its weights."""
        digest = hashlib.sha256(serialize(self.light_proto(), self.source))
        for array in self.large_weights.values():
            digest.update(array.data)
        return digest.hexdigest()

    def with_weights(self, values: Mapping[str, np.ndarray]) -> "Model":
        """The same network with other values in some initializers; shapes and types stay.

        Raises:
            ModelError: no initializer of that name, or another shape.
        """
        changed = self.copy()
        for name, array in values.items():
            old = changed.graph.initializers.get(name)
            if old is None or old.const_value is None or tuple(old.const_value.shape) != array.shape:
                raise ModelError(f"there is no initializer {name!r} of shape {array.shape}.", where=self.source)
            old.const_value = ir.tensor(np.asarray(array, old.const_value.numpy().dtype, order="C"), name=name)
        return replace(self, ir=changed)


def is_large(array: np.ndarray) -> bool:
    """Whether a weight stays beside a light model."""
    return array.nbytes >= LARGE_BYTES and array.dtype == np.float32


def named_only(name: str, array: np.ndarray) -> onnx.TensorProto:
    """An initializer whose values stay beside a light model."""
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=array.shape)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", MEMORY), ("offset", "0"), ("length", str(array.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def serialize(proto: onnx.ModelProto, source: str) -> bytes:
    """The content of an ONNX file; the same message always gives the same bytes.

    Shapes that `proto` notes for initializers are dropped from it: the initializers have their own.

    Raises:
        ModelError: more than 2 GB, which protobuf cannot hold.
    """
    constants = {tensor.name for tensor in proto.graph.initializer}
    shapes = [info for info in proto.graph.value_info if info.name not in constants]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(shapes)
    try:
        return bytes(proto.SerializeToString(deterministic=True))
    except Exception as error:  # protobuf's own exception types differ between its implementations
        raise ModelError(
            "the model is too large for one ONNX file (2 GB).", where=source, remedy="Use a smaller model."
        ) from error


def _value_info(value: Value) -> ValueInfo:
    shape = () if value.shape is None else tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
    dtype = np.dtype(np.float32) if value.dtype is None else np.dtype(value.dtype.numpy())
    return ValueInfo(str(value.name), shape, dtype)
