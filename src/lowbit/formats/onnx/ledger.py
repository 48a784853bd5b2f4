"""Where the bytes of an ONNX file went, and how many numbers of each sort it holds: any file, not only lowbit's.

The sort of a stored tensor follows from how the graph reads it: what a DequantizeLinear, a Cast or a Gather turns into
the weight of a layer are codes; what those are multiplied with are scales, and so on. Payloads are counted tensor by
tensor; what is left of the file is the graph itself, and what is left of an external data file is padding. So the
lines sum to the bytes on disk, to the last one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from lowbit.errors import ModelError
from lowbit.formats.ledger import KINDS, Ledger, StoredLayer
from lowbit.formats.onnx.stored import NARROW, StoredGraph, WeightRead, fields_of_table
from lowbit.formats.onnx.stored_products import BITS as BLOCK_BITS
from lowbit.formats.onnx.stored_products import BLOCKS, stored_products
from lowbit.graph.load import read_proto

DATA_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data", "raw_data")


def read_ledger(path: Path | str) -> Ledger:
    """Count a model file.

    Raises:
        ModelError: not an ONNX file, or external data is missing.
    """
    path = Path(path)
    proto = read_proto(path, external=False)
    return count_bytes(proto, path.stat().st_size, _external_files(proto, path.parent))


def count_bytes(proto: onnx.ModelProto, file_bytes: int, external: Mapping[str, int] | None = None) -> Ledger:
    """Count a parsed model.

    Args:
        proto: the model, external data not loaded.
        file_bytes: size of the file it was parsed from.
        external: sizes of its external data files by location.
    """
    graph = StoredGraph(proto.graph)
    stored = graph.tensors
    kinds, read_weights = _kinds(graph)
    in_a_byte = _in_a_byte(graph)
    shapes = {value.name: value for value in (*proto.graph.value_info, *proto.graph.output)}
    spent = dict.fromkeys(KINDS, 0)
    counts = dict.fromkeys(KINDS[:7], 0)
    for name, tensor in stored.items():
        kind = kinds.get(name, "constants")
        spent[kind] += payload_bytes(tensor)
        if kind != "codes":
            counts[kind] += _elements(tensor) * in_a_byte.get(name, 1)
    stored_layers = []
    counted: set[str] = set()
    for read, names in read_weights:
        codes = [name for name, kind in names.items() if kind in ("codes", "float_weights")]
        side = [name for name, kind in names.items() if kind in ("scales", "zero_points", "code_books")]
        weights = _weights_of(read, names, graph, shapes)
        if any(names[name] == "codes" for name in codes) and not counted & set(codes):
            counts["codes"] += weights
        counted |= set(codes)
        stored_layers.append(
            StoredLayer(
                node=read.name if read.node.name else "",
                op=read.node.op_type,
                weights=weights,
                code_bytes=sum(payload_bytes(stored[name]) for name in codes),
                side_bytes=sum(payload_bytes(stored[name]) for name in side),
                initializers=tuple(names),
                type=_type_of(read, names, graph, in_a_byte),
            )
        )
    outside = sum(payload_bytes(tensor) for tensor in stored.values() if _is_external(tensor))
    inside = sum(spent.values()) - outside
    spent["metadata"] = _metadata_bytes(proto)
    spent["graph"] = file_bytes - inside - spent["metadata"]
    spent["padding"] = sum((external or {}).values()) - outside
    return Ledger(spent, counts, file_bytes + sum((external or {}).values()), tuple(stored_layers))


def _metadata_bytes(proto: onnx.ModelProto) -> int:
    """Bytes of what the file says of itself."""
    alone = onnx.ModelProto()
    alone.metadata_props.extend(proto.metadata_props)
    return int(alone.ByteSize())


def stored_kinds(graph: StoredGraph) -> dict[str, str]:
    """The kind of every stored tensor that the graph reads as one; all others are constants."""
    return _kinds(graph)[0]


def _kinds(graph: StoredGraph) -> tuple[dict[str, str], list[tuple[WeightRead, dict[str, str]]]]:
    """Kinds by stored tensor, and each weight with the kinds of what it is computed from."""
    kinds: dict[str, str] = {}
    read_weights = []
    for read in graph.weights():
        names: dict[str, str] = {}
        if _walk(read.value, "float_weights", graph, names):
            kinds |= names
            read_weights.append((read, names))
    for product in stored_products(graph):
        kinds |= product.kinds
        read_weights.append((WeightRead(product.node.name, product.node, ""), dict(product.kinds)))
    for bias in graph.biases():
        names = {}
        if _walk(bias, "biases", graph, names):
            kinds = names | kinds
    for node in graph.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            for name, kind in zip(node.input[1:], ("scales", "zero_points"), strict=False):
                if name in graph.tensors:
                    kinds.setdefault(name, kind)
    return kinds, read_weights


def _in_a_byte(graph: StoredGraph) -> dict[str, int]:
    """How many numbers each byte of a stored tensor holds, where they are looked up in a table of bytes, or divided out
    of it, as earlier versions did (`formats/onnx/byte_tables.py`)."""
    stored = graph.tensors
    cast = {node.output[0]: node.input[0] for node in graph.nodes if node.op_type == "Cast" and node.input[0] in stored}
    counts = {}
    for node in graph.nodes:
        if node.op_type == "Div" and node.input[0] in cast and node.input[1] in stored:
            counts[cast[node.input[0]]] = _elements(stored[node.input[1]])
        elif node.op_type == "Gather" and node.input[1] in cast:
            fields = fields_of_table(node.input[0], graph.producers, stored)
            if fields is not None:
                counts[cast[node.input[1]]] = 8 // fields[0]
    return counts


def payload_bytes(tensor: TensorProto) -> int:
    """Bytes that the numbers of one stored tensor take in the file, its name and shape not counted."""
    if _is_external(tensor):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        return int(entries["length"]) if "length" in entries else _elements(tensor) * _item_bytes(tensor)
    if tensor.raw_data:
        return len(tensor.raw_data)
    bare = TensorProto()
    bare.CopyFrom(tensor)
    for field in DATA_FIELDS:
        bare.ClearField(field)
    return int(tensor.ByteSize() - bare.ByteSize())


def _walk(
    name: str,
    kind: str,
    graph: StoredGraph,
    names: dict[str, str],
) -> bool:
    """Give every stored tensor behind `name` its kind; False if it is not computed from stored tensors alone."""
    stored = graph.tensors
    if name in stored:
        tensor = stored[name]
        coded = kind == "float_weights" and tensor.data_type not in NARROW
        names.setdefault(name, "codes" if coded else kind)
        return True
    node = graph.producers.get(name)
    if node is None:
        return False
    behind = [kind] + ["constants"] * (len(node.input) - 1)
    if kind == "constants":
        pass  # and so is all that it is computed from
    elif node.op_type == "DequantizeLinear":
        behind = [kind, "scales", "zero_points"]
    elif node.op_type == "Gather":
        unpacks = fields_of_table(node.input[0], graph.producers, stored) is not None
        behind = ["constants" if unpacks else "code_books", kind]
    elif node.op_type in ("Mul", "Sub") and len(node.input) == 2:
        side = "scales" if node.op_type == "Mul" else "zero_points"
        # A scale may be computed from narrow numbers; a stored integer factor only puts bit planes in their places.
        factor = stored.get(node.input[1])
        places = node.op_type == "Mul" and factor is not None and factor.data_type not in NARROW
        behind = [kind, "constants" if places else side]
    elif node.op_type in ("Add", "Concat"):
        # Bit planes are joined; where each channel's code book begins is no code.
        starts = [name in stored and stored[name].data_type == TensorProto.INT32 for name in node.input]
        behind = ["constants" if start else kind for start in starts]
    constant = True
    for read, part in zip(node.input, behind, strict=False):
        # No short cut: whatever is stored behind any input gets its kind.
        constant = _walk(read, part, graph, names) and constant
    return constant


def _weights_of(
    read: WeightRead, names: Mapping[str, str], graph: StoredGraph, shapes: Mapping[str, onnx.ValueInfoProto]
) -> int:
    """How many weights a tensor has: from its shape, or from its codes where each is one number."""
    name, stored = read.value, graph.tensors
    if not name:
        sizes = {item.name: item.i for item in read.node.attribute}
        codes = next(part for part, kind in names.items() if kind == "codes")
        return sizes["K"] * sizes["N"] if read.node.op_type == BLOCKS else _elements(stored[codes])
    if name in stored:
        return _elements(stored[name])
    if name in shapes:
        return int(np.prod([dim.dim_value for dim in shapes[name].type.tensor_type.shape.dim]))
    while (producer := graph.producers.get(name)) is not None:
        # A file with short names has no shapes, but what unpacks codes gives them their own.
        shape = stored.get(producer.input[1]) if producer.op_type == "Reshape" else None
        if shape is not None and (extents := numpy_helper.to_array(shape)).min(initial=1) > 0:
            return int(extents.prod())
        name = producer.input[1 if producer.op_type == "Gather" else 0]
    return sum(_elements(stored[part]) for part, kind in names.items() if kind in ("codes", "float_weights"))


def _type_of(read: WeightRead, names: Mapping[str, str], graph: StoredGraph, in_a_byte: Mapping[str, int]) -> str:
    """What one weight is: codes of several planes of bits have those of all, what is stored as float its own type."""
    types = {name: _type(graph.tensors[name]) for name in names}
    bits = sum(
        BLOCK_BITS if read.node.op_type == BLOCKS else types[name].itemsize * 8 // in_a_byte.get(name, 1)
        for name, kind in names.items()
        if kind == "codes"
    )
    if not bits:
        return next((str(types[name]) for name, kind in names.items() if kind == "float_weights"), "")
    return f"{bits}-bit book" if "code_books" in names.values() else f"int{bits}"


def _external_files(proto: onnx.ModelProto, folder: Path) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for tensor in StoredGraph(proto.graph).tensors.values():
        if not _is_external(tensor):
            continue
        location = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
        target = (folder / location).resolve()
        if not target.is_relative_to(folder.resolve()) or not target.is_file():
            raise ModelError(
                f"its weights are in '{location}', which is not beside it.",
                where=str(folder),
                remedy="Put the external data file into the model's own folder.",
            )
        sizes[location] = target.stat().st_size
    return sizes


def _is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def _elements(tensor: TensorProto) -> int:
    return int(np.prod(tensor.dims, dtype=np.int64))


def _item_bytes(tensor: TensorProto) -> int:
    return int(_type(tensor).itemsize)


def _type(tensor: TensorProto) -> np.dtype[Any]:
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError as error:
        raise ModelError(
            f"has the unknown data type {tensor.data_type}.",
            where=f"tensor {tensor.name!r}",
            remedy="Copy or export the model again.",
        ) from error
