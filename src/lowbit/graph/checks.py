"""What an untrusted ONNX message must satisfy before anything is built from it.

Sizes are compared in Python integers, so that a giant shape costs nothing; the graph is walked once, so that an error
names node and tensor; onnx's own checker, which runs last, knows the operators and their attributes.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]

from lowbit.errors import ModelError

OLDEST_OPSET = 7
KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "ai.onnx.preview"})
AGAIN = "Copy or export the model again."
MOST_NODES = 20_000  # of a graph whose functions are written out; networks of that many layers are exported without
# Tensors beyond this are not shown to the checker, which would copy them.
CHECKED_BYTES = 1024
# dtype -> (field of typed data, its entries per element)
TYPED_FIELDS: dict[int, tuple[str, int]] = {
    onnx.TensorProto.FLOAT: ("float_data", 1),
    onnx.TensorProto.COMPLEX64: ("float_data", 2),
    onnx.TensorProto.DOUBLE: ("double_data", 1),
    onnx.TensorProto.COMPLEX128: ("double_data", 2),
    onnx.TensorProto.INT64: ("int64_data", 1),
    onnx.TensorProto.UINT64: ("uint64_data", 1),
    onnx.TensorProto.UINT32: ("uint64_data", 1),
    onnx.TensorProto.STRING: ("string_data", 1),
}
BITS = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}


def check_versions(proto: onnx.ModelProto, source: str) -> None:
    """Refuse operator sets and IR versions that cannot be read.

    Raises:
        ModelError: the file's version, and which ones are supported.
    """
    newest = onnx.defs.onnx_opset_version()
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        raise ModelError("names no ONNX operator set.", where=source, remedy=AGAIN)
    if not OLDEST_OPSET <= versions[0] <= newest:
        raise ModelError(
            f"uses operator set {versions[0]}, {OLDEST_OPSET} to {newest} are supported.",
            where=source,
            remedy=f"Export it again with opset_version between 13 and {newest}.",
        )
    if not 3 <= proto.ir_version <= onnx.IR_VERSION:
        raise ModelError(
            f"has IR version {proto.ir_version}, 3 to {onnx.IR_VERSION} are supported.",
            where=source,
            remedy="Export it again with an older onnx, or install a newer lowbit.",
        )


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor in the model: initializers and attributes, in subgraphs and functions too."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
    for graph in _bodies(node):
        yield from _graph_tensors(graph)


def byte_count(tensor: onnx.TensorProto, source: str) -> int:
    """Number of bytes that a tensor needs by its shape and dtype.

    Raises:
        ModelError: a negative dimension or an unknown dtype.
    """
    where = f"{source}: tensor {tensor.name!r}"
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(f"has the invalid shape {list(tensor.dims)[:8]}.", where=where, remedy=AGAIN)
    try:
        name = onnx.TensorProto.DataType.Name(tensor.data_type)
        bits = BITS.get(name) or np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize * 8
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"has the unknown data type {tensor.data_type}.", where=where, remedy=AGAIN) from error
    return int(math.prod(tensor.dims) * bits + 7) // 8


def check_tensors(proto: onnx.ModelProto, source: str) -> None:
    """Check that every tensor holds as much data as its shape and dtype say.

    Raises:
        ModelError: the tensor, the bytes it has and the bytes it needs.
    """
    if any(graph.sparse_initializer for graph in _graphs(proto.graph)):
        raise ModelError("has sparse weights.", where=source, remedy="Export it with dense weights.")
    for tensor in tensors(proto):
        expected = byte_count(tensor, source)
        where = f"{source}: tensor {tensor.name!r}"
        field, entries = TYPED_FIELDS.get(tensor.data_type, ("int32_data", 1))
        bits = BITS.get(onnx.TensorProto.DataType.Name(tensor.data_type))
        if tensor.HasField("raw_data") and tensor.data_type != onnx.TensorProto.STRING:
            held = len(tensor.raw_data)
            unit = "bytes"
        else:
            held = len(getattr(tensor, field))
            unit = "values"
            # Types below 8 bits are packed: one int32 entry holds one byte of them.
            expected = expected if bits else math.prod(tensor.dims) * entries
        if held != expected:
            raise ModelError(
                f"has {held} {unit}, its shape {list(tensor.dims)[:8]} needs {expected}.", where=where, remedy=AGAIN
            )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for body in _bodies(node):
            yield from _graphs(body)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in a node's attributes."""
    for attribute in node.attribute:
        yield from (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)


