"""Packed codes -> float weights, as a chain of standard operators that runtimes fold into one constant at load.

Only Cast, Gather, Mul, Add, Reshape, Slice, Sub and Transpose are used, and Div and Mod for tables: both ONNX Runtime
and OpenVINO fold them, which neither holds for a lone DequantizeLinear nor for BitShift (docs/decisions/005). The
arithmetic up to the codes is exact in int32; after them it is one product in float32, as in the scheme's own `decode`,
so both agree bit for bit.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import onnx_ir as ir

from lowbit.formats.names import Names
from lowbit.formats.onnx.byte_tables import TYPES, ByteTables, Fields
from lowbit.formats.onnx.draft import Draft, replace_initializer
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.ops import layers
from lowbit.packing.bits import pack, packed_bytes, planes
from lowbit.schemes.codes import Codes, IntegerCodes, Scheme
from lowbit.schemes.integer_clusters import IntegerClusters

Array = np.ndarray[Any, np.dtype[Any]]

HALF_FROM = 32  # from this many numbers on, two bytes each are worth a Cast
HALF_TABLE_FROM = 16  # from this many entries on, a code book is worth one, even with short names
BYTE_FROM = 128  # from this many on, one byte each (less for zero points) is worth two or three nodes
# What the nodes that unpack codes of one plane or several to int8 add to a file, measured on written files.
UNPACK_BYTES = {1: 80, 2: 236, 3: 347}
TABLE_BYTES = 480  # and once for the tables that they read
# What runtimes take to unpack a value once, while they load a file, for each plane: ONNX Runtime and OpenVINO, 16.8
# million codes of 4 bits and of 7 in one product.
UNPACK_SECONDS = 0.02e-6
LOOK_UP_BYTES = {1: 34, 2: 10, 3: 10}  # of a Gather, without the entries of its code book; in place of a Cast of sums


class NodeChain:
    """A `schemes.codes.Chain` of nodes: each step appends one whose other inputs are constants.

    Args:
        value: that the chain begins with.
        names: of the graph.
        table: float32 [at most 256], rising: scales of the whole file (see `scale_table`).
    """

    def __init__(self, value: ir.Value, names: Names, table: Array | None = None) -> None:
        self.value = value
        self.names = names
        self.table = table
        self.nodes: list[ir.Node] = []

    def then(self, op: str, *constants: Array | np.generic, **attributes: int | list[int]) -> Self:
        """Apply `op` to the value so far and these constants."""
        inputs = [self.value, *(self.names.constant(constant) for constant in constants)]
        return self._append(ir.node(op, inputs, attributes=attributes))

    def cast(self, dtype: str) -> Self:
        """Convert to "int8", "int32" or "float32"."""
        return self.then("Cast", to=int(TYPES[dtype]))

    def joined(self, op: str, other: "NodeChain") -> Self:
        """Apply `op` to the value so far and that of another chain."""
        self.nodes += other.nodes
        return self._append(ir.node(op, [self.value, other.value]))

    def looked_up(self, table: Array, *, half: bool) -> Self:
        """Replace each index by the entry of a table, whose values are those of float16 if `half` says so."""
        if not half or table.size < HALF_TABLE_FROM:
            return self.taken_from(self.names.constant(table))
        return self.taken_from(self.names.constant(table.astype(np.float16))).cast("float32")

    def taken_from(self, table: ir.Value) -> Self:
        """Replace each index by the entry of a table, or its row."""
        return self._append(ir.node("Gather", [table, self.value]))

    def scaled(self, factors: Array) -> Self:
        """Multiply by float32 factors, as narrow as loses nothing and saves more than the nodes it needs."""
        narrow = narrowed(factors, self.names, self.table)
        return self.then("Mul", factors) if narrow is None else self.joined("Mul", narrow)

    def _append(self, node: ir.Node) -> Self:
        self.nodes.append(node)
        self.value = node.outputs[0]
        self.value.name = self.names.fresh("u")
        return self


def narrowed(factors: Array, names: Names, table: Array | None = None) -> NodeChain | None:
    """float32 factors from fewer bytes, where that loses nothing and saves more than the nodes; None elsewhere."""
    if table is not None and factors.size >= BYTE_FROM and np.isin(factors, table).all():
        places = np.searchsorted(table, factors).astype(np.uint8)
        return NodeChain(names.constant(places, "s"), names).cast("int32").looked_up(table, half=False)
    if factors.size < HALF_FROM or not held_by_half(factors):
        return None
    return NodeChain(names.constant(factors.astype(np.float16), "s"), names).cast("float32")


def packing_saves(scheme: Scheme, count: int) -> bool:
    """Whether `count` codes in front of an integer kernel take fewer bytes packed, with the nodes, than one each."""
    return integer_bytes(scheme, count) < count


def unpacking_seconds(scheme: Scheme, count: int) -> float:
    """About what a runtime takes to unpack `count` codes in front of an integer kernel, each time it loads the file."""
    return UNPACK_SECONDS * len(planes(scheme.bits)) * count if packing_saves(scheme, count) else 0.0


def integer_bytes(scheme: Scheme, count: int) -> int:
    """Bytes of `count` codes in front of an integer kernel: packed, with the nodes that unpack them, or one each."""
    if scheme.bits >= 8:
        return count
    number = len(planes(scheme.bits))
    book = LOOK_UP_BYTES[number] + (1 << scheme.bits) if isinstance(scheme, IntegerClusters) else 0
    return min(count, packed_bytes(scheme.bits, count) + UNPACK_BYTES[number] + book)


def tables_pay(weights: Iterable[tuple[Scheme, int]]) -> bool:
    """Whether schemes with their numbers of codes save more in a file than the tables that unpack them take."""
    return sum(count - integer_bytes(scheme, count) for scheme, count in weights) > TABLE_BYTES


def packed_weights(quantized: QuantizedGraph) -> frozenset[str]:
    """The weights that a file packs of those that are to be: none if the tables would take more than all save."""
    narrow = {name: quantized.weights[name] for name in quantized.packed & quantized.weights.keys()}
    pays = tables_pay((codes.scheme, math.prod(codes.shape)) for codes in narrow.values())
    return frozenset(narrow) if pays else frozenset()


def scale_table(weights: Iterable[Codes]) -> Array | None:
    """All scales of a file, float32 and rising, if there are at most 256 and one byte per use is less.

    One table serves all layers: each then keeps one byte per channel.
    """
    used = [codes.scale for codes in weights if codes.scale is not None and codes.scale.size >= BYTE_FROM]
    if not used:
        return None
    table = np.unique(np.concatenate(used))
    # Two bytes each are the alternative, where float16 holds them.
    saved = sum(scale.size for scale in used) - table.nbytes
    return table if table.size <= 256 and saved > 0 else None


def held_by_half(values: Array) -> bool:
    """Whether float16 holds every one of these float32 values exactly."""
    with np.errstate(over="ignore"):
        return bool(np.array_equal(values.astype(np.float16).astype(np.float32), values))


def write_codes(draft: Draft) -> Draft:
    """Packed codes, and the nodes that decode them at the head of the graph, for weights that are read as float."""
    initializers = draft.graph.initializers
    quantized = draft.quantized
    # Layers that run in integers have taken theirs; whoever else reads them decodes the same bytes.
    taken = {layer.weight for layer in layers(quantized.model) if layer.node in quantized.integer}
    packed = packed_weights(quantized)
    coded = {name: codes for name, codes in quantized.weights.items() if initializers[name].uses()}
    decoder = NodeDecoder(draft.names, draft.tables, scale_table(coded.values()))
    for name, codes in coded.items():
        if name in taken and isinstance(codes, IntegerCodes):
            levels = stored_levels(codes, decoder, packed=name in packed)
            # By way of int32, see `LinearCodes.decode_with`.
            chain = levels.cast("int32").cast("float32").scaled(_spread(codes))
        else:
            chain = codes.decode_with(decoder)
        _put(draft, initializers[name], chain, codes.shape)
    return draft


def stored_levels(codes: IntegerCodes, decoder: "NodeDecoder", *, packed: bool) -> NodeChain:
    """int8 levels of integer codes, from their own width if that is asked for and saves bytes, else as they are."""
    if packed and packing_saves(codes.scheme, math.prod(codes.shape)):
        return codes.levels_with(decoder)
    return decoder.stored(codes.levels())


def _spread(codes: IntegerCodes) -> Array:
    """The scale of integer codes in a shape that broadcasts against the tensor."""
    channels = [-1 if axis == codes.axis else 1 for axis in range(len(codes.shape))]
    return codes.scale.reshape(channels if codes.scale.size > 1 else ())


def write_halves(draft: Draft) -> Draft:
    """Corrected float tensors as float16 behind a Cast, where that loses nothing and saves bytes."""
    for name, array in draft.quantized.float_values.items():
        if array.size >= HALF_FROM and held_by_half(array):
            chain = NodeChain(draft.names.constant(array.astype(np.float16), "h"), draft.names).cast("float32")
            _put(draft, draft.graph.initializers[name], chain, array.shape)
    return draft


def _put(draft: Draft, value: ir.Value, chain: NodeChain, shape: tuple[int, ...]) -> None:
    """Let what a chain computes at the head of the graph, float32 of this shape, take the place of an initializer."""
    draft.graph.insert_before(draft.graph[0], chain.nodes)
    chain.value.shape, chain.value.dtype = ir.Shape(shape), ir.DataType.FLOAT
    replace_initializer(draft.graph, value, chain.value)


@dataclass(frozen=True)
class NodeDecoder:
    """A `schemes.codes.Decoder`: stored tensors, and the nodes that unpack them.

    Attributes:
        names: of the graph.
        tables: of the graph.
        scales: `table` of `NodeChain`.
    """

    names: Names
    tables: ByteTables
    scales: Array | None = None

    def stored(self, values: Array) -> NodeChain:
        """Values as they are, of their own type."""
        return NodeChain(self.names.constant(np.ascontiguousarray(values), "w"), self.names, self.scales)

    def integers(self, values: Array, bits: int, *, less: int = 0, dtype: str = "int32") -> NodeChain:
        """Values of `bits` bits less a constant, of the same shape, unpacked from one plane of bytes or several."""
        shape = np.array(values.shape, np.int64)
        symbols = values.reshape(-1)
        if bits in (1, 2, 4):
            whole = symbols.size * bits % 8 == 0
            chain = self._plane(symbols, Fields(bits, 0, less, dtype), shape if whole else None)
            return chain if whole else chain.then("Reshape", shape)
        first, *others = planes(bits)
        whole = first < 8 and symbols.size % 8 == 0
        flat_or_not = shape if whole else None
        chain = self._plane(symbols & ((1 << first) - 1), Fields(first, 0, less), flat_or_not)
        shift = first
        for width in others:
            plane = self._plane((symbols >> shift) & ((1 << width) - 1), Fields(width, shift), flat_or_not)
            chain.joined("Add", plane)
            shift += width
        chain = chain if whole else chain.then("Reshape", shape)
        return chain if dtype == "int32" else chain.cast(dtype)

    def zero_points(self, values: Array, bits: int) -> NodeChain:
        """As int32 in the given shape; stored in bytes, or several in one where that saves more than it needs."""
        width = next(width for width in (2, 4, 8, 16) if width >= bits)
        if width < 8 and values.size >= BYTE_FROM and values.size * width % 8 == 0:
            return self.integers(values, width)
        return NodeChain(self.names.constant(values, "z"), self.names).cast("int32")

    def _plane(self, symbols: Array, fields: Fields, shape: Array | None = None) -> NodeChain:
        """What symbols become; byte b holds symbol b * (8 / width) + i in its i-th lowest field."""
        width = fields.width
        packed = pack(symbols.astype(np.uint8), width)
        chain = NodeChain(self.names.constant(packed, "w"), self.names, self.scales).cast("int32")
        if width == 8:
            return chain.then("Sub", np.int32(fields.less)) if fields.less else chain
        chain.taken_from(self.tables.table(fields)).then("Reshape", np.array([-1]) if shape is None else shape)
        if packed.size * 8 // width != symbols.size:
            chain.then("Slice", np.array([0]), np.array([symbols.size]))
        return chain
