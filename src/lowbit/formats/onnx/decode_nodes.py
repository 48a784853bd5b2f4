"""Packed codes -> float weights, as a chain of standard operators that runtimes fold into one constant at load.

Only Cast, Div, Mod, Mul, Add, Reshape, Slice, Sub, Transpose and Gather are used: both ONNX Runtime and OpenVINO fold
them, which neither holds for a lone DequantizeLinear nor for BitShift (docs/design.md, section 3). The arithmetic up to
the codes is exact in int32; after them it is one product in float32, as in the scheme's own `decode`, so both agree bit
for bit.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from lowbit.formats.names import Names
from lowbit.formats.quantized_graph import Codes
from lowbit.packing.bits import pack, planes
from lowbit.schemes.codes import ClusterCodes, LinearCodes
from lowbit.schemes.groups import Groups

Array = np.ndarray[Any, np.dtype[Any]]

HALF_FROM = 32  # numbers from which on two bytes each are worth a Cast
HALF_TABLE_FROM = 16  # entries of a code book from which on they are, under short names too
BYTE_FROM = 128  # numbers from which on one byte each (or less, of zero points) are worth two or three nodes


class Chain:
    """A value under construction: each step appends one node whose other inputs are constants."""

    def __init__(self, value: ir.Value, names: Names) -> None:
        self.value = value
        self.names = names
        self.nodes: list[ir.Node] = []

    def then(self, op: str, *constants: Array | np.generic, **attributes: int | list[int]) -> "Chain":
        """Apply `op` to the value so far and these constants."""
        inputs = [self.value, *(self.names.constant(constant) for constant in constants)]
        return self._append(ir.node(op, inputs, attributes=attributes))

    def joined(self, op: str, other: "Chain") -> "Chain":
        """Apply `op` to the value so far and that of another chain."""
        self.nodes += other.nodes
        return self._append(ir.node(op, [self.value, other.value]))

    def looked_up(self, table: Array, *, half: bool) -> "Chain":
        """Replace each index by the entry of a table, whose values are those of float16 if `half` says so."""
        if not half or table.size < HALF_TABLE_FROM:
            return self._append(ir.node("Gather", [self.names.constant(table), self.value]))
        self._append(ir.node("Gather", [self.names.constant(table.astype(np.float16)), self.value]))
        return self.then("Cast", to=int(ir.DataType.FLOAT))

    def scaled(self, factors: Array, table: Array | None = None) -> "Chain":
        """Multiply by float32 factors, as narrow as it loses nothing and saves more than the nodes it needs.

        Args:
            factors: in a shape that broadcasts.
            table: float32 [at most 256], rising: factors of the whole file (see `scale_table`).
        """
        if table is not None and factors.size >= BYTE_FROM and np.isin(factors, table).all():
            places = np.searchsorted(table, factors).astype(np.uint8)
            byte = Chain(self.names.constant(places, "s"), self.names).then("Cast", to=int(ir.DataType.INT32))
            return self.joined("Mul", byte.looked_up(table, half=False))
        if factors.size < HALF_FROM or not held_by_half(factors):
            return self.then("Mul", factors)
        half = Chain(self.names.constant(factors.astype(np.float16), "s"), self.names)
        return self.joined("Mul", half.then("Cast", to=int(ir.DataType.FLOAT)))

    def _append(self, node: ir.Node) -> "Chain":
        self.nodes.append(node)
        self.value = node.outputs[0]
        self.value.name = self.names.fresh("u")
        return self


def scale_table(weights: Iterable[Codes]) -> Array | None:
    """All scales of a file, float32 and rising, if they are at most 256 and a byte for each use of one is less.

    One table serves all layers: each then keeps a byte a channel.
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


def halved(values: Array, graph: ir.Graph, names: Names) -> ir.Value:
    """Write values that float16 holds as such, with a Cast at the head of the graph; the value is float32."""
    chain = Chain(names.constant(values.astype(np.float16), "h"), names).then("Cast", to=int(ir.DataType.FLOAT))
    graph.insert_before(graph[0], chain.nodes)
    chain.value.shape = ir.Shape(values.shape)
    chain.value.dtype = ir.DataType.FLOAT
    return chain.value


def decoded(codes: Codes, graph: ir.Graph, names: Names, table: Array | None = None) -> ir.Value:
    """Write codes and the nodes that decode them at the head of a graph; the value is float32 of the codes' shape.

    Args:
        codes: of one tensor.
        graph: where to.
        names: of the graph.
        table: scales of the whole file, see `scale_table`.
    """
    chain = _linear(codes, names, table) if isinstance(codes, LinearCodes) else _clusters(codes, names, table)
    head = graph[0]
    graph.insert_before(head, chain.nodes)
    chain.value.shape = ir.Shape(codes.shape)
    chain.value.dtype = ir.DataType.FLOAT
    return chain.value


