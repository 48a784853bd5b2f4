"""ONNX file <-> archive: where in the file weight codes and numbers lie, so that `packing/archive.py` can code them.

The file is never rewritten: payloads are found as ranges of its bytes (a walk over the protobuf wire format), and the
graph says what they are, from how each layer's weight is computed. What is not recognized is compressed as plain bytes,
so any ONNX file comes back byte for byte, and lowbit's own ones and integer ones also become much smaller.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from lowbit.errors import ModelError
from lowbit.formats.ledger import KINDS
from lowbit.formats.onnx.ledger import stored_kinds
from lowbit.formats.onnx.raw_data import RawTensor, raw_tensors
from lowbit.formats.onnx.stored import StoredGraph, fields_of_table, small_constant
from lowbit.graph.load import parse
from lowbit.packing.archive import counted_archive, expand_archive
from lowbit.packing.container import is_archive
from lowbit.packing.contexts import Layout
from lowbit.packing.plan import MIN_SPAN_BYTES
from lowbit.packing.spans import Numbers, PackedCodes, Span, symbols_of

__all__ = ["is_archive", "pack", "pack_counted", "stored_symbols", "unpack"]

Integers = np.ndarray[Any, np.dtype[Any]]

# data type -> (bits of a code, signed); 2 and 4 bits fill a byte from its low end, as lowbit's own planes do
CODE_TYPES: dict[int, tuple[int, bool]] = {
    TensorProto.UINT8: (8, False),
    TensorProto.INT8: (8, True),
    TensorProto.UINT16: (16, False),
    TensorProto.INT16: (16, True),
    TensorProto.UINT4: (4, False),
    TensorProto.INT4: (4, True),
}
ITEM_BYTES: dict[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.DOUBLE: 8,
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
    TensorProto.INT32: 4,
    TensorProto.UINT32: 4,
    TensorProto.INT64: 8,
    TensorProto.UINT64: 8,
}
_ALONE_BYTES = 1 << 16  # larger payloads are compressed on their own, smaller ones with others of their sort
_MOST_DEPTH = 64


def pack(content: bytes) -> bytes:
    """The archive of an ONNX file. It has been expanded again and compared with the file.

    Raises:
        ModelError: not an ONNX file, or its weights are in another file.
    """
    return pack_counted(content)[0]


def pack_counted(content: bytes) -> tuple[bytes, dict[str, int]]:
    """The archive of an ONNX file, and its bytes by kind (those of the file's ledger), which sum to its length.

    What is neither codes nor numbers, the archive's own header and plan included, counts as graph.

    Raises:
        ModelError: not an ONNX file, or its weights are in another file.
    """
    payloads = _payloads(content)
    coded = counted_archive(content, list(payloads.codes.values()), list(payloads.numbers.values()))
    spent = dict.fromkeys(KINDS, 0)
    for (_, kind), size in zip(payloads.codes, coded.code_bytes, strict=True):
        spent[kind] += size
    for kind, size in zip((key[0] for key in payloads.numbers), coded.number_bytes, strict=True):
        spent[kind] += size
    spent["graph"] += len(coded.data) - sum(spent.values())
    return coded.data, spent


def unpack(data: bytes) -> bytes:
    """The ONNX file that was packed, byte for byte.

    Raises:
        ArchiveError: not an archive, newer, truncated, damaged in any way, or claiming impossible sizes.
    """
    return expand_archive(data)


def stored_symbols(content: bytes, kind: str | None = "codes") -> dict[str, Integers]:
    """The codes that an ONNX file stores, as uint16 by the name of the weight or stored tensor.

    Unpacked to [rows, columns, kernel height, kernel width] as the coder sees them (`packing.contexts.Layout`), for
    entropies and histograms. Signed codes are shifted to start from 0.

    Args:
        content: of the file.
        kind: of the ledger: weights of layers by default; None for all that is stored as integers of few bits.

    Raises:
        ModelError: not an ONNX file, or its weights are in another file.
    """
    stored = _payloads(content).codes
    return {
        name: symbols_of(content, item).reshape(item.layout.shape)
        for (name, own), item in stored.items()
        if kind in (None, own)
    }


@dataclass
class _Chain:
    """What is met on the way from a layer's weight back to its codes."""

    planes: list[tuple[int, int, str]] = field(default_factory=list)  # shift, bits, stored tensor
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Graph:
    """What a walk reads: stored tensors and where they lie, their contents, and the nodes by what they give."""

    tensors: Mapping[str, RawTensor]
    values: Mapping[str, TensorProto]
    producers: Mapping[str, NodeProto]


@dataclass(frozen=True)
class _Payloads:
    """Codes by (name of the weight or stored tensor, kind); numbers by kind and what else makes them alike."""

    codes: dict[tuple[str, str], PackedCodes]
    numbers: dict[tuple[str, int, object, str], Numbers]


def _payloads(content: bytes) -> _Payloads:
    graph = parse(content, "file to pack").graph
    for tensor in graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ModelError(
                f"the data of '{tensor.name}' is in another file.",
                where="file to pack",
                remedy="Save the model as one file first: `lowbit.save(lowbit.load(path), new_path)` does.",
            )
    tensors = dict(raw_tensors(content))
    values = {tensor.name: tensor for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    stored_graph = StoredGraph(graph)
    kinds = stored_kinds(stored_graph)
    codes: dict[tuple[str, str], PackedCodes] = {}
    used: set[str] = set()
    for read in stored_graph.weights():
        chain = _Chain()
        _follow(_Graph(tensors, values, producers), read.value, chain)
        item = _codes(chain, tensors)
        names = {name for _, _, name in chain.planes}
        if item is not None and not used & names:
            codes[read.value, "codes"] = item
            used |= names
    for name, tensor in tensors.items():
        # Short ones, such as zero points, stay where they are.
        if name not in used and tensor.data_type in CODE_TYPES and tensor.span.length >= MIN_SPAN_BYTES:
            chain = _Chain([(0, CODE_TYPES[tensor.data_type][0], name)])
            item = _codes(chain, tensors)
            if item is not None:
                codes[name, kinds.get(name, "constants")] = item
    return _Payloads(codes, _numbers(graph, tensors, kinds))


def _follow(graph: _Graph, name: str, chain: _Chain, shift: int = 0, bits: int | None = None, depth: int = 0) -> None:
    """Walk back from a value to the planes of codes behind it; `bits` and `shift` are what was met so far."""
    if name in graph.tensors:
        kind = graph.tensors[name].data_type
        if kind in CODE_TYPES:
            chain.planes.append((shift, bits or CODE_TYPES[kind][0], name))
        return
    node = graph.producers.get(name)
    if node is None or depth == _MOST_DEPTH or not node.input:
        return
    upstream = [node.input[0]]
    constant = small_constant(node.input[1], graph.values) if len(node.input) > 1 else None
    if node.op_type == "Gather" and len(node.input) > 1:
        upstream = [node.input[1]]
        fields = fields_of_table(node.input[0], graph.producers, graph.values)
        if fields is not None:
            bits, shift = fields[0], shift + fields[1]
    elif node.op_type == "Add" and len(node.input) == 2 and node.input[1] in graph.producers:
        upstream = list(node.input)
    elif node.op_type == "Reshape" and constant is not None and -1 not in constant:
        chain.shapes.append(constant)
    elif node.op_type == "Mod" and constant is not None and len(constant) == 1 and constant[0] > 1:
        bits = constant[0].bit_length() - 1
    elif node.op_type == "Mul" and constant is not None and len(constant) == 1 and constant[0] > 0:
        shift += constant[0].bit_length() - 1
    elif node.op_type == "Slice" and len(node.input) == 3:
        ends = small_constant(node.input[2], graph.values)
        chain.counts += ends or ()
    elif node.op_type not in ("Cast", "Div", "Sub", "Mul", "Add", "Reshape", "Slice", "Transpose", "DequantizeLinear"):
        return
    for value in upstream:
        _follow(graph, value, chain, shift, bits, depth + 1)


def _codes(chain: _Chain, tensors: Mapping[str, RawTensor]) -> PackedCodes | None:
    """The planes of one tensor as one item, if they fit together."""
    planes = sorted(chain.planes)
    if not planes:
        return None
    shifts = [sum(bits for _, bits, _ in planes[:index]) for index in range(len(planes))]
    lengths = [tensors[name].span.length for _, _, name in planes]
    most = min(length * 8 // bits for length, (_, bits, _) in zip(lengths, planes, strict=True))
    count = chain.counts[0] if chain.counts else most
    signed = False
    if len(planes) == 1:
        ((_, bits, name),) = planes
        type_bits, type_signed = CODE_TYPES[tensors[name].data_type]
        if bits == type_bits:
            # Tensors of 4 bits know their count, too: there may be padding behind it.
            count, signed = prod(tensors[name].dims), type_signed
            chain.shapes.append(tensors[name].dims)
    fits = [length == -(-count * bits // 8) for length, (_, bits, _) in zip(lengths, planes, strict=True)]
    if [shift for shift, _, _ in planes] != shifts or not all(fits) or count < 1 or sum(b for _, b, _ in planes) > 16:
        return None
    if any(bits not in (1, 2, 4, 8, 16) for _, bits, _ in planes) or len({name for _, _, name in planes}) < len(planes):
        return None
    shape = next((shape for shape in chain.shapes if prod(shape) == count), (count,))
    return PackedCodes(
        starts=tuple(tensors[name].span.start for _, _, name in planes),
        widths=tuple(bits for _, bits, _ in planes),
        layout=_layout(shape),
        signed=signed,
    )


def _layout(shape: tuple[int, ...]) -> Layout:
    """[rows, columns, kernel...] of a weight; more than two kernel axes are taken as high ones."""
    rows, columns, *kernel = shape if len(shape) > 1 else (prod(shape), 1)
    *high, wide = kernel or [1]
    return Layout(rows, columns, prod(high), wide)


def _numbers(
    graph: onnx.GraphProto, tensors: Mapping[str, RawTensor], kinds: Mapping[str, str]
) -> dict[tuple[str, int, object, str], Numbers]:
    """All else that is stored as numbers, with its like: of one kind and type, read by one input of an operator."""
    readers: dict[str, tuple[str, int]] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            readers.setdefault(name, (node.op_type, index))
    groups: dict[tuple[str, int, object, str], list[Span]] = {}
    for name, tensor in tensors.items():
        item = ITEM_BYTES.get(tensor.data_type)
        if item is None or tensor.span.length % item:
            continue
        alone = name if tensor.span.length >= _ALONE_BYTES else ""
        key = (kinds.get(name, "constants"), tensor.data_type, readers.get(name), alone)
        groups.setdefault(key, []).append(tensor.span)
    return {key: Numbers(tuple(spans), ITEM_BYTES[key[1]]) for key, spans in groups.items()}
