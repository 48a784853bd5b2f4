"""Operators that LiteRT lacks, written as several that it has: functions of each value, and norms. All are in float."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from lowbit.formats.litert.builder import Array, Option
from lowbit.formats.litert.graph import FileGraph, StoredValue
from lowbit.graph.model import Node, Value

# Options tables whose names do not follow from the operator's, and operators without one.
TABLES = {"MAXIMUM": "MaximumMinimumOptions", "MINIMUM": "MaximumMinimumOptions"} | dict.fromkeys(
    ("MEAN", "SUM", "REDUCE_MAX"), "ReducerOptions"
)
NO_TABLE = frozenset(("LOG", "SQRT", "RSQRT", "TANH", "SIN", "RELU", "LOGISTIC"))
SMALLEST = 1e-30  # by which may be divided in place of 0
# Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 7.1.26: erf to 1.5e-7.
ERF_SLOPE = 0.3275911
ERF_TERMS = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)

Term = int | float


class Terms:
    """Arithmetic on tensors of a file, by their indices; numbers become constants."""

    def __init__(self, graph: FileGraph) -> None:
        self._graph = graph

    def __call__(self, code: str, *parts: Term | Array) -> int:
        """Write an operator without options; the index of its result, broadcast from its parts."""
        graph = self._graph
        tensors = [self._tensor(part) for part in parts]
        known = [graph.tensors[tensor] for tensor in tensors]
        shape = np.broadcast_shapes(*(tensor.shape for tensor in known))
        batch = next((tensor.batch_axis for tensor in known if tensor.batch_axis is not None), None)
        result = graph.tensor(shape, batch_axis=batch)
        graph.operator(code, tensors, [result], table=None if code in NO_TABLE else TABLES.get(code, ""))
        return result

    def reduced(self, code: str, tensor: int, places: Sequence[int]) -> int:
        """MEAN, SUM or REDUCE_MAX over some stored axes, which stay as ones."""
        graph = self._graph
        old = graph.tensors[tensor]
        shape = [1 if place in places else size for place, size in enumerate(old.shape)]
        result = graph.tensor(shape, batch_axis=None if old.batch_axis in places else old.batch_axis)
        options: dict[str, Option] = {"keepDims": True}
        graph.operator(code, [tensor, graph.integers(sorted(places))], [result], table=TABLES[code], options=options)
        return result

    def _tensor(self, part: Term | Array) -> int:
        return part if isinstance(part, int) else self._graph.constant(np.asarray(part, np.float32))


def softplus(t: Terms, x: int) -> int:
    """log(1 + exp(x)), without overflow."""
    return t("ADD", t("RELU", x), t("LOG", t("ADD", t("EXP", t("NEG", t("ABS", x))), 1.0)))


def erf(t: Terms, x: int) -> int:
    """See `ERF_TERMS`."""
    size = t("ABS", x)
    step = t("DIV", 1.0, t("ADD", t("MUL", size, ERF_SLOPE), 1.0))
    total = t("MUL", step, ERF_TERMS[-1])
    for term in ERF_TERMS[-2::-1]:
        total = t("MUL", step, t("ADD", total, term))
    upper = t("SUB", 1.0, t("MUL", total, t("EXP", t("NEG", t("MUL", x, x)))))
    return t("MUL", upper, t("DIV", x, t("MAXIMUM", size, SMALLEST)))


def bent(t: Terms, x: int, alpha: float, gamma: float, width: float) -> int:
    """gamma max(0, x) + gamma alpha (exp(min(0, x) / width) - 1): Elu, Selu and Celu."""
    below = t("SUB", t("EXP", t("MUL", t("MINIMUM", x, 0.0), 1.0 / width)), 1.0)
    return t("ADD", t("MUL", t("RELU", x), gamma), t("MUL", below, gamma * alpha))


def _number(node: Node, name: str, default: float) -> float:
    return float(node.attributes.get_float(name, default))


def _celu(t: Terms, x: int, node: Node) -> int:
    alpha = _number(node, "alpha", 1.0)
    return bent(t, x, alpha, 1.0, alpha)


FORMULAS: dict[str, Callable[[Terms, int, Node], int]] = {
    "Softplus": lambda t, x, node: softplus(t, x),
    "Mish": lambda t, x, node: t("MUL", x, t("TANH", softplus(t, x))),
    "Softsign": lambda t, x, node: t("DIV", x, t("ADD", t("ABS", x), 1.0)),
    "Swish": lambda t, x, node: t("MUL", x, t("LOGISTIC", t("MUL", x, _number(node, "alpha", 1.0)))),
    "Erf": lambda t, x, node: erf(t, x),
    "Elu": lambda t, x, node: bent(t, x, _number(node, "alpha", 1.0), 1.0, 1.0),
    "Selu": lambda t, x, node: bent(
        t, x, _number(node, "alpha", 1.67326319217681884765625), _number(node, "gamma", 1.05070102214813232421875), 1.0
    ),
    "Celu": _celu,
    "Reciprocal": lambda t, x, node: t("DIV", 1.0, x),
    "Tan": lambda t, x, node: t("DIV", t("SIN", x), t("COS", x)),
}


def formula(graph: FileGraph, node: Node) -> None:
    """A function of each value alone, by its formula."""
    x = graph.read(node.inputs[0])
    result = FORMULAS[node.op_type](Terms(graph), x.tensor, node)
    graph.adopt(str(node.outputs[0].name), StoredValue(result, x.order, flat=x.flat))


def layer_norm(graph: FileGraph, node: Node) -> None:
    """LayerNormalization: over the last axes, with a scale for each of their values."""
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise graph.refuse(node, "also gives mean or deviation")
    rank = len(graph.input_shape(node))
    axis = node.attributes.get_int("axis", -1) % rank
    _write_norm(graph, node, range(axis, rank), scaled_from=axis)


def instance_norm(graph: FileGraph, node: Node) -> None:
    """InstanceNormalization: over all places, with a scale for each channel."""
    _write_norm(graph, node, range(2, len(graph.input_shape(node))), scaled_from=None)


def mean_variance_norm(graph: FileGraph, node: Node) -> None:
    """MeanVarianceNormalization: over the axes given, without scales."""
    axes = [axis % len(graph.input_shape(node)) for axis in node.attributes.get_ints("axes", [0, 2, 3])]
    if 0 in axes:
        raise graph.refuse(node, "mixes the images of a batch")
    _write_norm(graph, node, axes, scaled_from=None)


def group_norm(graph: FileGraph, node: Node) -> None:
    """GroupNormalization: over groups of channels; scales for groups (before operator set 21) or for channels."""
    shape = graph.input_shape(node)
    groups = node.attributes.get_int("num_groups", 1)
    x = graph.plain(node.inputs[0])
    name = str(node.outputs[0].name)
    batch = graph.tensors[x.tensor].batch_axis
    apart = graph.reshape(x.tensor, (-1, groups, math.prod(shape[1:]) // groups), batch_axis=batch)
    t = Terms(graph)
    result = graph.reshape(_centered(t, apart, [2], _epsilon(node)), (-1, *shape[1:]), batch_axis=batch)
    for code, value in zip(("MUL", "ADD"), node.inputs[1:3], strict=True):
        array = _constant(graph, node, value)
        by_channel = np.repeat(array, shape[1] // array.size) if array.size != shape[1] else array
        result = t(code, result, by_channel.reshape(1, -1, *(1 for _ in shape[2:])))
    graph.adopt(name, StoredValue(result, x.order))


def _write_norm(graph: FileGraph, node: Node, axes: Sequence[int], *, scaled_from: int | None) -> None:
    """(x - mean) / deviation over some axes, then scale and shift along the channels, or all axes from one on."""
    x = graph.read_axes(node)
    rank = len(x.order)
    t = Terms(graph)
    result = _centered(t, x.tensor, [x.order.index(axis) for axis in axes], _epsilon(node))
    for code, value in zip(("MUL", "ADD"), node.inputs[1:3], strict=False):
        if value is None:
            continue
        array = _constant(graph, node, value)
        shape = (
            (1, -1, *(1 for _ in range(rank - 2))) if scaled_from is None else (1,) * (rank - array.ndim) + array.shape
        )
        result = t(code, result, array.reshape(shape).transpose(x.order))
    graph.adopt(str(node.outputs[0].name), StoredValue(result, x.order))


def _centered(t: Terms, x: int, places: Sequence[int], epsilon: float) -> int:
    centered = t("SUB", x, t.reduced("MEAN", x, places))
    variance = t.reduced("MEAN", t("MUL", centered, centered), places)
    return t("MUL", centered, t("RSQRT", t("ADD", variance, epsilon)))


def _epsilon(node: Node) -> float:
    # MeanVarianceNormalization has none in its attributes, but adds this.
    return float(node.attributes.get_float("epsilon", 1e-9 if node.op_type.startswith("Mean") else 1e-5))


def _constant(graph: FileGraph, node: Node, value: Value | None) -> Array:
    array = graph.array(value)
    if array is None:
        raise graph.refuse(node, "has scales that are computed")
    return array.astype(np.float32)