def _linear(codes: LinearCodes, names: Names, table: Array | None) -> Chain:
    """(code - zero point) * scale, in the order and precision of `LinearCodes.decode`."""
    groups = codes.groups
    columns = not groups.spans_columns
    stored, offset = (codes.codes, 0) if codes.bits in (8, 16) else codes.unsigned()
    if columns:
        stored = _in_whole_groups(stored, groups)
    if codes.bits in (8, 16):
        # Whole bytes need no unpacking; signed codes keep their sign.
        chain = Chain(names.constant(np.ascontiguousarray(stored), "w"), names)
    else:
        chain = _integers(stored, codes.bits, names)
    if codes.bits == 8:
        # By way of int32: OpenVINO keeps a tensor that is cast from 8 bits to float compressed, and converts it at
        # every inference.
        chain.then("Cast", to=int(ir.DataType.INT32))
    shape = (*groups.blocks, 1) if columns else groups.scale_shape
    if codes.zero_point is not None:
        # Zero points stay as narrow as the codes, and are subtracted before anything is a float.
        if codes.bits == 16:
            chain.then("Cast", to=int(ir.DataType.INT32))
        chain.joined("Sub", _zero_points(codes.zero_point.reshape(shape), codes.bits, names))
    chain.then("Cast", to=int(ir.DataType.FLOAT))
    if offset:
        chain.then("Sub", np.float32(offset))
    chain.scaled(codes.scale.reshape(shape), table)
    return _from_whole_groups(chain, groups) if columns else chain


def _in_whole_groups(codes: Array, groups: Groups) -> Array:
    """Codes as [channels, groups, columns of a group]; a shorter last group is filled with the code 0."""
    rows = groups.to_rows(codes)
    across = groups.blocks[1]
    missing = across * groups.columns_each - groups.columns
    return np.pad(rows, ((0, 0), (0, missing))).reshape(groups.rows, across, groups.columns_each)


def _from_whole_groups(chain: Chain, groups: Groups) -> Chain:
    """Back from [channels, groups, columns of a group] to the tensor."""
    if groups.columns % groups.columns_each:
        chain.then("Reshape", np.array([groups.rows, -1]))
        chain.then("Slice", np.array([0]), np.array([groups.columns]), np.array([1]))
    chain.then("Reshape", np.array(groups.moved_shape))
    if groups.axis:
        order = [*range(1, groups.axis + 1), 0, *range(groups.axis + 1, len(groups.shape))]
        chain.then("Transpose", perm=order)
    return chain


def _clusters(codes: ClusterCodes, names: Names, table: Array | None) -> Chain:
    """A look-up in the code books, which stand one after the other in one table."""
    groups = codes.groups
    chain = _integers(codes.indices, codes.bits, names)
    if groups.count > 1:
        firsts = groups.spread(np.arange(groups.count, dtype=np.int32) << codes.bits)
        chain.then(
            "Add", firsts.reshape([groups.rows if axis == groups.axis else 1 for axis in range(len(codes.shape))])
        )
    chain.looked_up(codes.code_books.reshape(-1), half=codes.half)
    if codes.scale is not None:
        chain.scaled(codes.scale.reshape([-1 if axis == groups.axis else 1 for axis in range(len(codes.shape))]), table)
    return chain


def _zero_points(zero_points: Array, bits: int, names: Names) -> Chain:
    """As int32 in the given shape; stored in bytes, or several in one where that saves more than it needs."""
    width = next(width for width in (2, 4, 8, 16) if width >= bits)
    if width < 8 and zero_points.size >= BYTE_FROM and zero_points.size * width % 8 == 0:
        return _integers(zero_points, width, names)
    return Chain(names.constant(zero_points, "z"), names).then("Cast", to=int(ir.DataType.INT32))


def _integers(values: Array, bits: int, names: Names) -> Chain:
    """Values of `bits` bits as int32 of the same shape, unpacked from one plane of bytes or several."""
    shape = np.array(values.shape, np.int64)
    symbols = values.reshape(-1)
    if len(planes(bits)) == 1 and symbols.size * bits % 8 == 0:
        # Nothing is joined or cut off, so the shape is given at once.
        return _plane(symbols, bits, names, shape)
    chain: Chain | None = None
    shift = 0
    for width in planes(bits):
        plane = _plane((symbols >> shift) & ((1 << width) - 1), width, names)
        if chain is None:
            chain = plane
        else:
            chain.joined("Add", plane.then("Mul", np.int32(1 << shift)))
        shift += width
    assert chain is not None
    return chain.then("Reshape", shape)


def _plane(symbols: Array, width: int, names: Names, shape: Array | None = None) -> Chain:
    """Symbols of 1, 2, 4 or 8 bits from bytes: byte b holds symbols b * (8 / width) + i in its i-th lowest field."""
    a_byte = 8 // width
    packed = pack(symbols.astype(np.uint8), width)
    chain = Chain(names.constant(packed.reshape(-1, 1), "w"), names)
    chain.then("Cast", to=int(ir.DataType.INT32))
    if width < 8:
        divisors = np.array([1 << (width * i) for i in range(a_byte)], np.int32)
        chain.then("Div", divisors).then("Mod", np.int32(1 << width))
    chain.then("Reshape", np.array([-1], np.int64) if shape is None else shape)
    if packed.size * a_byte != symbols.size:
        chain.then("Slice", np.array([0]), np.array([symbols.size]))
    return chain