def check_functions(proto: onnx.ModelProto, source: str) -> None:
    """Count the nodes that there would be with all functions written out: each may call others many times.

    Raises:
        ModelError: too many, or a function that calls itself.
    """
    functions = {(function.domain, function.name): function for function in proto.functions}
    counts: dict[tuple[str, str], int] = {}
    calling: set[tuple[str, str]] = set()

    def count(nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            total += 1 if key not in functions else called(key)
            total += sum(count(graph.node) for graph in _bodies(node))
        return min(total, MOST_NODES + 1)

    def called(key: tuple[str, str]) -> int:
        if key in calling:
            raise ModelError(f"its function {key[1]!r} calls itself.", where=source, remedy=AGAIN)
        if key not in counts:
            calling.add(key)
            counts[key] = count(functions[key].node)
            calling.discard(key)
        return counts[key]

    if proto.functions and count(proto.graph.node) > MOST_NODES:
        raise ModelError(
            f"has more than {MOST_NODES:,} nodes when its functions are written out.",
            where=source,
            remedy="Export it without functions.",
        )


def check_graph(proto: onnx.ModelProto, source: str) -> None:
    """Check inputs, operators and the wiring of the graph.

    Raises:
        ModelError: no inputs, functions that cannot be written out, a text that is none, an unknown operator, or the
            node whose input is never computed, or computed too late.
    """
    initializers = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in initializers]
    if not inputs:
        raise ModelError("has no inputs.", where=source, remedy="Export it with the image as an input.")
    if not proto.graph.output or not proto.graph.node:
        raise ModelError("has no outputs or no operators: nothing to compute.", where=source, remedy=AGAIN)
    for value in inputs:
        if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
            raise ModelError(
                f"input {value.name!r} is not a tensor of known rank.",
                where=source,
                remedy="Export it with a tensor of fixed rank as input.",
            )
        if value.type.tensor_type.elem_type == onnx.TensorProto.UNDEFINED:
            raise ModelError(f"input {value.name!r} has no type.", where=source, remedy=AGAIN)
    check_functions(proto, source)
    own = {(function.domain, function.name) for function in proto.functions}
    for graph in _graphs(proto.graph):
        for node in graph.node:
            if node.domain not in KNOWN_DOMAINS and (node.domain, node.op_type) not in own:
                raise ModelError(
                    f"node {node.name!r} is {node.domain}.{node.op_type}, an operator that is not part of ONNX.",
                    where=source,
                    remedy="Export it with standard operators only.",
                )
            if any(attribute.ref_attr_name for attribute in node.attribute):
                raise ModelError(
                    f"node {node.name!r} takes an attribute from a function, and is in none.",
                    where=source,
                    remedy=AGAIN,
                )
            _check_texts(node, source)
    _check_wiring(proto.graph, source)
    _check_schema(proto, source)


def _check_texts(node: onnx.NodeProto, source: str) -> None:
    """Texts of standard operators are UTF-8, as those of no other need be."""
    for attribute in node.attribute if node.domain in ("", "ai.onnx") else ():
        try:
            for text in (attribute.s, *attribute.strings):
                text.decode()
        except UnicodeDecodeError as error:
            raise ModelError(
                f"node {node.name!r} has an attribute {attribute.name!r} that is not UTF-8.",
                where=source,
                remedy=AGAIN,
            ) from error


def _check_wiring(graph: onnx.GraphProto, source: str) -> None:
    known = {""} | {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    later = {name for node in graph.node for name in node.output}
    for index, node in enumerate(graph.node):
        where = f"{source}: node {node.name or f'{node.op_type} number {index}'!r}"
        for name in node.input:
            if name not in known:
                what = (
                    "is only computed later: the graph is a cycle or not sorted" if name in later else "does not exist"
                )
                raise ModelError(f"its input {name!r} {what}.", where=where, remedy=AGAIN)
        for name in node.output:
            if name and name in known:
                raise ModelError(f"its output {name!r} exists already.", where=where, remedy=AGAIN)
            known.add(name)
    for value in graph.output:
        if value.name not in known:
            raise ModelError(f"its output {value.name!r} is not computed.", where=source, remedy=AGAIN)


def _check_schema(proto: onnx.ModelProto, source: str) -> None:
    """Run onnx's checker on a copy in which large weights are inputs."""
    weights = list(proto.graph.initializer)
    large = [tensor for tensor in weights if byte_count(tensor, source) > CHECKED_BYTES]
    # Field by field: a message keeps the memory of what is removed from it, and putting it back would hold it twice.
    light = onnx.ModelProto()
    try:
        _copy_fields(proto, light, but="graph")
        _copy_fields(proto.graph, light.graph, but="initializer")
    except UnicodeDecodeError as error:
        raise ModelError("is not a valid ONNX model: a text in it is not UTF-8.", where=source, remedy=AGAIN) from error
    light.graph.initializer.extend(tensor for tensor in weights if byte_count(tensor, source) <= CHECKED_BYTES)
    present = {value.name for value in light.graph.input}
    for tensor in large:
        if tensor.name not in present:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    # The checker wants a shape for each output; runtimes do not.
    shaped = [value for value in light.graph.output if value.type.tensor_type.HasField("shape")]
    del light.graph.output[:]
    light.graph.output.extend(shaped)
    light.ir_version = max(light.ir_version, 4)
    try:
        onnx.checker.check_model(light)
    except Exception as error:  # ValidationError, or whatever the C++ side throws on nonsense
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(f"is not a valid ONNX model: {first.strip()}", where=source, remedy=AGAIN) from error


def _copy_fields(source: Message, target: Message, *, but: str) -> None:
    """Copy every field of a message but one."""
    for field, value in source.ListFields():
        if field.name == but:
            continue
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            getattr(target, field.name).extend(value)
        elif isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)
