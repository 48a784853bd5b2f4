"""Which operators a file needs, and what TensorFlow Lite Micro cannot do of that.

What an operator is refused for was seen in the interpreter (see `kernels`): no kernel, none for the type, layers whose
weights have another type than their activations ("hybrid"), 4-bit weights with a scale per channel in a
FULLY_CONNECTED. One fault there is silent: a DEQUANTIZE of codes with a scale per channel uses the first scale for all
of them, and everything after it is wrong.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from lowbit.engines.litert_operators import NAMES
from lowbit.engines.litert_reader import LiteRtFile, StoredGraph, StoredOperator, StoredTensor
from lowbit.formats.micro.kernels import (
    CASTS,
    CUSTOM,
    CUSTOM_KERNELS,
    KERNELS,
    LAYERS,
    NARROW,
    QUANTIZES,
    WEIGHTS,
    Kernel,
)

FLOATS = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True)
class MicroOperator:
    """One kind of operator in a file.

    Attributes:
        name: in the schema's `BuiltinOperator`, or its own if it is a custom one.
        method: that adds it to a `MicroMutableOpResolver`, such as `AddConv2D`; empty if there is no kernel.
        count: how many there are.
        in_float: how many of them compute in float.
        problems: what will not work, each with how many operators it concerns; empty if all is well.
    """

    name: str
    method: str
    count: int
    in_float: int
    problems: tuple[str, ...]


def operator_name(operator: StoredOperator) -> str:
    """What an operator is called."""
    if operator.code == CUSTOM:
        return operator.custom or "CUSTOM"
    return NAMES[operator.code] if 0 <= operator.code < len(NAMES) else f"operator {operator.code}"


def kernel_of(operator: StoredOperator) -> Kernel | None:
    """Its row in the tables."""
    known = CUSTOM_KERNELS if operator.code == CUSTOM else KERNELS
    return known.get(operator_name(operator))


def needed_operators(file: LiteRtFile) -> tuple[MicroOperator, ...]:
    """Each kind of operator in all graphs of a file, by name."""
    kinds: dict[str, list[tuple[StoredGraph, StoredOperator]]] = {}
    for graph in file.graphs:
        for operator in graph.operators:
            kinds.setdefault(operator_name(operator), []).append((graph, operator))
    found = []
    for name, uses in sorted(kinds.items()):
        kernel = kernel_of(uses[0][1])
        problems = Counter(problem for graph, operator in uses for problem in _problems(graph, operator))
        found.append(
            MicroOperator(
                name,
                f"Add{kernel.method}" if kernel else "",
                len(uses),
                sum(any(tensor.dtype in FLOATS for tensor in _read(graph, operator)) for graph, operator in uses),
                tuple(f"{text} ({count} of {len(uses)})" for text, count in problems.items()),
            )
        )
    return tuple(found)


def _read(graph: StoredGraph, operator: StoredOperator) -> list[StoredTensor]:
    return [graph.tensors[index] for index in operator.inputs if index >= 0]


def _problems(graph: StoredGraph, operator: StoredOperator) -> Iterator[str]:
    name, kernel = operator_name(operator), kernel_of(operator)
    if kernel is None:
        yield "no kernel"
        return
    data = tensor_at(graph, operator.inputs, kernel.data)
    if data is None or not kernel.types:
        return
    if data.dtype not in kernel.types.split():
        yield f"no kernel for {data.dtype}"
        return
    result = tensor_at(graph, operator.outputs, 0)
    if result is not None and (
        (name == "QUANTIZE" and result.dtype not in QUANTIZES[data.dtype])
        or (name == "CAST" and result.dtype not in CASTS)
    ):
        yield f"no kernel from {data.dtype} to {result.dtype}"
    if name == "DEQUANTIZE" and data.scale.size > 4:
        yield "one scale is used for all channels: wrong answers"
    if name in LAYERS:
        yield from _weight_problems(graph, operator, name, data.dtype)


def _weight_problems(graph: StoredGraph, operator: StoredOperator, name: str, dtype: str) -> Iterator[str]:
    weight = tensor_at(graph, operator.inputs, LAYERS[name][0])
    if weight is None:
        return
    narrow = dtype == "int8" and weight.dtype == "int4" and name in NARROW
    if weight.dtype != WEIGHTS[dtype] and not narrow:
        yield f"no kernel for {dtype} with weights of {weight.dtype}"
    elif narrow and name == "FULLY_CONNECTED" and weight.scale.size > 4:
        yield "no kernel for 4-bit weights with a scale per channel"


def tensor_at(graph: StoredGraph, indices: tuple[int, ...], at: int) -> StoredTensor | None:
    """A tensor by its place among an operator's; None if there is none."""
    return graph.tensors[indices[at]] if at < len(indices) and indices[at] >= 0 else None
