"""The .tflite graph under construction: every ONNX value, stored in each way in which something reads it.

LiteRT computes channels-last. A value is therefore stored in any *order* of its axes (stored axis i holds the ONNX axis
`order[i]`), as float32 or as int8 or int16 codes; converting operators (TRANSPOSE, RESHAPE, QUANTIZE, DEQUANTIZE) are
written only when an operator asks for a way that is not there yet. So a convolutional network has no transpose at all,
and an ONNX Transpose costs nothing: it only renames the axes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from lowbit.errors import ModelError
from lowbit.formats.litert.builder import Array, FileBuilder
from lowbit.formats.litert.file import FileOperator
from lowbit.formats.litert.shapes import Shapes, same_memory
from lowbit.formats.quantized_graph import ActivationCodes, QuantizedGraph
from lowbit.graph.edit import constant
from lowbit.graph.model import Node, Value
from lowbit.graph.ops import Layer, layers
from lowbit.schemes.codes import Scheme
from lowbit.schemes.half import Half, HalfCodes

Order = tuple[int, ...]

CHANNELS_LAST: Order = (0, 2, 3, 1)
# Channels that integer kernels multiply at a time: XNNPACK's for x86, and for ARM with i8mm.
LANES = 8
MANY = 32  # values of a constant from which on two bytes each are worth an operator
NO_ACTIVATION, RELU, RELU_N1_TO_1, RELU6 = 0, 1, 2, 3
FUSED: dict[tuple[float | None, float | None], int] = {(0.0, None): RELU, (-1.0, 1.0): RELU_N1_TO_1, (0.0, 6.0): RELU6}


@dataclass(frozen=True)
class StoredValue:
    """One way in which a value is stored.

    Attributes:
        tensor: index in the file.
        order: stored axis i holds this axis of the ONNX value.
        codes: scale and zero point (counted from the lowest code) of int8 or int16 codes; None for float32.
        flat: (C, H, W) if the last axis is a flattened image whose values lie in the order H, W, C.
        margin: columns of an image in front of those that the model knows; only convolutions that take pixels together
            read such a value (`space_to_depth`).
    """

    tensor: int
    order: Order
    codes: ActivationCodes | None = None
    flat: tuple[int, int, int] | None = None
    margin: int = 0


def bounds_of(node: Node) -> tuple[float | None, float | None] | None:
    """Lower and upper bound of a Relu or Clip, None where it is open; None for both if one is computed."""
    if node.op_type == "Relu":
        return 0.0, None
    limits: list[float | None] = [None, None]
    for index, value in enumerate(node.inputs[1:3]):
        array = constant(value)
        if value is not None and (array is None or array.size != 1):
            return None
        limits[index] = None if array is None else float(array.item())
    return limits[0], limits[1]


def bias_type(quantized: QuantizedGraph) -> str:
    """What biases are: sums of products of 16-bit codes take 64 bits."""
    return "int64" if quantized.kind.bits == 16 else "int32"


class FileGraph(FileBuilder):
    """Tensors and operators written so far, and which of them hold each ONNX value."""

    def __init__(
        self,
        quantized: QuantizedGraph,
        shapes: Shapes,
        *,
        lanes: int = LANES,
        schemes: Mapping[str, tuple[Scheme, int]] | None = None,
    ) -> None:
        super().__init__()
        self.quantized = quantized
        self.lanes = lanes  # channels that integer kernels multiply at a time
        # By weight: scheme and axis of codes that are not there yet, but will have to be written.
        self.schemes = schemes or {}
        self.model = quantized.model
        self.shapes = shapes
        self.layers: dict[str, Layer] = {layer.node: layer for layer in layers(quantized.model)}
        # Nodes that an operator before them has done already.
        self.done: set[str] = set(quantized.absorbed)
        self._stored: dict[str, list[StoredValue]] = {}
        self.resizable = shapes.resizable
        # Outputs that products give as float although they have codes.
        self.float_outputs: frozenset[str] = frozenset()
        # By node: what readers must undo to see its weight as in the model.
        self.notes: dict[str, dict[str, object]] = {}

    # What the model says

    def refuse(self, node: Node, reason: str, *, instead: str = "export the model without this operator") -> ModelError:
        """The error for a node that has no form in LiteRT."""
        return ModelError(
            f"operator {node.op_type} {reason}.",
            where=f"{self.model.source}: node '{node.name}'",
            remedy=f"Write an ONNX file instead, or {instead}.",
        )

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an ONNX value, with a batch of one.

        Raises:
            ModelError: shape inference could not tell.
        """
        if name not in self.shapes.single:
            raise ModelError(
                f"the shape of tensor '{name}' is not known, and LiteRT files have static shapes.",
                where=self.model.source,
                remedy="Export the model with a fixed image size.",
            )
        return self.shapes.single[name]

    def integer(self, node: Node) -> bool:
        """Whether a node computes in integers."""
        return node.name in self.quantized.integer

    def array(self, value: Value | None) -> Array | None:
        """The content of a constant, corrected values first; None for everything else."""
        if value is not None and value.name in self.quantized.float_values:
            return np.asarray(self.quantized.float_values[str(value.name)])
        codes = self.quantized.weights.get(str(value.name)) if value is not None else None
        return codes.decode() if isinstance(codes, HalfCodes) else constant(value)

    def float_constant(self, name: str, values: Array, *, label: str) -> int:
        """Index of a constant that is computed with in float32; stored as float16 where the recipe or the model is.

        Args:
            name: of the initializer.
            values: its own, in any order of axes.
            label: its name in the file.
        """
        codes = self.quantized.weights.get(name)
        scheme = codes.scheme if codes is not None else self.schemes.get(name, (None, 0))[0]
        halved = isinstance(scheme, Half) or (self.model.precision.type == "float16" and values.size >= MANY)
        with np.errstate(over="ignore"):
            exact = halved and np.array_equal(values.astype(np.float16).astype(np.float32), values)
        if exact or (codes is None and isinstance(scheme, Half)):
            return self.halves(values, name=label)
        return self.constant(values.astype(np.float32), name=label)

    def target(self, node: Node, *, fuses: bool = True) -> tuple[str, int]:
        """The value that a node's operator gives, and the fused activation: past a Relu or Clip that it takes over.

        Args:
            node: a node with one output.
            fuses: whether its operator has a fused activation; if not, only saturation takes a Relu over.
        """
        output = node.outputs[0]
        reader = self.only_reader(node)
        if reader is None or reader.op_type not in ("Relu", "Clip") or reader.inputs[0] is not output:
            return str(output.name), NO_ACTIVATION
        activation = FUSED.get(self.bounds(reader), NO_ACTIVATION)
        if reader.name in self.quantized.absorbed:
            return str(reader.outputs[0].name), activation if fuses else NO_ACTIVATION
        if self.integer(node) or not fuses or activation == NO_ACTIVATION:
            return str(output.name), NO_ACTIVATION
        self.done.add(str(reader.name))
        return str(reader.outputs[0].name), activation

    def bounds(self, node: Node) -> tuple[float | None, float | None]:
        """Lower and upper bound of a Relu or Clip; None where it is open.

        Raises:
            ModelError: a bound that is computed.
        """
        known = bounds_of(node)
        if known is None:
            raise self.refuse(node, "has bounds that are computed")
        return known

    def input_shape(self, node: Node) -> tuple[int, ...]:
        """Shape of a node's first input."""
        assert node.inputs[0] is not None
        return self.shape(str(node.inputs[0].name))

    @staticmethod
    def only_reader(node: Node) -> Node | None:
        """The one node that reads what this one gives; None if there are more, or it leaves the model."""
        output = node.outputs[0]
        readers = list(output.uses())
        return readers[0][0] if len(readers) == 1 and not output.is_graph_output() else None

    # Reading

    def read(
        self,
        value: Value | None,
        *,
        order: Order | None = None,
        integer: bool = False,
        exact: bool = False,
    ) -> StoredValue:
        """A value as an operator can read it; what is missing for that is written first.

        Args:
            value: an ONNX value.
            order: order of axes that the operator needs; None takes whichever is there.
            integer: int8 codes instead of float32.
            exact: the codes must be those of `quantized.activations`, on which biases are based.
        """
        assert value is not None
        name = str(value.name)
        if name not in self._stored:
            array = self.array(value)
            if array is None:
                raise ModelError(f"tensor '{name}' is not computed.", where=self.model.source)
            return self._read_constant(name, array, order)
        known = self._stored[name]
        wanted = self.quantized.activations[name] if integer and (exact or self._codes(known) is None) else None
        fitting = [stored for stored in known if self._fits(stored, integer, wanted)]
        ordered = [
            stored for stored in (fitting or known) if order is None or (stored.order == order and not stored.flat)
        ]
        stored = (ordered or fitting or known)[0]
        if order is not None and (stored.order != order or stored.flat):
            stored = self._reordered(name, stored, order)
        if not self._fits(stored, integer, wanted):
            stored = self._converted(name, stored, wanted)
        return stored

    def plain(self, value: Value | None, *, integer: bool = False) -> StoredValue:
        """A value with its axes in the order of ONNX."""
        assert value is not None
        return self.read(value, order=tuple(range(len(self.shape(str(value.name))))), integer=integer)

    def read_axes(self, node: Node) -> StoredValue:
        """A node's first input in any order of its real axes, with codes if the node computes in integers."""
        x = self.read(node.inputs[0], integer=self.integer(node))
        return self.plain(node.inputs[0], integer=self.integer(node)) if x.flat else x

    @staticmethod
    def _codes(known: list[StoredValue]) -> ActivationCodes | None:
        return next((stored.codes for stored in known if stored.codes is not None), None)

    @staticmethod
    def _fits(stored: StoredValue, integer: bool, wanted: ActivationCodes | None) -> bool:
        if not integer:
            return stored.codes is None
        return stored.codes is not None and wanted in (None, stored.codes)

    def _converted(self, name: str, stored: StoredValue, codes: ActivationCodes | None) -> StoredValue:
        """The same order as float32 (codes None) or as int8 codes."""
        result = replace(stored, tensor=self._like(stored, codes), codes=codes)
        code = "DEQUANTIZE" if codes is None else "QUANTIZE"
        version = 2 if stored.codes is not None else 1
        self.operators.append(
            FileOperator(code, (stored.tensor,), (result.tensor,), table=f"{code.title()}Options", version=version)
        )
        self._stored[name].append(result)
        return result

    def requantized(self, stored: StoredValue, codes: ActivationCodes) -> StoredValue:
        """The same codes in another scale; for one reader, not kept."""
        if stored.codes == codes:
            return stored
        result = replace(stored, tensor=self._like(stored, codes), codes=codes)
        self.operators.append(
            FileOperator("QUANTIZE", (stored.tensor,), (result.tensor,), table="QuantizeOptions", version=2)
        )
        return result

    def _reordered(self, name: str, stored: StoredValue, order: Order) -> StoredValue:
        shape = self.shape(name)
        if stored.flat:
            channels, height, width = stored.flat
            image = self.reshape(stored.tensor, (-1, height, width, channels))
            turned = self.transpose(image, (0, 3, 1, 2))
            stored = StoredValue(self.reshape(turned, (-1, channels * height * width)), (0, 1), stored.codes)
        if stored.order != order:
            steps = tuple(stored.order.index(axis) for axis in order)
            probe = self.shapes.probe[name]
            if same_memory(steps, [probe[axis] for axis in stored.order]):
                tensor = self.reshape(
                    stored.tensor, [shape[axis] for axis in order], batch_axis=self.batch_place(name, order)
                )
            else:
                tensor = self.transpose(stored.tensor, steps)
            stored = replace(stored, tensor=tensor, order=order, flat=None)
        self._stored[name].append(stored)
        return stored

    def _read_constant(self, name: str, array: Array, order: Order | None) -> StoredValue:
        order = order or tuple(range(array.ndim))
        stored = np.transpose(array, order)
        return StoredValue(self.float_constant(name, stored, label=name if stored.nbytes > 64 else ""), order)

    def batch_place(self, name: str, order: Order) -> int | None:
        """Which stored axis is the batch, if it can change."""
        axis = self.shapes.batch_axis(name)
        return None if axis is None else order.index(axis)

    # Writing

    def write(
        self,
        name: str,
        order: Order,
        *,
        codes: ActivationCodes | None = None,
        flat: tuple[int, int, int] | None = None,
    ) -> int:
        """Index of a new tensor that holds an ONNX value, stored so."""
        shape = self.shape(name)
        stored = [shape[axis] for axis in order]
        index = self.tensor(stored, codes=codes, name=name, batch_axis=self.batch_place(name, order))
        self.adopt(name, StoredValue(index, order, codes, flat))
        return index

    def adopt(self, name: str, stored: StoredValue) -> None:
        """Note that a value is stored so."""
        self._stored.setdefault(name, []).append(stored)

    def has(self, name: str) -> bool:
        """Whether a value is stored in any way."""
        return name in self._stored

    def _like(self, stored: StoredValue, codes: ActivationCodes | None) -> int:
        old = self.tensors[stored.tensor]
        return self.tensor(old.shape, codes=codes, batch_axis=old.batch_axis)

    def probe_shape(self, name: str) -> tuple[int, ...]:
        """Shape with a batch that other dimensions are hardly a multiple of."""
        self.shape(name)
        return self.shapes.probe[name]
